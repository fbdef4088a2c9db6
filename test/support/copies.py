"""Copies between host and device, by the profiler, and how long bringing a frame to the GPU takes.

python test/support/copies.py, on a machine with a GPU: the time that an image saves which is there already.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "test")]

from rfdetr_foundationpose.device_frame import Uploader  # noqa: E402
from rfdetr_foundationpose.types import CameraIntrinsics, Frame  # noqa: E402


def largest_copies(action: Callable[[], object], trace: Path) -> dict[str, int]:
    """Bytes of the largest copy each way between host and device."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        action()
        torch.cuda.synchronize()
    profiler.export_chrome_trace(str(trace))
    copies = {"HtoD": 0, "DtoH": 0}
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event.get("cat") == "gpu_memcpy":
            for way in copies:
                if way in event["name"]:
                    copies[way] = max(copies[way], int(event["args"]["bytes"]))
    return copies


def upload_ms(width: int, height: int, *, there: bool, repeats: int = 200) -> float:
    """Median time until a frame of that size can be read on the GPU. there: its images are in the GPU's memory."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 255, (height, width, 3), np.uint8)
    depth = rng.integers(300, 2000, (height, width), np.uint16)
    images = [torch.from_numpy(a).cuda() for a in (rgb, depth)] if there else [rgb, depth]
    frame = Frame(0, "camera", *images, 0.001, CameraIntrinsics(600.0, 600.0, width / 2, height / 2, width, height))
    upload = Uploader("cuda")
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        upload(frame)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - begin) * 1e3)
    return median(times[repeats // 10 :])


def main() -> int:
    if not torch.cuda.is_available():
        print("needs a CUDA device", file=sys.stderr)
        return 2
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: rgb8 and 16UC1 until they can be read on the GPU"
    )
    for width, height in ((640, 480), (1280, 720), (1920, 1080)):
        host, there = (upload_ms(width, height, there=there) for there in (False, True))
        print(
            f"{width}x{height}: arrays {host:.3f} ms, CUDA buffers {there:.3f} ms, saved {host - there:.3f} ms a frame"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
