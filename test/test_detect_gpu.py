"""What only a CUDA device shows: FP16, graph replay, streams, and that the training loop never waits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import DetectorConfig
from rfdetr_foundationpose.detect.masks import instance_mask
from rfdetr_foundationpose.detect.rfdetr_detector import RfDetrDetector
from rfdetr_foundationpose.device_frame import Uploader
from rfdetr_foundationpose.evaluate.detector_validate import compare
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler
from rfdetr_foundationpose.train.detector_data import ScenePool
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD, Trainer, TrainSettings
from support.detector_models import CAMERA, SEG_TINY, SPECS, TINY, frame, loaded

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda:0")


def detector(backend: str, variant: str = "nano", config: dict | None = None) -> RfDetrDetector:
    model = loaded(variant, CUDA, **(config or TINY))
    made = RfDetrDetector(model, SPECS, DetectorConfig(backend=backend, threshold=0.5), CUDA)
    made.warm_up(CAMERA)
    return made


@pytest.mark.parametrize("backend", ["eager", "half", "traced", "compile", "cuda_graph"])
def test_backend_runs_and_agrees_with_predict(backend):
    reference, fast = detector("reference"), detector(backend)
    assert (fast.backend, fast.degraded) == (backend, [])
    assert fast.dtype == (torch.float32 if backend == "eager" else torch.float16)
    pairs = [(reference.raw(frame(i)), fast.raw(frame(i))) for i in range(8)]
    words = {"reference": "predict", "candidate": backend, "device": "cuda", "weights": "random"}
    result = compare(pairs, 0.5, **words)
    print(result.table())
    # Random weights amplify FP16 more than trained ones; those are held to the real bars by validate detector.
    assert result.detections > 10 and result.box_p95 < 6 and result.score_p50 < 0.02


@pytest.mark.parametrize("backend", ["half", "traced", "cuda_graph"])
def test_masks_are_those_of_the_network(backend):
    """Of the same query in both: where logits are far from 0, FP16 does not change their sign."""
    plain, fast = (detector(b, "seg-nano", SEG_TINY) for b in ("eager", backend))
    assert (fast.backend, fast.degraded) == (backend, [])
    compared = 0
    for seed in range(4):
        a, b = plain.raw(frame(seed)), fast.raw(frame(seed))
        assert b.mask_logits.device == CUDA and b.mask_fits.shape == b.scores.shape
        for i, j in zip(*np.nonzero(np.abs(a.boxes[:, None] - b.boxes[None]).max(-1) < 0.5), strict=True):
            wanted, got = a.mask_logits[int(a.queries[i])].float(), b.mask_logits[int(b.queries[j])].float()
            clear = wanted.abs() > 0.3 * wanted.std()
            compared += int(((got > 0) == (wanted > 0))[clear].float().mean() > 0.95)
        found = fast.detect(Uploader(CUDA)(frame(seed))).detections
        assert all(d.mask.shape == frame().depth.shape and d.mask.device == CUDA for d in found)
    assert compared >= 10


def test_masks_are_upsampled_as_on_the_host():
    logits = torch.randn(24, 24, generator=torch.Generator().manual_seed(0))
    for box in (np.array([100.0, 40.0, 300.0, 200.0]), np.array([0.0, 0.0, 480.0, 270.0])):
        host, device = (instance_mask(x, box, 270, 480) for x in (logits, logits.to(CUDA)))
        assert (host != device.cpu()).float().mean() < 1e-4 and host.any()


def test_started_on_a_stream_of_its_own_gives_the_same():
    fast = detector("cuda_graph")
    uploaded = Uploader(CUDA)(frame(3))
    expected = fast.detect(uploaded)
    side = torch.cuda.Stream(CUDA)
    side.wait_stream(torch.cuda.current_stream(CUDA))
    with torch.cuda.stream(side):
        finish = fast.start(uploaded)
    torch.cuda.current_stream(CUDA).wait_stream(side)
    got = finish()
    assert [d.score for d in got.detections] == [d.score for d in expected.detections] != []
    for a, b in zip(got.detections, expected.detections, strict=True):
        assert torch.equal(a.mask, b.mask) and a.mask.device == CUDA


@pytest.mark.parametrize("masks", ["no", "yes", "only"])
def test_training_step_never_waits_for_the_device(tmp_path, masks):
    settings = TrainSettings(
        out=tmp_path, batch=4, groups=2, device="cuda:0", pool=16, scene_size=(96, 128), masks=masks
    )
    trainer = Trainer(settings, [o.name for o in demo_objects()])
    pool = ScenePool(SceneSampler(demo_objects(), CUDA, (96, 128), 0, SceneContent(4, 4)), 16, seed=0)
    pool.fill(16)
    mean, std = torch.tensor(MEAN, device=CUDA), torch.tensor(STD, device=CUDA)
    trainer.train_step(pool.draw(4, trainer.size, mean, std), 1e-4)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = trainer.train_step(pool.draw(4, trainer.size, mean, std), 1e-4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(v) for v in losses.values())
