"""Training of the detector: assignment against SciPy, loss against rfdetr's own criterion, batches, overfitting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from rfdetr_foundationpose.synth.detector_loss import Targets, assign, corners, detection_loss


@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 3), (6, 20), (5, 64)])
def test_assignment_is_optimal(rows, columns):
    torch.manual_seed(rows)
    cost = torch.randn(200, rows, columns)
    cost[:20] = cost[:20].round()  # ties
    found = assign(cost)
    for c, f in zip(cost.numpy(), found.numpy(), strict=True):
        assert len(set(f)) == rows
        r, k = linear_sum_assignment(c)
        assert c[np.arange(rows), f].sum() == pytest.approx(c[r, k].sum(), abs=1e-5)


def test_assignment_refuses_more_rows_than_columns():
    with pytest.raises(ValueError, match="one to one"):
        assign(torch.zeros(1, 3, 2))


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
    far = (corners(out["pred_boxes"])[..., 2] < 0.01).logical_not()
    assert (spared.abs() > 0).any() and far.any()
