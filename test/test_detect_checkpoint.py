"""Checkpoints in and out: exact, nothing of the file is run, and clear words for what does not fit."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rfdetr_foundationpose.detect import DetectorError
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import load_file, load_model, save
from rfdetr_foundationpose.detect.classes import map_classes, thresholds
from rfdetr_foundationpose.objects import ObjectSpec

CPU = torch.device("cpu")
NAMES = ["mug", "can", "drill"]
TINY = {
    "resolution": 64,
    "positional_encoding_size": 4,
    "out_feature_indexes": [1, 2],
    "dec_layers": 1,
    "num_queries": 8,
    "num_select": 8,
    "hidden_dim": 64,
    "group_detr": 3,
}


@pytest.fixture(scope="module")
def trained() -> torch.nn.Module:
    torch.manual_seed(0)
    net = library.network(library.construct("nano", CPU, num_classes=3, **TINY)).eval()
    library.truncate_encoder(net)
    return net


@pytest.fixture
def ours(trained, tmp_path) -> Path:
    path = tmp_path / "detector.safetensors"
    save(path, trained, variant="nano", config=TINY, class_names=NAMES)
    return path


def test_saved_network_comes_back_the_same(trained, ours):
    loaded = load_file(ours, "small", CPU)
    net = library.network(loaded.model).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        again, before = net(image), trained.half().float()(image)
    torch.testing.assert_close(again["pred_logits"], before["pred_logits"])
    torch.testing.assert_close(again["pred_boxes"], before["pred_boxes"])
    assert dict(loaded.class_names) == dict(enumerate(NAMES))
    with safe_open(ours, framework="pt") as file:
        assert {str(file.get_slice(k).get_dtype()) for k in file.keys()} == {"F16"}  # noqa: SIM118


def test_missing_file_says_what_weights_may_be():
    with pytest.raises(DetectorError, match="nowhere.pth do not exist; detector.weights takes 'default', 'published'"):
        load_model("nowhere.pth", "nano", CPU)


def test_unknown_suffix(tmp_path):
    path = tmp_path / "weights.onnx"
    path.write_bytes(b"x")
    with pytest.raises(DetectorError, match="end in '.onnx'; known are .safetensors"):
        load_file(path, "nano", CPU)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_corrupt_file(tmp_path, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(b"\x10\x00\x00\x00garbage" * 20)
    with pytest.raises(DetectorError, match="cannot be read"):
        load_file(path, "nano", CPU)


def test_truncated_file(ours):
    ours.write_bytes(ours.read_bytes()[: ours.stat().st_size // 2])
    with pytest.raises(DetectorError, match="cannot be read as safetensors"):
        load_file(ours, "nano", CPU)


def test_safetensors_of_something_else(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, str(path))
    with pytest.raises(DetectorError, match="no detector of this package"):
        load_file(path, "nano", CPU)


def test_tensors_that_do_not_fit_their_metadata(ours):
    with safe_open(ours, framework="pt") as file:
        metadata, state = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    state.pop("class_embed.bias")
    save_file(state, str(ours), metadata=metadata)
    with pytest.raises(DetectorError, match=r"1 tensors are missing.*class_embed\.bias"):
        load_file(ours, "nano", CPU)


class Exploit:
    """Pickles to a call that leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt"])
def test_pickled_code_is_not_run(tmp_path, suffix):
    trace, path = tmp_path / "ran", tmp_path / f"evil{suffix}"
    torch.save({"model": {}, "args": Exploit(trace)}, path)
    with pytest.raises(DetectorError, match="files that hold code are refused"):
        load_file(path, "nano", CPU)
    assert not trace.exists()


def full(variant: str = "nano", **config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return library.network(library.construct(variant, CPU, num_classes=3, group_detr=1, **config)).state_dict()


def test_library_checkpoint_with_settings_loads_with_its_class_names(tmp_path):
    path = tmp_path / "rf-detr-nano.pth"
    args = argparse.Namespace(
        class_names=NAMES, num_classes=3, pretrain_weights="rf-detr-nano.pth", group_detr=1, num_queries=300
    )
    torch.save({"model": full(), "args": args, "model_config": {"num_classes": 3, "group_detr": 1}}, path)
    loaded = load_file(path, "small", CPU)
    assert type(loaded.model).__name__ == "RFDETRNano"
    assert list(loaded.class_names.values()) == NAMES


def test_bare_checkpoint_of_another_variant(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": full()}, path)
    assert type(load_file(path, "nano", CPU).model).__name__ == "RFDETRNano"
    with pytest.raises(DetectorError, match=r"detector\.variant=small.*does not fit.*another variant"):
        load_file(path, "small", CPU)
    with pytest.raises(DetectorError, match="does not fit"):
        load_file(path, "seg-nano", CPU)


def test_checkpoint_without_a_network(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"optimizer": {}}, path)
    with pytest.raises(DetectorError, match="holds no RF-DETR network"):
        load_file(path, "nano", CPU)


def test_published_weights_that_cannot_be_reached_say_where_to_put_them(tmp_path, monkeypatch, caplog):
    import requests

    def refuse(*args, **kwargs):
        raise requests.exceptions.ConnectionError("no network in tests")

    monkeypatch.setenv("RF_HOME", str(tmp_path))
    monkeypatch.setattr(requests, "get", refuse)
    monkeypatch.setattr(requests.Session, "request", refuse)
    caplog.set_level("INFO")
    with pytest.raises(DetectorError) as raised:
        load_model("published", "nano", CPU)
    words = str(raised.value)
    assert "Download https://" in words and str(tmp_path / "rf-detr-nano.pth") in words
    assert "downloading RF-DETR nano" in caplog.text


SPECS = [ObjectSpec("cup", mesh=Path("m"), label="mug"), ObjectSpec("can", mesh=Path("m"), threshold=0.8)]


def test_labels_become_objects():
    found = map_classes(dict(enumerate(NAMES)), SPECS, "weights")
    assert found.objects == {0: "cup", 1: "can"} and found.labels == {0: "mug", 1: "can"}
    assert thresholds(SPECS, 0.5) == {"cup": 0.5, "can": 0.8}


def test_wrong_class_name_suggests_the_right_one():
    with pytest.raises(DetectorError, match=r"label 'mugg' is no class of w\.pth.*can, drill, mug.*Did you mean 'mug'"):
        map_classes(dict(enumerate(NAMES)), [ObjectSpec("cup", mesh=Path("m"), label="mugg")], "w.pth")


def test_zero_classes_zero_objects_and_shared_labels():
    with pytest.raises(DetectorError, match="names no classes"):
        map_classes({}, SPECS, "w.pth")
    with pytest.raises(DetectorError, match="no objects to detect"):
        map_classes(dict(enumerate(NAMES)), [], "w.pth")
    twice = [ObjectSpec("a", mesh=Path("m"), label="mug"), ObjectSpec("b", mesh=Path("m"), label="mug")]
    with pytest.raises(DetectorError, match="a and b have the same label 'mug'"):
        map_classes(dict(enumerate(NAMES)), twice, "w.pth")
