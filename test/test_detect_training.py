"""Training of the detector: loss against rfdetr's own criterion, batches, overfitting."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch

from rfdetr_foundationpose.detect.checkpoint import load_file
from rfdetr_foundationpose.detect.predictor import RawDetections
from rfdetr_foundationpose.evaluate.detector_validate import compare
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import SceneContent, SceneSampler
from rfdetr_foundationpose.train.coco_files import read_dataset
from rfdetr_foundationpose.train.coco_source import CocoSource
from rfdetr_foundationpose.train.detector_data import ScenePool, instance_boxes
from rfdetr_foundationpose.train.detector_eval import Truth, match, scenes
from rfdetr_foundationpose.train.detector_loss import Targets, corners, detection_loss
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD, Trainer
from rfdetr_foundationpose.train.train_detector import train
from support.detector_training import pool, quiet, read_backs, settings, trained_on


def outputs(batch: int, groups: int, queries: int, classes: int) -> dict:
    def one() -> dict:
        low = torch.rand(batch, groups * queries, 2) * 0.7
        size = torch.rand(batch, groups * queries, 2) * 0.25 + 0.02
        boxes = torch.cat([low + size / 2, size], -1).requires_grad_()
        return {"pred_logits": torch.randn(batch, groups * queries, classes).requires_grad_(), "pred_boxes": boxes}

    return {**one(), "aux_outputs": [one()], "enc_outputs": one()}


def targets(batch: int, slots: int, classes: int) -> Targets:
    low = torch.rand(batch, slots, 2) * 0.7
    size = torch.rand(batch, slots, 2) * 0.25 + 0.02
    valid = torch.rand(batch, slots) < 0.7
    valid[0] = False
    valid[1, 0] = True
    return Targets(
        labels=torch.randint(classes, (batch, slots)),
        boxes=torch.cat([low + size / 2, size], -1),
        valid=valid,
        ignore=torch.zeros_like(valid),
    )


def test_loss_and_gradients_are_those_of_rfdetr():
    from rfdetr.config import RFDETRNanoConfig, TrainConfig
    from rfdetr.models.lwdetr import build_criterion_from_config

    torch.manual_seed(0)
    groups, queries, classes = 3, 16, 6
    config = RFDETRNanoConfig(
        pretrain_weights=None, num_classes=classes - 1, group_detr=groups, num_queries=queries, device="cpu"
    )
    criterion, _ = build_criterion_from_config(config, TrainConfig(dataset_dir=".", output_dir="."))
    criterion.train()
    out, want = outputs(8, groups, queries, classes), targets(8, 5, classes - 1)
    theirs = criterion(
        out, [{"labels": la[v], "boxes": b[v]} for la, b, v in zip(want.labels, want.boxes, want.valid, strict=True)]
    )
    weights = criterion.weight_dict
    expected = {
        key: sum(weights[k] * v for k, v in theirs.items() if k.startswith(prefix) and k in weights)
        for key, prefix in (("class", "loss_ce"), ("l1", "loss_bbox"), ("giou", "loss_giou"))
    }
    ours = detection_loss(out, want, groups)
    for key, value in expected.items():
        torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-5)

    leaves = [out["pred_logits"], out["aux_outputs"][0]["pred_boxes"], out["enc_outputs"]["pred_logits"]]
    expected_gradients = torch.autograd.grad(sum(expected.values()), leaves, retain_graph=True)
    gradients = torch.autograd.grad(ours["class"] + ours["l1"] + ours["giou"], leaves)
    for ours_gradient, theirs_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(ours_gradient, theirs_gradient, rtol=1e-3, atol=1e-6)


def test_queries_on_ignored_things_are_not_punished():
    torch.manual_seed(1)
    out, want = outputs(4, 1, 8, 3), targets(4, 2, 2)
    want = Targets(want.labels, want.boxes, torch.zeros_like(want.valid), torch.zeros_like(want.valid))
    out["pred_boxes"].data[:, 0] = want.boxes[:, 0]
    plain = torch.autograd.grad(detection_loss(out, want, 1)["class"], out["pred_logits"])[0]
    ignoring = Targets(want.labels, want.boxes, want.valid, torch.ones_like(want.valid))
    spared = torch.autograd.grad(detection_loss(out, ignoring, 1)["class"], out["pred_logits"])[0]
    assert (plain[:, 0].abs() > 0).all() and (spared[:, 0] == 0).all()
    assert (spared[:, 1:].abs() > 0).any()


def test_boxes_of_instances():
    ids = torch.full((1, 20, 20), -1)
    ids[0, 3:8, 10:12] = 1
    boxes, pixels = instance_boxes(ids, 3)
    assert pixels.tolist() == [[0, 10, 0]]
    assert boxes[0, 1].tolist() == [11.0, 5.5, 2.0, 5.0]


def test_drawn_batch_agrees_with_the_scenes_it_is_drawn_from():
    made = pool(6)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    plain = made.draw(6, 96, mean, std, augment=False)
    assert plain.image.shape == (6, 3, 96, 96) and plain.kind.shape == (6, 96, 96)
    for b, t in plain.targets.valid.nonzero().tolist():
        x0, y0, x1, y1 = (corners(plain.targets.boxes[b, t]) * 96).round().int().tolist()
        inside = plain.kind[b, y0:y1, x0:x1] == plain.targets.labels[b, t]
        assert inside.any(0)[[0, -1]].all() and inside.any(1)[[0, -1]].all()
    assert plain.targets.valid.any() and not (plain.targets.valid & plain.targets.ignore).any()
    assert (plain.targets.labels[plain.targets.valid] >= 0).all()


def test_a_box_without_an_outline_is_learned_whole_whatever_lies_on_it(tmp_path):
    """A thing that stands before its right half, over its whole height, does not make it narrower; a crop cuts it off."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((96, 128, 3), 90, np.uint8))
    left, front = [16, 32, 64, 32], [48, 16, 40, 40]
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": b} for i, b in enumerate((left, front, [0, 0, 9, 9]), 1)
    ]
    image = {"id": 1, "file_name": "a.png", "height": 96, "width": 128}
    content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "mug"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    source = CocoSource(read_dataset(tmp_path)[0], "cpu", (96, 128), 0)
    batch = source.sample(1)
    assert batch.box[0].tolist() == [[16, 32, 80, 64], [48, 16, 88, 56], [0, 0, 9, 9]]
    made = ScenePool(source, 1, seed=0)
    made.fill(1)
    drawn = made.draw(1, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)
    expected = torch.tensor([[16, 32, 80, 64], [48, 16, 88, 56], [0, 0, 9, 9]]) / torch.tensor([128, 96, 128, 96])
    torch.testing.assert_close(corners(drawn.targets.boxes[0]), expected)
    assert drawn.targets.valid[0].tolist() == [True, True, True]
    assert drawn.masks.boxed[0].tolist() == [True, True, True] and not drawn.masks.known.any()
    for _ in range(20):
        crop = made.draw(4, 96, torch.tensor(MEAN), torch.tensor(STD))
        edges = corners(crop.targets.boxes)[crop.targets.valid]
        assert ((edges >= 0) & (edges <= 1)).all() and (edges[:, 2:] > edges[:, :2]).all()
        # What is seen of the thing in front reaches to the edges of its box.
        seen, pixels = instance_boxes(crop.masks.ids, 3)
        whole = crop.targets.valid[:, 1] & (pixels[:, 1] > 0)
        assert (corners(seen[whole, 1]) / 96 - corners(crop.targets.boxes[whole, 1])).abs().max() < 2 / 96


def test_an_outlined_thing_under_a_box_is_learned_whole_and_only_its_mask_is_cut(tmp_path):
    """The box of a cup covers the foot of a bottle."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((96, 128, 3), 90, np.uint8))
    bottle = [[40, 10, 64, 10, 64, 80, 52, 84, 40, 80]]
    one = {"image_id": 1, "category_id": 1}
    annotations = [{"id": 1, "segmentation": bottle, **one}, {"id": 2, "bbox": [36, 60, 32, 28], **one}]
    image = {"id": 1, "file_name": "a.png", "height": 96, "width": 128}
    content = {"images": [image], "annotations": annotations, "categories": [{"id": 1, "name": "mug"}]}
    (tmp_path / "x.json").write_text(json.dumps(content))
    source = CocoSource(read_dataset(tmp_path)[0], "cpu", (96, 128), 0)
    batch = source.sample(1)
    assert batch.covered[0].tolist() == [True, False] and batch.outlined[0].tolist() == [True, False]
    assert batch.box[0].tolist() == [[40, 10, 64, 84], [36, 60, 68, 88]]
    made = ScenePool(source, 1, seed=0)
    made.fill(1)
    drawn = made.draw(1, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)
    expected = torch.tensor([[40, 10, 64, 84], [36, 60, 68, 88]]) / torch.tensor([128, 96, 128, 96])
    torch.testing.assert_close(corners(drawn.targets.boxes[0]), expected)
    assert drawn.targets.valid[0].tolist() == [True, True]
    assert drawn.masks.known[0].tolist() == [True, False] and drawn.masks.boxed[0].tolist() == [False, True]
    ((_, truth),) = scenes(source, 1)
    assert truth.boxes.tolist() == batch.box[0].tolist() and truth.boxed.sum() == 32 * 28


def test_augmented_batches_differ_and_stay_consistent():
    made = pool(6)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    a, b = made.draw(16, 96, mean, std), made.draw(16, 96, mean, std)
    assert not torch.equal(a.image, b.image)
    for batch in (a, b):
        edges = corners(batch.targets.boxes)[batch.targets.valid]
        assert edges.min() >= 0 and edges.max() <= 1 and (edges[:, 2:] > edges[:, :2]).all()


def test_ring_keeps_the_newest_scenes():
    made = pool(4)
    first = made._rgb.clone()
    made.fill(3)
    assert (made.filled, made.rendered) == (4, 7)
    assert torch.equal(made._rgb[3], first[3]) and not torch.equal(made._rgb[0], first[0])


def test_matching_counts_right_wrong_and_ignored():
    truth = Truth(
        ["mug", "can", "mug"],
        np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32),
        np.array([True, True, False]),
        np.zeros((3, 12, 60), bool),
        np.ones(3, bool),
    )
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)
    raw = raw_detections(boxes, np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([0, 0, 0, 0, 1]))
    found = match(raw, {0: "mug", 1: "can"}, truth)
    assert [(round(m.score, 3), m.right) for m in found] == [
        (0.9, True),
        (0.8, False),
        (0.7, False),
        (0.5, False),
    ]
    assert [(m.iou, m.instance, m.row) for m in found if m.right] == [(pytest.approx(0.9), 0, 0)]


def raw_detections(boxes, scores, classes) -> RawDetections:
    count = len(scores)
    return RawDetections(
        boxes=np.asarray(boxes, np.float32),
        scores=np.asarray(scores, np.float32),
        classes=np.asarray(classes),
        queries=np.arange(count),
        depths=np.ones(count, np.float32),
        best=np.zeros(2, np.float32),
        mask_logits=None,
    )


WORDS = {"reference": "a", "candidate": "b", "device": "cpu", "weights": "w"}


def test_comparison_passes_what_is_close_and_fails_what_is_not():
    boxes = np.array([[10, 10, 50, 50], [100, 10, 150, 60]], np.float32)
    reference = raw_detections(boxes, [0.9, 0.8], [0, 1])
    close = raw_detections(boxes[::-1] + 0.5, [0.805, 0.898], [1, 0])
    result = compare([(reference, close)] * 3, 0.5, **WORDS)
    assert result.passed and result.detections == 6 and result.box_p95 == pytest.approx(0.5)
    assert "PASS" in result.table()
    moved = compare([(reference, raw_detections(boxes + 5, [0.9, 0.8], [0, 1]))], 0.5, **WORDS)
    assert not moved.passed and "5.00 px" in moved.failures[0]
    fainter = compare([(reference, raw_detections(boxes, [0.85, 0.75], [0, 1]))], 0.5, **WORDS)
    assert "scores differ" in fainter.failures[0]
    missing = compare([(reference, raw_detections(boxes[:1], [0.9], [0]))], 0.5, **WORDS)
    assert missing.agreement == 0.5 and "50.0 %" in missing.failures[0]
    extra = compare([(raw_detections(boxes[:1], [0.9], [0]), reference)], 0.5, **WORDS)
    assert extra.agreement == 0.5
    empty = compare([(raw_detections(boxes[:0], [], []), raw_detections(boxes[:0], [], []))], 0.5, **WORDS)
    assert "nothing was compared" in empty.failures[0]


def test_scenes_carry_their_truth():
    sampler = SceneSampler(demo_objects(), "cpu", (60, 80), 5, SceneContent(2, 2))
    found = list(scenes(sampler, 3, chunk=2))
    assert [f.stamp_ns for f, _ in found] == [0, 1, 2]
    for frame, truth in found:
        assert frame.rgb.shape == (60, 80, 3) and len(truth.names) == len(truth.boxes) == len(truth.counted)
        assert set(truth.names) <= {o.name for o in demo_objects()}


def test_trainer_overfits_a_handful_of_images(tmp_path):
    trainer = Trainer(settings(tmp_path), [o.name for o in demo_objects()])
    batch = pool(4).draw(4, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)
    first, last = trained_on(trainer, batch)
    assert last["iou"] > 0.4 > 0.2 > first["iou"]


def test_losses_and_their_gradients_read_nothing_back(tmp_path):
    trainer = Trainer(settings(tmp_path), [o.name for o in demo_objects()])
    batch = pool(4).draw(4, 96, torch.tensor(MEAN), torch.tensor(STD))
    assert not read_backs(lambda: trainer.losses(batch)[0].backward())
    # What once made every step wait.
    values = torch.rand(3, 2, requires_grad=True)
    assert "aten::item" in read_backs(lambda: values.prod(-1).sum().backward())


def test_state_and_export_come_back(tmp_path):
    trainer = Trainer(settings(tmp_path), [o.name for o in demo_objects()])
    batch = pool(2).draw(2, 96, torch.tensor(MEAN), torch.tensor(STD))
    trainer.train_step(batch, 1e-3)
    trainer.spent = 7.0
    trainer.save_state(tmp_path / "state.pt")
    trainer.export(tmp_path / "detector.safetensors")
    again = Trainer(settings(tmp_path, seed=9), [o.name for o in demo_objects()])
    again.load_state(tmp_path / "state.pt")
    assert (again.step, again.spent) == (1, 7.0)
    for a, b in zip(trainer.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="remove .* to start anew"):
        Trainer(settings(tmp_path), ["box"]).load_state(tmp_path / "state.pt")
    loaded = load_file(tmp_path / "detector.safetensors", "nano", torch.device("cpu"))
    assert list(loaded.class_names.values()) == [o.name for o in demo_objects()]
    tuned = Trainer(settings(tmp_path, seed=5, start=str(tmp_path / "detector.safetensors")), ["box"])
    assert tuned.origin.startswith("detector.safetensors") and tuned.origin.endswith("new classes: box")
    name = "backbone.0.encoder.encoder.encoder.layer.0.mlp.fc1.weight"
    torch.testing.assert_close(
        tuned.network.state_dict()[name], trainer.average.state_dict()[name], rtol=1e-3, atol=1e-4
    )


def test_trains_on_a_coco_data_set(tmp_path):
    from rfdetr_foundationpose.synth.coco import write_coco

    objects = demo_objects()[:3]
    sampler = SceneSampler(objects, "cpu", (96, 128), 1, SceneContent(2, 2, max_targets=3))
    write_coco(tmp_path / "data", sampler, {"train": 6, "valid": 3})
    source = CocoSource(read_dataset(tmp_path / "data")[0], "cpu", (48, 64), 0)
    assert source.names == tuple(o.name for o in objects) and len(source) == 6
    batch = source.sample(6)
    assert batch.rgb.shape == (6, 48, 64, 3) and batch.rgb.float().std() > 10
    for i, m in (batch.label >= 0).nonzero().tolist():
        x0, y0, x1, y1 = batch.box[i, m].int().tolist()
        mask = batch.instance[i] == m
        assert not mask.any() or (mask[y0:y1, x0:x1].sum() == mask.sum())
    assert (batch.label >= 0).sum() >= 3
    assert len({source._next()[0].path for _ in range(6)}) == 6
    metrics = train(settings(tmp_path, dataset=tmp_path / "data"), [], quiet())
    assert metrics["scenes"] == 2
    names = load_file(tmp_path / "detector.safetensors", "nano", torch.device("cpu")).class_names
    assert list(names.values()) == [o.name for o in objects]
