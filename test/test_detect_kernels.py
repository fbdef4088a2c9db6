"""Kernels of the detector's training on both devices: assignment against SciPy, crops against torch's grid_sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from rfdetr_foundationpose.train.detector_data import _windows
from rfdetr_foundationpose.train.detector_loss import assign
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD
from support.detector_training import pool

DEVICES = ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rows, columns", [(1, 1), (3, 3), (6, 20), (5, 64), (40, 64)])
def test_assignment_is_optimal(rows, columns, device):
    torch.manual_seed(rows)
    cost = torch.randn(200, rows, columns)
    cost[:20] = cost[:20].round()  # ties
    found = assign(cost.to(device)).cpu()
    for c, f in zip(cost.numpy(), found.numpy(), strict=True):
        assert len(set(f)) == rows
        r, k = linear_sum_assignment(c)
        assert c[np.arange(rows), f].sum() == pytest.approx(c[r, k].sum(), abs=1e-5)


def test_assignment_ends_on_costs_that_are_no_numbers():
    found = assign(torch.full((2, 3, 5), torch.nan))
    assert found.shape == (2, 3) and ((found >= 0) & (found < 5)).all()


def test_assignment_refuses_more_rows_than_columns():
    with pytest.raises(ValueError, match="one to one"):
        assign(torch.zeros(1, 3, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_augmented_batch_is_what_torch_makes_of_the_same_random_numbers(device):
    made, count, size = pool(6, device=device), 8, 96
    mean, std = torch.tensor(MEAN, device=device).view(1, 3, 1, 1), torch.tensor(STD, device=device).view(1, 3, 1, 1)
    g = torch.Generator(device)
    g.set_state(made._generator.get_state())
    drawn = made.draw(count, size, mean.flatten(), std.flatten())

    rows = torch.randint(6, (count,), device=device, generator=g)
    window = _windows(count, made._rgb.shape[1:3], torch.device(device), g)
    steps = (torch.arange(size, device=device) + 0.5) / size - 0.5
    x = (window[:, 0:1] + window[:, 2:3] * steps) * 2 - 1
    y = (window[:, 1:2] + window[:, 3:4] * steps) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), -1)
    image = F.grid_sample(made._rgb[rows].permute(0, 3, 1, 2).float() - 110, grid, align_corners=False) + 110
    instance = made._instance[rows][:, None].float() + 1
    ids = F.grid_sample(instance, grid, mode="nearest", align_corners=False)[:, 0].long()
    label = F.pad(made._label[rows], (1, 5), value=-1)  # in front what is no instance, behind distractors
    # A device may contract products and sums: a pixel between two neighbours may then take the other one.
    differing = (drawn.kind.long() != label.gather(1, ids.flatten(1)).view_as(ids)).float().mean()
    assert differing == 0 if device == "cpu" else differing < 1e-4

    u = torch.rand((4, count, 1, 1, 1), device=device, generator=g)
    balance = torch.rand((count, 3, 1, 1), device=device, generator=g)
    grey, middle = image.mean(1, keepdim=True), image.mean((1, 2, 3), keepdim=True)
    image = grey + (image - grey) * (0.7 + 0.6 * u[0])
    image = middle + (image - middle) * (0.75 + 0.5 * u[1])
    image = image * (0.9 + 0.2 * balance) * (0.6 + 0.8 * u[2])
    image = (image + torch.randn(image.shape, device=device, generator=g) * 6 * u[3]).clamp(0, 255)
    # There the last bit of a coordinate, 2e-5 pixels, is that much of the steepest edge.
    torch.testing.assert_close(drawn.image, (image / 255 - mean) / std, rtol=0, atol=1e-4 if device == "cpu" else 1e-3)


def test_visible_share_is_of_the_whole_image():
    made = pool(6)
    assert made._pixels.sum() > 0
    for t in range(3):
        assert torch.equal(made._pixels[:, t], (made._instance == t).sum((1, 2)))
