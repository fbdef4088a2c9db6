"""Damaged detector checkpoints end in a detector or in one sentence; ``make fuzz`` runs many of them."""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file as read_tensors
from safetensors.torch import save_file

from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import load_file, save
from support.fuzz import cases, damaged, outcome, try_seeds

CPU = torch.device("cpu")
PER_FORM = cases(5)
TINY: dict[str, Any] = {
    "resolution": 64,
    "positional_encoding_size": 4,
    "out_feature_indexes": [1, 2],
    "dec_layers": 1,
    "num_queries": 8,
    "num_select": 8,
    "hidden_dim": 64,
    "group_detr": 1,
}
WRONG = (None, -1, 0, 7, 1 << 40, 1.5, float("nan"), "big", [], [1, 2, 3], {"a": 1}, True, torch.zeros(2), b"x")


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    net = library.network(library.construct("nano", CPU, num_classes=3, **TINY))
    library.truncate_encoder(net)
    return net


@pytest.fixture(scope="module")
def whole() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return library.network(library.construct("nano", CPU, num_classes=3, **TINY)).state_dict()


def said(rng: random.Random) -> dict[str, Any]:
    """What a file says of itself, with one to three wrong values."""
    args = {**TINY, "class_names": ["mug", "can", "drill"], "num_classes": 3, "pretrain_weights": "rf-detr-nano.pth"}
    for _ in range(rng.randint(1, 3)):
        key = rng.choice([*args, "segmentation_head", "encoder", "num_windows", "patch_size"])
        if rng.random() < 0.3:
            args.pop(key, None)
        else:
            args[key] = rng.choice(WRONG)
    return args


def rewritten(state: dict[str, torch.Tensor], rng: random.Random) -> dict[str, Any]:
    """Tensors of which some are gone, of another shape or type, or not finite."""
    changed: dict[str, Any] = dict(state)
    for _ in range(rng.randint(0, 2)):
        key = rng.choice(list(changed))
        tensor = changed[key]
        changed[key] = rng.choice(
            (tensor[:-1], tensor * float("nan"), tensor.half(), tensor.long(), tensor[None], "gone")
        )
        if rng.random() < 0.3:
            del changed[key]
    return changed


def load(path: Path) -> str:
    loaded = load_file(path, "nano", CPU)
    net = library.network(loaded.model)
    assert all(bool(torch.isfinite(v).all()) for v in net.state_dict().values() if v.is_floating_point())
    outputs = net.class_embed.bias.shape[0]
    assert loaded.class_names and all(0 <= i < outputs for i in loaded.class_names)
    return "a detector"


def run(write, path: Path) -> None:
    try_seeds(path.name, PER_FORM, write, lambda: load(path))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_bytes(suffix, network, whole, tmp_path):
    path = tmp_path / f"bytes{suffix}"
    if suffix == ".pth":
        torch.save({"model": whole, "args": argparse.Namespace(**{**TINY, "class_names": ["mug"]})}, path)
    else:
        save(path, network, variant="nano", config=TINY, class_names=["mug", "can", "drill"])
    data = path.read_bytes()

    def write(seed: int) -> str:
        rng = random.Random(seed)
        if suffix == ".safetensors" and rng.random() < 0.5:  # the header says it all: damage there is worth more
            head, what = damaged(data[:4000], seed)
            path.write_bytes(head + data[4000:])
            return what
        broken, what = damaged(data, seed)
        path.write_bytes(broken)
        return what

    run(write, path)


@pytest.mark.parametrize("form", ["namespace", "dict", "lightning"])
def test_wrong_settings_and_tensors(form, whole, tmp_path):
    path = tmp_path / f"{form}.pth"

    def write(seed: int) -> str:
        rng = random.Random(seed)
        args, state = said(rng), rewritten(whole, rng)
        if form == "lightning":
            state = {f"model.{k}": v for k, v in state.items()}
            content = {"state_dict": state, "hyper_parameters": args}
        else:
            content = {"model": state, "args": args if form == "dict" else argparse.Namespace(**args)}
        if form == "dict" and rng.random() < 0.5:
            content["model_config"] = said(rng)
            content["model_name"] = rng.choice(("RFDETRNano", "RFDETRSmall", "RFDETRHuge", 3))
        torch.save(content, path)
        return str(args)

    run(write, path)


@pytest.mark.parametrize("value", [0, -1, float("inf")])
def test_numbers_that_no_network_can_have(whole, tmp_path, value):
    """One at a time, since a division by each of them is somewhere."""
    path = tmp_path / "dict.pth"
    for key in (
        "num_windows",
        "patch_size",
        "resolution",
        "hidden_dim",
        "sa_nheads",
        "ca_nheads",
        "dec_n_points",
        "num_select",
    ):
        torch.save(
            {"model": whole, "args": {**TINY, "class_names": ["mug", "can", "drill"], "num_classes": 3, key: value}},
            path,
        )
        assert outcome(lambda: load(path)) in ("a detector", "one sentence"), key


def test_wrong_metadata_of_our_own(network, tmp_path):
    path = tmp_path / "ours.safetensors"
    save(path, network, variant="nano", config=TINY, class_names=["mug", "can", "drill"])
    tensors = read_tensors(path)
    values = ("", "{}", "[]", "null", "3", '"x"', "-1", "nano", "small", '{"hidden_dim": -5}', '{"resolution": "x"}')

    def write(seed: int) -> str:
        rng = random.Random(seed)
        metadata = {
            "format": "rfdetr_foundationpose detector 1",
            "variant": "nano",
            "config": '{"resolution": 64}',
            "class_names": '["mug", "can", "drill"]',
            "encoder_blocks": "2",
        }
        key = rng.choice(list(metadata))
        metadata[key] = rng.choice(values)
        save_file(tensors, str(path), metadata=metadata)
        return f"{key} = {metadata[key]}"

    run(write, path)
