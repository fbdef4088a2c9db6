"""doctor reports what is there, and its exit code says whether the node can run."""

from __future__ import annotations

import json
import sys

import pytest

from rfdetr_foundationpose.cli import doctor
from rfdetr_foundationpose.cli.doctor import Finding, Verdict, findings
from rfdetr_foundationpose.cli.main import main


@pytest.fixture(scope="module")
def found() -> dict[str, Finding]:
    return {f.name: f for f in findings()}


def test_installed_packages_are_reported_with_versions(found):
    import torch

    assert torch.__version__ in found["torch"].value
    assert found["rfdetr"].verdict is Verdict.OK
    assert "()" in found["rfdetr"].value
    assert found["objects"].verdict is Verdict.OK
    assert "mug" in found["objects"].value
    assert {"python", "warp", "onnxruntime", "tensorrt", "triton", "rclpy", "vision_msgs", "pose refiner"} <= set(found)


def test_missing_optional_ros_packages_say_what_follows(found):
    for name in ("tf2_ros", "vision_msgs"):
        line = found[name]
        assert line.verdict in (Verdict.OK, Verdict.OPTIONAL)
        if line.verdict is Verdict.OPTIONAL:
            assert line.fix.startswith("apt install ros-")
            assert "(apt" not in line.value


def test_missing_weights_are_missing_with_a_remedy(tmp_path):
    lines = {f.name: f for f in findings(str(tmp_path), str(tmp_path / "none.pth"))}
    for name in ("pose refiner", "pose scorer", "detector weights"):
        assert lines[name].verdict is Verdict.MISSING
        assert lines[name].fix


def test_a_missing_package_is_a_line_not_a_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    monkeypatch.setitem(sys.modules, "rfdetr_foundationpose.warp_setup", None)
    lines = {f.name: f for f in findings()}
    assert lines["warp"].verdict is Verdict.MISSING
    assert lines["torch"].verdict is Verdict.OK


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.OK, 0), (Verdict.OPTIONAL, 0), (Verdict.MISSING, 1)])
def test_exit_code_says_whether_the_node_can_run(monkeypatch, capsys, tmp_path, verdict, code):
    monkeypatch.setattr(doctor, "findings", lambda *_: [Finding("thing [x]", verdict, "value [y]", "do this")])
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--json", str(tmp_path / "doctor.json")])
    assert ended.value.code == code
    text = capsys.readouterr().out
    assert "value [y]" in text
    assert "2023-10-28-18-33-37" in text
    stored = json.loads((tmp_path / "doctor.json").read_text())
    assert stored["can_run"] is (code == 0)
    assert stored["findings"][0]["verdict"] == verdict.value
