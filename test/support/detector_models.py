"""Small random RF-DETR models and frames for them."""

from __future__ import annotations

import numpy as np
import torch

from rfdetr_foundationpose.config import DetectorConfig
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import LoadedModel
from rfdetr_foundationpose.detect.rfdetr_detector import RfDetrDetector
from rfdetr_foundationpose.objects import ObjectSpec
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

CPU = torch.device("cpu")

CAMERA = CameraIntrinsics(600.0, 600.0, 240.0, 135.0, 480, 270)

NAMES = ["mug", "can", "drill"]

SPECS = [ObjectSpec("mug", mesh=__file__), ObjectSpec("tin", mesh=__file__, label="can")]

TINY = {
    "resolution": 128,
    "positional_encoding_size": 8,
    "out_feature_indexes": [1, 2],
    "dec_layers": 2,
    "num_queries": 20,
    "num_select": 20,
    "hidden_dim": 64,
    "group_detr": 1,
}

SEG_TINY = {**TINY, "resolution": 96, "patch_size": 12, "num_windows": 1}


def loaded(variant: str = "nano", device: torch.device = CPU, **config) -> LoadedModel:
    """Random weights with life in the heads: by default all boxes and scores would be alike."""
    torch.manual_seed(3)
    model = library.construct(variant, device, num_classes=len(NAMES), **(config or TINY))
    net = library.network(model)
    library.truncate_encoder(net)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "bbox_embed" in name and p.dim() > 1:
                p.normal_(0, 0.06, generator=generator)
            if "class_embed" in name:
                p.normal_(0, 0.15, generator=generator)
    model.model.class_names = NAMES
    return LoadedModel(model, dict(enumerate(NAMES)), "random weights")


def detector(backend: str = "eager", variant: str = "nano", config=None, **settings) -> RfDetrDetector:
    settings = DetectorConfig(backend=backend, **settings)
    return RfDetrDetector(loaded(variant, **(config or TINY)), SPECS, settings, CPU)


def frame(seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (9, 16, 3)).astype(np.uint8)
    rgb = np.kron(coarse, np.ones((30, 30, 1), np.uint8)) // 2 + rng.integers(0, 100, (270, 480, 3)).astype(np.uint8)
    depth = (1000 + rng.integers(0, 50, (270, 480))).astype(np.uint16)
    return Frame(0, "camera", rgb, depth, 0.001, CAMERA)


def assert_same(fast, reference) -> None:
    """Every reference row has a row of the same class, score and box; rows of equal score may be in any order.

    predict() spends rows on the no-object column, so its last rows may be missing: they do not count.
    """
    wanted = np.flatnonzero(reference.scores > fast.scores.min() + 0.01)
    assert len(wanted) >= 10
    for box, score, index in zip(
        reference.boxes[wanted], reference.scores[wanted], reference.classes[wanted], strict=True
    ):
        same = (fast.classes == index) & (np.abs(fast.scores - score) < 0.01) & (np.abs(fast.boxes - box).max(1) < 1.0)
        assert same.any(), (box, score, index)
