"""How long RF-DETR takes, image on the host to boxes on the host, for each way to run it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from ..config import DetectorConfig
from ..detect import rfdetr_library as library
from ..detect.backends import explain
from ..detect.checkpoint import LoadedModel, load_model
from ..detect.rfdetr_detector import RfDetrDetector
from ..device_frame import Uploader
from ..latency import percentile
from ..objects import ObjectSpec
from ..types import CameraIntrinsics, Frame

logger = logging.getLogger(__name__)

Run = Callable[[Frame], Any]


def bench_detector(
    specs: Sequence[ObjectSpec],
    device: torch.device,
    *,
    weights: str = "default",
    variant: str = "nano",
    repeats: int = 200,
    warm_up: int = 20,
    height: int = 720,
    width: int = 1280,
    frames: Sequence[Frame] = (),
) -> list[dict[str, Any]]:
    """One row for each way: name, precision, avg_ms, p50_ms, p95_ms, max_ms, count, device, detections.

    weights: as detector.weights, or "random" for the untrained network of ``variant``: its speed is that of a trained
    one. frames: images to run on in turn; by default random ones. Raises DetectorError when the weights do not fit.
    """
    images = list(frames) or list(_noise(height, width, 4))
    rows = []
    for name, precision, make in _ways(specs, device, weights, variant, images[0].camera):
        try:
            with _tensor_cores(precision != "FP32"):
                times, seen = _time(make(), images, repeats, warm_up, device)
        except (RuntimeError, TypeError) as error:
            logger.warning("%s (%s) does not run here: %s", name, precision, explain(error))
            continue
        ordered = sorted(times)
        rows.append(
            {
                "name": name,
                "precision": precision,
                "avg_ms": sum(times) / len(times),
                "p50_ms": percentile(ordered, 50),
                "p95_ms": percentile(ordered, 95),
                "max_ms": ordered[-1],
                "count": repeats,
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                "detections": sum(seen) / len(seen),
            }
        )
        row = rows[-1]
        text = "%s (%s): avg %.2f, p50 %.2f, max %.2f ms"
        logger.info(text, name, precision, row["avg_ms"], row["p50_ms"], row["max_ms"])
    return rows


def _time(
    run: Run, images: Sequence[Frame], repeats: int, warm_up: int, device: torch.device
) -> tuple[list[float], list[int]]:
    """Milliseconds of each repeat, and what each warm-up run found."""
    seen = [run(images[i % len(images)]) for i in range(warm_up)]
    times = []
    for i in range(repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        run(images[i % len(images)])
        times.append((time.perf_counter() - begin) * 1e3)
    return times, seen


@contextlib.contextmanager
def _tensor_cores(allowed: bool) -> Iterator[None]:
    """Whether FP32 convolutions may round their inputs to TF32: torch's default, in which the node runs; not in a row
    that says FP32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _noise(height: int, width: int, count: int) -> Iterator[Frame]:
    rng = np.random.default_rng(0)
    camera = CameraIntrinsics(0.9 * width, 0.9 * width, width / 2, height / 2, width, height)
    for i in range(count):
        rgb = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        depth = rng.integers(500, 1500, (height, width), dtype=np.uint16)
        yield Frame(i, "camera", rgb, depth, 0.001, camera)


def _ways(
    specs: Sequence[ObjectSpec],
    device: torch.device,
    weights: str,
    variant: str,
    camera: CameraIntrinsics,
) -> Iterator[tuple[str, str, Callable[[], Run]]]:
    """(name, precision, maker of the function to time); the models are made one after another to save memory."""
    cuda = device.type == "cuda"
    fast = "FP16" if cuda else "FP32"

    def load() -> LoadedModel:
        if weights == "random":
            labels = [s.label for s in specs]
            model = library.construct(variant, device, num_classes=len(labels))
            model.model.class_names = labels
            return LoadedModel(model, dict(enumerate(labels)), f"random ({variant})")
        return load_model(weights, variant, device)

    def predict(compile: bool, dtype: torch.dtype | None) -> Callable[[], Run]:
        def make() -> Run:
            model = load().model
            if dtype is not None:
                library.optimize(model, compile=compile, dtype=dtype)
            return lambda frame: len(model.predict(frame.rgb, threshold=0.5, include_source_image=False))

        return make

    def predictor(backend: str) -> Callable[[], Run]:
        def make() -> Run:
            settings = DetectorConfig(backend=backend, mask="box", threshold=0.5)
            detector = RfDetrDetector(load(), specs, settings, device)
            detector.warm_up(camera)
            if detector.backend != backend:
                raise RuntimeError(f"{detector.backend} runs instead of {backend}: {'; '.join(detector.degraded)}")
            upload = Uploader(device)
            return lambda frame: len(detector.detect(upload(frame)).detections)

        return make

    yield "predict, eager", "FP32", predict(False, None)
    if cuda:
        yield "predict", "FP16", predict(False, torch.float16)
    yield "predict, traced", fast, predict(True, torch.float16 if cuda else torch.float32)
    yield "predictor" if cuda else "predictor, eager", fast, predictor("half" if cuda else "eager")
    yield "predictor, traced", fast, predictor("traced")
    if cuda:
        yield "predictor, CUDA graph", fast, predictor("cuda_graph")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'way':<24}{'precision':<11}{'avg ms':>9}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}"]
    lines += [
        f"{r['name']:<24}{r['precision']:<11}{r['avg_ms']:>9.2f}{r['p50_ms']:>9.2f}{r['p95_ms']:>9.2f}{r['max_ms']:>9.2f}"
        for r in rows
    ]
    return "\n".join(lines)
