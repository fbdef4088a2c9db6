"""Checkpoints as rfdetr 1.2 to 1.11 write them: variant, settings and class ids as their writer meant them, and damage."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from rfdetr_foundationpose.detect import DetectorError
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import LoadedModel, load_file
from rfdetr_foundationpose.detect.classes import map_classes
from rfdetr_foundationpose.objects import ObjectSpec

CPU = torch.device("cpu")
NAMES = ["mug", "can", "drill"]
TINY = {
    "resolution": 96,
    "positional_encoding_size": 4,
    "out_feature_indexes": [1, 2],
    "dec_layers": 1,
    "num_queries": 10,
    "num_select": 7,
    "hidden_dim": 64,
    "group_detr": 3,
}


@pytest.fixture(scope="module")
def weights():
    """outputs -> state dict of a tiny network with so many."""
    made: dict[int, dict[str, torch.Tensor]] = {}

    def get(outputs: int) -> dict[str, torch.Tensor]:
        if outputs not in made:
            torch.manual_seed(outputs)
            made[outputs] = library.network(
                library.construct("nano", CPU, num_classes=outputs - 1, **TINY)
            ).state_dict()
        return dict(made[outputs])

    return get


def args_1_2(outputs: int, **more) -> argparse.Namespace:
    """Everything of model and training in one Namespace; the number of classes counts the placeholder."""
    given = {"num_classes": outputs, "class_names": NAMES, "pretrain_weights": "rf-detr-nano.pth", "lr": 1e-4}
    return argparse.Namespace(**{**TINY, **given, "epochs": 10, **more})


def load(tmp_path: Path, content: dict, name: str = "checkpoint_best_total.pth", **how) -> LoadedModel:
    torch.save(content, tmp_path / name)
    return load_file(tmp_path / name, how.pop("variant", "small"), CPU, **how)


def same(loaded: LoadedModel, state: dict[str, torch.Tensor]) -> bool:
    own = library.network(loaded.model).state_dict()
    return all(torch.equal(own[k], v) for k, v in state.items() if k in own)


def test_1_2_to_1_4_number_classes_from_1(tmp_path, weights, caplog):
    loaded = load(tmp_path, {"model": weights(4), "args": args_1_2(4)})
    assert dict(loaded.class_names) == {1: "mug", 2: "can", 3: "drill"}
    assert "set detector.first_class_id to 0" in caplog.text and "as rfdetr before 1.6" in caplog.text
    assert same(loaded, weights(4)) and type(loaded.model).__name__ == "RFDETRNano"
    c = loaded.model.model_config
    assert (c.resolution, c.num_queries, c.num_select, c.group_detr) == (96, 10, 7, 3)
    caplog.clear()
    again = load(tmp_path, {"model": weights(4), "args": args_1_2(4)}, first_class_id="0")
    assert dict(again.class_names) == dict(enumerate(NAMES)) and not caplog.text


def test_1_2_to_1_5_of_yolo_data_number_them_from_0(tmp_path, weights, caplog):
    loaded = load(tmp_path, {"model": weights(4), "args": args_1_2(3)})
    assert dict(loaded.class_names) == dict(enumerate(NAMES)) and not caplog.text


def test_the_placeholder_is_one_of_the_names_of_1_6_to_1_8(tmp_path, weights, caplog):
    args = {**TINY, "class_names": ["things", *NAMES], "dataset_file": "roboflow"}
    content = {"model": weights(5), "args": args, "model_name": "RFDETRNano", "rfdetr_version": "1.7.0"}
    loaded = load(tmp_path, content)
    assert dict(loaded.class_names) == {0: "things", 1: "mug", 2: "can", 3: "drill"} and not caplog.text
    found = map_classes(loaded.class_names, [ObjectSpec("cup", mesh=Path("m"), label="mug")], "w")
    assert found.objects == {1: "cup"}


def test_1_11_says_everything(tmp_path, weights, caplog):
    config = {**TINY, "num_classes": 90, "device": "cuda", "pretrain_weights": "rf-detr-nano.pth"}
    content = {
        "model": weights(4),
        "state_dict": {f"model.{k}": v for k, v in weights(4).items()},
        "args": {"class_names": NAMES, "group_detr": 3},
        "model_config": config,
        "model_name": "RFDETRNano",
        "rfdetr_version": "1.11.2",
    }
    loaded = load(tmp_path, content)
    assert dict(loaded.class_names) == dict(enumerate(NAMES)) and not caplog.text
    assert loaded.model.model_config.resolution == 96 and loaded.model.model_config.num_classes == 3
    assert same(loaded, weights(4))


def test_a_stripped_file_is_built_from_its_tensors_and_what_is_beside_it(tmp_path, weights, caplog):
    lost = {"model": weights(4), "args": {"class_names": NAMES, **TINY}, "model_name": "RFDETRNano"}
    for key in ("resolution", "num_queries", "num_select", "group_detr", "dec_layers"):
        lost["args"].pop(key)
    loaded = load(tmp_path, {**lost, "best_total_source": "ema"})
    c = loaded.model.model_config
    assert (c.resolution, c.dec_layers, c.num_queries * c.group_detr) == (64, 1, 30) and same(loaded, weights(4))
    assert "does not say at which resolution it was trained; 64 is assumed" in caplog.text
    caplog.clear()
    told = {"train_config": {"epochs": 3}, "model_config": TINY, "class_names": NAMES}
    (tmp_path / "training_config.json").write_text(json.dumps(told))
    c = load(tmp_path, lost).model.model_config
    assert (c.resolution, c.num_queries, c.num_select) == (96, 10, 7) and not caplog.text


@pytest.mark.parametrize("compiled", [False, True])
def test_lightning_files(tmp_path, weights, compiled):
    prefix = "model._orig_mod." if compiled else "model."
    state = {f"{prefix}{k}": v for k, v in weights(4).items()}
    hyper = {**TINY, "class_names": NAMES, "pretrain_weights": "rf-detr-nano.pth"}
    loaded = load(tmp_path, {"state_dict": state, "hyper_parameters": hyper, "epoch": 3}, "last.ckpt")
    assert same(loaded, weights(4)) and list(loaded.class_names.values()) == NAMES


def test_the_variant_of_a_file_that_does_not_say_it(tmp_path, weights):
    folder = tmp_path / "rf-detr-large-parts"
    folder.mkdir()
    args = args_1_2(3, pretrain_weights=str(folder / "checkpoint_best_ema.pth"))
    loaded = load(folder, {"model": weights(4), "args": args}, variant="nano")
    assert type(loaded.model).__name__ == "RFDETRNano", "a folder's name is no variant's"
    args.pretrain_weights = None
    named = load(tmp_path, {"model": weights(4), "args": args}, "rfdetr_nano_v3.pth", variant="seg-large")
    assert type(named.model).__name__ == "RFDETRNano"
    args.dec_layers = 4
    words = r"taken for detector\.variant=nano, does not fit.*Set detector\.variant"
    with pytest.raises(DetectorError, match=words):
        load(tmp_path, {"model": weights(4), "args": args}, "mine.pth", variant="nano")


def test_the_variant_that_would_fit_is_named(tmp_path):
    state = library.network(library.construct("small", CPU, num_classes=3, group_detr=1)).state_dict()
    with pytest.raises(DetectorError, match="its tensors are like those of small"):
        load(tmp_path, {"model": state}, "mine.pth", variant="nano")


def test_coco_heads_have_coco_ids(tmp_path, weights, caplog):
    coco = library.coco_classes()
    for names in ([], list(coco.values())):
        args = SimpleNamespace(**TINY, num_classes=90, class_names=names, pretrain_weights="rf-detr-nano.pth")
        loaded = load(tmp_path, {"model": weights(91), "args": args})
        assert loaded.class_names[90] == "toothbrush" and len(loaded.class_names) == 80
    assert "name" not in caplog.text


def test_names_that_do_not_match_the_head_are_told(tmp_path, weights, caplog):
    args = SimpleNamespace(**TINY, num_classes=90, class_names=NAMES, pretrain_weights="rf-detr-nano.pth")
    loaded = load(tmp_path, {"model": weights(91), "args": args})
    assert dict(loaded.class_names) == dict(enumerate(NAMES))
    assert "trained for 90 classes and names 3 (mug, can, drill)" in caplog.text
    args.class_names = {2: "mug", 5: "can"}
    assert load(tmp_path, {"model": weights(91), "args": args}).class_names == {2: "mug", 5: "can"}


def test_a_file_without_names_is_addressed_by_number(tmp_path, weights, caplog):
    args = {**TINY, "pretrain_weights": "rf-detr-nano.pth"}
    loaded = load(tmp_path, {"model": weights(4), "args": args})
    assert "names no classes; set label to the number of the class, '0' to '2'" in caplog.text
    found = map_classes(loaded.class_names, [ObjectSpec("cup", mesh=Path("m"), label="2")], "w")
    assert found.objects == {2: "cup"}


def test_values_that_are_not_finite_are_refused(tmp_path, weights):
    for value in (float("nan"), float("inf")):
        state = weights(4)
        state["class_embed.weight"] = state["class_embed.weight"].clone()
        state["class_embed.weight"][1, 2] = value
        with pytest.raises(
            DetectorError, match=r"1 tensors with values that are not finite, first class_embed\.weight"
        ):
            load(tmp_path, {"model": state, "args": args_1_2(3)})


def test_damage_inside_of_the_archive_is_seen(tmp_path, weights):
    path = tmp_path / "w.pth"
    torch.save({"model": weights(4), "args": args_1_2(3)}, path)
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda i: i.file_size)
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 500 : entry.header_offset + 600] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DetectorError, match=r"damaged: the checksum of .* is wrong"):
        load_file(path, "nano", CPU)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DetectorError, match="cannot be read as a checkpoint"):
        load_file(path, "nano", CPU)


@pytest.mark.parametrize(
    "gone", ["transformer.decoder.layers.0.linear1.weight", "class_embed.bias", "refpoint_embed.weight"]
)
def test_missing_tensors_are_named(tmp_path, weights, gone):
    state = weights(4)
    del state[gone]
    with pytest.raises(DetectorError, match=gone):
        load(tmp_path, {"model": state, "args": args_1_2(3)})


@pytest.mark.parametrize("wrong", [{"resolution": -32}, {"resolution": "big"}, {"hidden_dim": [3]}])
def test_settings_that_cannot_be(tmp_path, weights, wrong):
    with pytest.raises(DetectorError, match="has settings that no RFDETRNano can have|does not fit"):
        load(tmp_path, {"model": weights(4), "args": args_1_2(3, **wrong)})


def test_variants_that_cannot_be_had_here(tmp_path, weights):
    with pytest.raises(DetectorError, match="rfdetr_plus"):
        load(tmp_path, {"model": weights(4), "args": {}, "model_name": "RFDETR2XLarge"})
    with pytest.raises(DetectorError, match="upgrade it"):
        load(tmp_path, {"model": weights(4), "args": {}, "model_name": "RFDETRGigantic"})
    with pytest.raises(DetectorError, match="'huge' is unknown; use one of nano"):
        load(tmp_path, {"model": weights(4), "args": {}}, "mine.pth", variant="huge")


def test_what_the_library_warns_of_is_passed_on(caplog):
    import logging

    with library.quiet():
        logging.getLogger("rf-detr").warning("these settings fall back to\n defaults: resolution")
        logging.getLogger("rf-detr").warning("we're not loading DINOv2 backbone weights")
    assert [r.getMessage() for r in caplog.records] == ["rfdetr: these settings fall back to defaults: resolution"]
