"""doctor reports what is there, and its exit code says whether the node can run."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import trimesh
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rfdetr_foundationpose.cli import doctor
from rfdetr_foundationpose.cli import doctor_inputs as inputs
from rfdetr_foundationpose.cli.doctor import findings
from rfdetr_foundationpose.cli.findings import Finding, Verdict
from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.config import Config, from_flat
from rfdetr_foundationpose.resources import models_dir


@pytest.fixture(scope="module")
def found() -> dict[str, Finding]:
    return {f.name: f for f in findings(Config())}


def test_installed_packages_are_reported_with_versions(found):
    import torch

    assert torch.__version__ in found["torch"].value
    assert found["rfdetr"].verdict is Verdict.OK
    assert "()" in found["rfdetr"].value
    assert found["objects"].verdict is found["object mug"].verdict is Verdict.OK
    assert "11.2 x 8.4 x 9.5 cm" in found["object mug"].value
    assert "soup_can" in found["detector"].value
    assert {"python", "warp", "onnxruntime", "tensorrt", "triton", "rclpy", "vision_msgs", "pose refiner"} <= set(found)


def test_missing_optional_ros_packages_say_what_follows(found):
    for name in ("tf2_ros", "vision_msgs"):
        line = found[name]
        assert line.verdict in (Verdict.OK, Verdict.OPTIONAL)
        if line.verdict is Verdict.OPTIONAL:
            assert line.fix.startswith("apt install ros-")
            assert "(apt" not in line.value


def test_an_extra_that_is_missing_says_what_is_lost_and_how_to_get_it(monkeypatch):
    assert {f.name for f in doctor._extras()} == set(doctor.EXTRAS)
    find_spec = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "xatlas" else find_spec(name))
    (line,) = [f for f in doctor._extras() if f.name == "xatlas"]
    assert line.verdict is Verdict.OPTIONAL and "object scan" in line.value
    assert line.fix == "pip install 'rfdetr_foundationpose[scan]'"


class Code:
    """What a checkpoint must not be able to do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def damaged_weights(folder: Path, ran: Path) -> dict[str, dict[str, str | Path]]:
    """What is wrong -> settings that ask for it."""
    shipped = models_dir()
    cases: dict[str, dict[str, str | Path]] = {}

    def pose(name: str) -> Path:
        path = folder / name
        shutil.copytree(shipped / "pose", path)
        cases[name] = {"pose.weights": path}
        return path

    shutil.rmtree(pose("no folder"))
    (pose("no scorer") / "scorer.safetensors").unlink()
    (pose("empty refiner") / "refiner.safetensors").write_bytes(b"")
    cut = pose("refiner cut off") / "refiner.safetensors"
    cut.write_bytes(cut.read_bytes()[:100_000])
    shutil.copy(shipped / "pose" / "scorer.safetensors", pose("scorer for a refiner") / "refiner.safetensors")
    state = load_file(shipped / "pose" / "refiner.safetensors")
    next(t for t in state.values() if t.is_floating_point()).view(-1)[0] = float("nan")
    save_file(state, pose("NaN in the refiner") / "refiner.safetensors")
    code = pose("code in the refiner")
    (code / "refiner.safetensors").unlink()
    (code / "2023-10-28-18-33-37").mkdir()
    torch.save({"model": Code(ran)}, code / "2023-10-28-18-33-37" / "model_best.pth")
    (pose("calibration cut off") / "confidence.json").write_text('{"intercept": 1')
    nan = pose("NaN in the calibration") / "confidence.json"
    tree = json.loads(nan.read_text())
    nan.write_text(json.dumps({**tree, "intercept": float("nan")}))

    def detector(name: str, suffix: str = ".safetensors") -> Path:
        path = folder / f"{name}{suffix}"
        cases[name] = {"detector.weights": path}
        return path

    detector("no detector")
    detector("empty detector").write_bytes(b"")
    detector("detector cut off").write_bytes((shipped / "detector.safetensors").read_bytes()[:1_000_000])
    shutil.copy(shipped / "pose" / "refiner.safetensors", detector("refiner for a detector"))
    torch.save({"model": Code(ran)}, detector("code in the detector", ".pth"))
    detector("a text for a detector", ".pth").write_text("weights")
    with safe_open(shipped / "detector.safetensors", framework="pt") as file:
        weights, metadata = {k: file.get_tensor(k) for k in file.keys()}, file.metadata()  # noqa: SIM118
    weights["class_embed.bias"][0] = float("inf")
    save_file(weights, detector("infinity in the detector"), metadata)
    return cases


def test_weights_are_loaded_as_the_node_would(tmp_path):
    ran = tmp_path / "ran"
    for name, settings in damaged_weights(tmp_path, ran).items():
        config = from_flat({key: str(value) for key, value in settings.items()})
        check = inputs.pose_weights if "pose.weights" in settings else lambda c: inputs.detector_weights(c, [])
        missing = [f for f in check(config) if f.verdict is Verdict.MISSING]
        assert missing, name
        assert str(tmp_path) in " ".join(f.value + f.fix for f in missing) or "refiner.safetensors" in missing[0].value
        assert "Traceback" not in missing[0].value
    assert not ran.exists()


def test_the_first_pass_is_named_and_a_refiner_in_its_place_is_refused(tmp_path):
    shipped = {f.name: f for f in inputs.pose_weights(from_flat({}))}
    assert shipped["pose first pass"].verdict is Verdict.OK
    assert "first_pass.safetensors" in shipped["pose first pass"].value
    for role in ("refiner", "scorer"):
        shutil.copy(models_dir() / "pose" / f"{role}.safetensors", tmp_path)
    shutil.copy(tmp_path / "refiner.safetensors", tmp_path / "first_pass.safetensors")
    found = {f.name: f for f in inputs.pose_weights(from_flat({"pose.weights": str(tmp_path)}))}["pose first pass"]
    assert found.verdict is Verdict.MISSING and "train first-pass" in found.value


def test_objects_are_loaded_as_the_node_would(tmp_path):
    box = trimesh.creation.box((0.1, 0.2, 0.3))
    box.export(tmp_path / "box.ply")
    (tmp_path / "broken.obj").write_text("not a mesh")
    file = tmp_path / "objects.yaml"
    file.write_text(
        "objects: [{name: box, mesh: box.ply}, {name: gone, mesh: gone.ply}, {name: broken, mesh: broken.obj}]\n"
    )
    lines, specs = inputs.objects(file)
    found = {f.name: f for f in lines}
    assert [s.name for s in specs] == ["box", "gone", "broken"]
    assert found["object box"].verdict is Verdict.OK and "10.0 x 20.0 x 30.0 cm" in found["object box"].value
    assert found["object gone"].verdict is found["object broken"].verdict is Verdict.MISSING
    (detector,) = inputs.detector_weights(Config(), specs)
    assert detector.verdict is Verdict.MISSING and "'box' is no class" in detector.value
    file.write_text("objects: [{name: box}]\n")
    (line,) = inputs.objects(file)[0]
    assert line.verdict is Verdict.MISSING and "entry 1 of objects needs" in line.value


def test_a_recording_is_read_as_replay_would(tmp_path):
    from rfdetr_foundationpose.synth.generate import generate_recording, load_scene_objects
    from rfdetr_foundationpose.synth.video import VideoSettings

    settings = VideoSettings(frames=2, size=(48, 64), targets=("mug",), distractors=0)
    generate_recording(tmp_path / "bag", load_scene_objects(names=("mug",)), settings)
    (line,) = inputs.recording(tmp_path / "bag", Config())
    assert line.verdict is Verdict.OK and "2 frames of 64x48" in line.value and "ground truth of mug" in line.value
    (tmp_path / "empty.mcap").touch()
    for path in (tmp_path / "none", tmp_path / "empty.mcap", tmp_path):
        (line,) = inputs.recording(path, Config())
        assert line.verdict is Verdict.MISSING and str(path) in line.value


def test_a_missing_package_is_a_line_not_a_crash(monkeypatch):
    monkeypatch.setitem(sys.modules, "warp", None)
    monkeypatch.setitem(sys.modules, "rfdetr_foundationpose.warp_setup", None)
    lines = {f.name: f for f in findings(Config())}
    assert lines["warp"].verdict is Verdict.MISSING
    assert lines["torch"].verdict is Verdict.OK


def test_what_is_asked_for_is_what_is_checked(monkeypatch, capsys, tmp_path):
    seen: list[tuple[Config, Path | None]] = []
    monkeypatch.setattr(doctor, "findings", lambda config, bag: seen.append((config, bag)) or [])
    file = tmp_path / "settings.yaml"
    file.write_text("pose: {weights: here}\ndetector: {weights: there.pth}\n")
    words = [
        "--config",
        str(file),
        "--detector-weights",
        "elsewhere.pth",
        "--objects-file",
        "mine.yaml",
        "--bag",
        "my.bag",
    ]
    with pytest.raises(SystemExit):
        main(["doctor", *words])
    (config, bag) = seen[0]
    assert (config.pose.weights, config.detector.weights) == ("here", "elsewhere.pth")
    assert config.objects_file == "mine.yaml" and bag == Path("my.bag")


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
