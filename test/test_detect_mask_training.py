"""Masks of the detector: losses against rfdetr's own, learning them, and what they are learned from."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file as tensors_of

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.detect.checkpoint import load_file, save
from rfdetr_foundationpose.synth.coco import write_coco
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler
from rfdetr_foundationpose.train import detector_trainer
from rfdetr_foundationpose.train.coco_files import CocoInstance, read_dataset
from rfdetr_foundationpose.train.detector_eval import Truth, evaluate
from rfdetr_foundationpose.train.detector_loss import Targets, detection_loss
from rfdetr_foundationpose.train.detector_mask_loss import MaskTargets
from rfdetr_foundationpose.train.detector_start import load_start, with_masks
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD, Trainer
from rfdetr_foundationpose.train.train_detector import train
from support.detector_models import NAMES, SEG_TINY, detector, frame, loaded
from support.detector_training import TINY, pool, quiet, read_backs, settings

CPU = torch.device("cpu")


def outputs(batch: int, queries: int, classes: int) -> dict:
    def one() -> dict:
        low, size = torch.rand(batch, queries, 2) * 0.7, torch.rand(batch, queries, 2) * 0.25 + 0.02
        return {
            "pred_logits": torch.randn(batch, queries, classes),
            "pred_boxes": torch.cat([low + size / 2, size], -1),
            "pred_masks": {
                "spatial_features": torch.randn(batch, 8, 24, 24).requires_grad_(),
                "query_features": torch.randn(batch, queries, 8).requires_grad_(),
                "bias": torch.zeros(1, requires_grad=True),
            },
        }

    return {**one(), "aux_outputs": [one()], "enc_outputs": one()}


def targets(batch: int, slots: int, classes: int) -> tuple[Targets, MaskTargets]:
    """Rectangles that do not overlap, in columns of the image."""
    ids = torch.full((batch, 96, 96), -1, dtype=torch.int8)
    boxes, valid = torch.zeros(batch, slots, 4), torch.rand(batch, slots) < 0.8
    valid[0], valid[1] = False, True
    for b in range(batch):
        for t in range(slots):
            x, y = 96 // slots * t + 2, int(torch.randint(4, 40, ()))
            w, h = 96 // slots - 4, int(torch.randint(12, 50, ()))
            ids[b, y : y + h, x : x + w] = t
            boxes[b, t] = torch.tensor([x + w / 2, y + h / 2, w, h]) / 96
    none = torch.zeros_like(valid)
    return Targets(torch.randint(classes, (batch, slots)), boxes, valid, none), MaskTargets(ids, valid, none)


def test_loss_and_gradients_of_masks_are_those_of_rfdetr(monkeypatch):
    """With random points that are the same for every mask, since the two draw them in other orders."""
    from rfdetr.config import RFDETRSegNanoConfig, SegmentationTrainConfig
    from rfdetr.models.lwdetr import build_criterion_from_config

    torch.manual_seed(0)
    groups, queries, classes = 2, 16, 4
    config = RFDETRSegNanoConfig(
        pretrain_weights=None,
        num_classes=classes - 1,
        group_detr=groups,
        num_queries=queries,
        dec_layers=2,
        device="cpu",
    )
    criterion, _ = build_criterion_from_config(config, SegmentationTrainConfig(dataset_dir=".", output_dir="."))
    criterion.train()
    out, (want, masks) = outputs(5, groups * queries, classes), targets(5, 4, classes - 1)
    line = torch.rand(2000, 2)
    draw = torch.rand

    def same(*shape, **options):
        size = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return draw(*shape, **options) if size[-1] != 2 else line[: size[-2]].expand(*size[:-2], -1, -1).clone()

    monkeypatch.setattr(torch, "rand", same)
    whole = [torch.stack([ids == t for t in v.nonzero()[:, 0]]) if v.any() else torch.zeros(0, 96, 96) > 0
             for ids, v in zip(masks.ids, want.valid, strict=True)]  # fmt: skip
    theirs = criterion(
        out,
        [
            {"labels": la[v], "boxes": b[v], "masks": m}
            for la, b, v, m in zip(want.labels, want.boxes, want.valid, whole, strict=True)
        ],
    )
    weights = criterion.weight_dict
    expected = {
        key: sum(weights[k] * v for k, v in theirs.items() if k.startswith(f"loss_{key}") and k in weights)
        for key in ("mask_ce", "mask_dice")
    }
    ours = detection_loss(out, want, groups, masks)
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5)
    leaves = [o["pred_masks"][k] for o in (out, out["enc_outputs"]) for k in ("spatial_features", "query_features")]
    expected_gradients = torch.autograd.grad(sum(expected.values()), leaves, retain_graph=True)
    gradients = torch.autograd.grad(ours["mask_ce"] + ours["mask_dice"], leaves)
    for mine, reference in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-6)
    assert 0 < ours["mask_iou"] < 0.6


def test_masks_are_learned_where_the_outline_is_known():
    torch.manual_seed(1)
    out, (want, masks) = outputs(3, 8, 3), targets(3, 2, 2)
    known = masks.known.clone()
    known[1, 0] = False
    part = detection_loss(out, want, 1, replace(masks, known=known))
    gradient = torch.autograd.grad(part["mask_ce"], out["pred_masks"]["query_features"])[0]
    assert (gradient[1].abs().sum(-1) > 0).sum() == 1 and (gradient[0] == 0).all()
    none = detection_loss(out, want, 1, replace(masks, known=torch.zeros_like(known)))
    assert none["mask_ce"] == 0 and none["mask_iou"] == 0


def test_the_box_of_an_instance_without_an_outline_teaches_no_mask():
    """Neither its own, as if it filled its box, nor that of a larger instance below, as if the box were no part of it."""
    torch.manual_seed(3)
    ids = torch.full((1, 96, 96), -1, dtype=torch.int8)
    ids[0, 8:88, 8:88] = 0  # outlined
    ids[0, 24:48, 24:48] = 1  # a box that lies on it
    known, boxed = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    both = torch.ones_like(known)
    want = Targets(
        torch.zeros((1, 2), dtype=torch.long),
        torch.tensor([[[0.5, 0.5, 0.83, 0.83], [0.375, 0.375, 0.25, 0.25]]]),
        both,
        torch.zeros_like(both),
    )

    def gradient(masks: MaskTargets) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the mask losses by what the head says within the box, and elsewhere. A cell is 4 pixels wide."""
        out = outputs(1, 2, 2)
        found = detection_loss(out, want, 1, masks)
        (all_cells,) = torch.autograd.grad(found["mask_ce"] + found["mask_dice"], out["pred_masks"]["spatial_features"])
        size = all_cells.abs().sum((0, 1))
        inside = size[7:11, 7:11].sum()  # interpolation reaches half a cell farther
        return inside, size.sum() - size[6:12, 6:12].sum()

    inside, elsewhere = gradient(MaskTargets(ids, known, boxed))
    assert inside == 0 < elsewhere
    for taught in (MaskTargets(ids, known, torch.zeros_like(boxed)), MaskTargets(ids, both, torch.zeros_like(boxed))):
        assert gradient(taught)[0] > 0


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """A detector of the demo's objects that finds boxes."""
    folder = tmp_path_factory.mktemp("boxes")
    made = Trainer(settings(folder, masks="no"), [o.name for o in demo_objects()])
    made.export(folder / "boxes.safetensors")
    return folder / "boxes.safetensors"


def test_masks_alone_leave_boxes_as_they_are(tmp_path, boxes):
    found = train(settings(tmp_path, config=None, start=str(boxes), masks="only"), demo_objects(), quiet())
    assert found["masks"] == "only" and found["steps"] >= 1
    before, after = tensors_of(str(boxes)), tensors_of(str(tmp_path / "detector.safetensors"))
    added = {k for k in after if k not in before}
    assert added and all(k.startswith("segmentation_head.") for k in added) and not before.keys() - after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    fresh = Trainer(settings(tmp_path / "new", config=None, start=str(boxes), masks="only"), found["classes"])
    assert any(not torch.equal(after[k].float(), fresh.average.state_dict()[k]) for k in added if k.endswith("weight"))
    # It is rfdetr's own model, which finds masks.
    model = load_file(tmp_path / "detector.safetensors", "nano", CPU).model
    assert type(model).__name__ == "RFDETRSegNano"
    seen = model.predict(np.zeros((60, 80, 3), np.uint8), threshold=0.0)
    assert seen.mask.shape == (len(seen.xyxy), 60, 80)


def test_masks_alone_need_a_start_that_finds_the_objects(tmp_path, boxes):
    names = [o.name for o in demo_objects()]
    for changed, reason in (
        ({"start": "random"}, "a detector that finds the objects already"),
        ({"start": str(boxes), "config": None, "resolution": 160}, "also its positional_encoding_size, resolution"),
    ):
        with pytest.raises(ConfigError, match=reason):
            Trainer(settings(tmp_path, masks="only", **changed), names)
    with pytest.raises(ConfigError, match="does not know tea"):
        Trainer(settings(tmp_path, config=None, start=str(boxes), masks="only"), [*names, "tea"])


def test_a_trainer_learns_masks_beside_boxes(tmp_path, monkeypatch):
    monkeypatch.setattr(detector_trainer, "MASKED", 1.0)
    trainer = Trainer(settings(tmp_path, masks="yes"), [o.name for o in demo_objects()])
    batch = pool(4).draw(4, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)
    first = {k: float(v) for k, v in trainer.train_step(batch, 1e-4).items()}
    for _ in range(120):
        last = {k: float(v) for k, v in trainer.train_step(batch, 1e-3).items()}
    assert last["mask_iou"] > 0.4 > 0.2 > first["mask_iou"] and last["iou"] > 0.4
    assert not read_backs(lambda: trainer.losses(batch)[0].backward())


def test_a_share_of_the_images_learns_masks(tmp_path):
    torch.manual_seed(2)
    out, (want, masks) = outputs(4, 8, 3), targets(4, 2, 2)
    for layer in (out, out["aux_outputs"][0], out["enc_outputs"]):
        for key in ("spatial_features", "query_features"):
            layer["pred_masks"][key] = layer["pred_masks"][key][:2]
    found = detection_loss(out, want, 1, masks.first(2))
    assert found["mask_ce"] > 0 and found["class"] > 0
    trainer = Trainer(settings(tmp_path, masks="yes"), [o.name for o in demo_objects()])
    trainer.network.train()
    seen = trainer.network.segmentation_head.sparse_forward(
        torch.zeros(5, 64, 6, 6), torch.zeros(1, 5, 8, 64), (96, 96)
    )
    assert len(seen[0]["spatial_features"]) == 2


def test_a_new_head_learns_first_without_moving_what_it_looks_at(tmp_path, boxes):
    names = [o.name for o in demo_objects()]
    trainer = Trainer(settings(tmp_path, config=None, start=str(boxes), masks="yes"), names)
    batch = pool(4).draw(4, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)

    def moved() -> bool:
        losses = trainer.losses(batch)[1]
        projector = next(p for n, p in trainer.network.named_parameters() if "projector" in n)
        (gradient,) = torch.autograd.grad(losses["mask_ce"], projector, allow_unused=True)
        return gradient is not None

    assert not moved()
    trainer.step = 10_000
    assert moved()


def test_a_start_with_masks_goes_on_with_or_without_them(tmp_path):
    path = tmp_path / "seg.safetensors"
    save(
        path,
        library.network(loaded("seg-nano", **SEG_TINY).model),
        variant="seg-nano",
        config=SEG_TINY,
        class_names=NAMES,
    )
    start = load_start(str(path), "nano")
    assert start.variant == "seg-nano"
    both = [Trainer(settings(tmp_path, config=None, start=str(path), masks=m), NAMES) for m in ("yes", "no")]
    assert [t.variant for t in both] == ["seg-nano", "nano"] and both[1].config["patch_size"] == 12
    key = "segmentation_head.spatial_features_proj.weight"
    assert torch.equal(both[0].network.state_dict()[key], start.state[key]) and key not in both[1].network.state_dict()
    for trainer in both:
        trainer.train_step(pool(2).draw(2, 96, torch.tensor(MEAN), torch.tensor(STD)), 1e-4)
    assert with_masks(*with_masks("nano", TINY, masks=True), masks=False)[0] == "nano"


def test_a_random_start_of_a_segmentation_variant_is_the_small_network_with_masks(tmp_path):
    trainer = Trainer(settings(tmp_path, config=None, variant="seg-nano"), NAMES)
    assert trainer.masks and trainer.variant == "seg-nano" and trainer.size == 384
    assert (trainer.config["patch_size"], trainer.config["num_queries"]) == (16, 64)
    plain = Trainer(settings(tmp_path, config=None), NAMES)
    assert not plain.masks and sum(p.numel() for p in plain.network.parameters()) < sum(
        p.numel() for p in trainer.network.parameters()
    )


@pytest.mark.parametrize("outlined", [True, False])
def test_masks_of_a_detector_that_finds_nothing_are_measured_as_none(outlined):
    """Random weights find nothing surely, so no mask of theirs has an overlap."""
    seen = frame()
    masks = np.zeros((1, *seen.depth.shape), bool)
    masks[0, 50:90, 100:160] = True
    box = np.array([[100, 50, 160, 90]], np.float32)
    truth = Truth(["mug"], box, np.ones(1, bool), masks, np.array([outlined]))
    assert truth.boxed.sum() == (0 if outlined else masks.sum())
    empty = Truth([], box[:0], np.ones(0, bool), masks[:0], np.ones(0, bool))
    blind = detector(variant="seg-nano", config=SEG_TINY)
    found = evaluate(blind, [(seen, truth), (seen, empty)], threshold=1.1, pictures=2)
    assert found.metrics["recall"] == found.metrics["precision"] == 0 and len(found.pictures) == 2
    assert ("mask_map_50" in found.metrics) == outlined and "mask_iou_p50" not in found.metrics
    assert 0 <= found.metrics.get("mask_map_50", 0.0) < 0.5


def coco(folder, shapes: bool, boxed: int = 0):
    """boxed: of so many annotations in each file there are boxes alone."""
    sampler = SceneSampler(demo_objects()[:2], "cpu", (96, 128), 1, SceneContent(2, 2, max_targets=3))
    write_coco(folder, sampler, {"train": 6, "valid": 3})
    for file in folder.rglob("*.json"):
        content = json.loads(file.read_text())
        for entry in content["annotations"][: boxed if shapes else None]:
            del entry["segmentation"]
        file.write_text(json.dumps(content))
    return folder


def test_data_says_whether_masks_are_learned(tmp_path, caplog):
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")
    data = coco(tmp_path / "data", shapes=True)
    found = train(settings(tmp_path / "a", dataset=data), [], quiet())
    assert found["masks"] == "yes" and "100% of the instances have an outline" in caplog.text
    data = coco(tmp_path / "plain", shapes=False)
    found = train(settings(tmp_path / "b", dataset=data), [], quiet())
    assert found["masks"] == "no" and "boxes are learned, no masks" in caplog.text
    assert not any(key.startswith("mask_") for key in found)
    with pytest.raises(ConfigError, match="has boxes, no outlines; annotate polygons or masks, or use --masks no"):
        train(settings(tmp_path / "c", dataset=data, masks="yes"), [], quiet())


@pytest.mark.parametrize(
    ("masks", "words"),
    [("yes", "teach their boxes alone"), ("auto", "teach their boxes alone"), ("only", "teach nothing")],
)
def test_a_data_set_that_mixes_boxes_and_outlines_says_what_becomes_of_the_boxes(tmp_path, caplog, boxes, masks, words):
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")
    data = coco(tmp_path / "data", shapes=True, boxed=2)
    outlined, count = read_dataset(data)[0].outlines
    assert outlined == count - 2 > 2
    names = [o.name for o in demo_objects()[:2]]
    for file in data.rglob("*.json"):
        content = json.loads(file.read_text())
        for category in content["categories"]:
            category["name"] = names[int(category["id"]) % 2]
        file.write_text(json.dumps(content))
    start = {"start": str(boxes), "config": None} if masks == "only" else {}
    found = train(settings(tmp_path / "out", dataset=data, masks=masks, **start), [], quiet())
    assert found["masks"] == ("yes" if masks == "auto" else masks) and "mask_map_50" in found
    assert f"{outlined / count:.0%} of the instances have an outline" in caplog.text
    assert f"the 2 others {words}" in caplog.text


def test_masks_that_cannot_be_measured_are_said(tmp_path, caplog):
    data = coco(tmp_path / "data", shapes=True)
    file = next((data / "valid").glob("*.json"))
    content = json.loads(file.read_text())
    for entry in content["annotations"]:
        del entry["segmentation"]
    file.write_text(json.dumps(content))
    found = train(settings(tmp_path / "out", dataset=data), [], quiet())
    assert found["masks"] == "yes" and not any(key.startswith("mask_") for key in found)
    assert "none of its instances has an outline: the masks that are learned are not measured" in caplog.text


def test_a_box_written_as_a_polygon_is_no_outline():
    box = [10.0, 5.0, 30.0, 5.0, 30.0, 25.0, 10.0, 25.0]
    for shape, outlined in (
        ([box], False),
        ([[*box, 10.0, 5.0]], False),
        (None, False),
        ([[10.0, 5.0, 30.0, 8.0, 28.0, 25.0, 10.0, 20.0]], True),
        ([[10.0, 5.0, 30.0, 5.0, 20.0, 25.0]], True),
        ([box, [40.0, 5.0, 50.0, 5.0, 45.0, 9.0]], True),
        ({"size": [40, 60], "counts": [9, 5, 2386]}, True),
    ):
        assert CocoInstance(0, None, shape).outlined is outlined, shape
