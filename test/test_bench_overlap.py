"""``bench overlap``: what it says where there are no streams, and that what it compares is the same work."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.detect.detector import DetectionReport
from rfdetr_foundationpose.evaluate.bench_overlap import Ways, difference, overlap_table, ratios
from rfdetr_foundationpose.evaluate.bench_timing import Stats
from rfdetr_foundationpose.types import CameraIntrinsics, Detection, Frame
from support.cli_runs import run_cli

CPU = torch.device("cpu")


def test_without_cuda_there_is_nothing_to_overlap(capsys, tmp_path):
    code, text = run_cli(capsys, "bench", "overlap", "--device", "cpu", "--out", str(tmp_path / "bench"))
    assert code == 2
    assert "nothing to overlap on cpu" in text
    assert not (tmp_path / "bench").exists()


def report(x: float) -> DetectionReport:
    return DetectionReport(
        [Detection("mug", "mug", 0.9, np.array([x, 0, x + 10, 10], np.float32), None, "rf-detr", 1.0)]
    )


class Doubles:
    """Detector and estimator that write down what they are asked for."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.estimator = self

    def detect(self, frame):
        return self.start(frame)()

    def start(self, frame):
        self.calls.append("detector starts")

        def finish() -> DetectionReport:
            self.calls.append("detector ends")
            return report(float(frame.rgb[0, 0, 0]))

        return finish

    def prepare(self, frame):
        return frame

    def track(self, frame, requests):
        self.calls.append("track")
        return [SimpleNamespace(T_cam_obj=r.T_cam_obj) for r in requests]


def test_every_way_does_the_same_work_in_its_order():
    doubles = Doubles()
    camera = CameraIntrinsics(10.0, 10.0, 8.0, 6.0, 16, 12)
    frame = Frame(0, "camera", np.full((12, 16, 3), 3, np.uint8), np.ones((12, 16), np.float32), 1.0, camera)
    outcomes, orders = {}, {}
    for name, way in Ways(doubles, doubles, CPU).ways.items():
        doubles.calls.clear()
        outcomes[name] = way(frame, {"mug": np.eye(4)})
        orders[name] = list(doubles.calls)
    turns = ["detector starts", "detector ends", "track"]
    beside = ["detector starts", "track", "detector ends"]
    # Without CUDA the pipeline's own stream is the stream that there is, and the detector is waited for at once.
    assert orders == {
        "one after the other": turns,
        "one stream": beside,
        "own stream": turns,
        "track alone": ["track"],
    }
    alone = outcomes.pop("track alone")
    assert alone[0] is None and set(alone[1]) == {"mug"}
    for found in outcomes.values():
        assert difference([outcomes["one after the other"]], [found]) == {
            "mm": 0.0,
            "deg": 0.0,
            "px": 0.0,
            "frames_with_other_detections": 0.0,
        }


def test_differences_are_seen():
    moved = np.eye(4)
    moved[0, 3] = 0.002
    found = difference(
        [(report(0), {"mug": np.eye(4)})] * 2, [(report(3), {"mug": moved}), (DetectionReport([]), {"mug": moved})]
    )
    assert found["mm"] == pytest.approx(2.0) and found["px"] == 3.0 and found["frames_with_other_detections"] == 1.0


def test_ratios_are_those_of_the_own_stream_to_the_others():
    stats = {
        "one after the other": Stats.of([4.0]),
        "one stream": Stats.of([3.0]),
        "own stream": Stats.of([2.0]),
        "track alone": Stats.of([1.0]),
    }
    found = ratios(stats)
    assert found["one after the other"] == {"p50": 0.5, "p95": 0.5}
    assert found["one stream"]["p50"] == pytest.approx(2 / 3) and set(found) == {"one after the other", "one stream"}
    row = {
        "detector_backend": "cuda_graph",
        "ways": {name: s.as_dict() for name, s in stats.items()},
        "ratios": found,
        "difference": difference([], []),
    }
    table = overlap_table({"cuda_graph": row, "tensorrt": {"reason": "not installed"}}, "GPU")
    assert table.row_count == 4
    assert list(table.columns[7].cells) == ["0.50", "0.67", "", ""]
    assert "tensorrt: not available: not installed" in str(table.caption)
