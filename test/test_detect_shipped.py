"""The detector weights that ship: they load, know the demo's objects, and find them in videos training never saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import Config
from rfdetr_foundationpose.detect import build_detector
from rfdetr_foundationpose.detect.checkpoint import SHIPPED
from rfdetr_foundationpose.detect.masks import mask_box
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.pipeline.extent import box_iou
from rfdetr_foundationpose.pose.mesh import load_object
from rfdetr_foundationpose.resources import default_objects_file, models_dir

CPU = torch.device("cpu")


def test_default_weights_know_the_demo_objects_and_are_small_enough():
    specs = load_objects(default_objects_file())
    detector = build_detector(Config(), specs, CPU)
    assert detector.source == "rf-detr"
    assert sorted(detector.class_objects.values()) == sorted(s.name for s in specs)
    assert (models_dir() / SHIPPED).stat().st_size <= 64 * 2**20


@pytest.mark.slow
def test_default_weights_find_the_demo_objects():
    from rfdetr_foundationpose.synth.video import SceneVideo, VideoSettings

    specs = load_objects(default_objects_file())
    detector = build_detector(Config(), specs, CPU)
    models = [load_object(s) for s in specs]
    wanted = found = false = 0
    for seed in (11, 12, 13):
        video = SceneVideo(models, VideoSettings(seed=seed, frames=120), "cpu")
        for index in (0, 60, 119):
            frame, _ = video.frame(index)
            truth = {name: mask_box(np.asarray(mask)) for name, mask in frame.masks.items() if mask.sum() >= 200}
            detections = detector.detect(Uploader("cpu")(frame)).detections
            for name, box in truth.items():
                wanted += 1
                found += any(d.object == name and box_iou(d.box, box) >= 0.5 for d in detections)
            false += sum(d.object not in truth or box_iou(d.box, truth[d.object]) < 0.3 for d in detections)
    assert wanted >= 40
    assert found >= 0.9 * wanted, f"{found} of {wanted}"
    assert false <= 1
