"""A network of twice the width answers as the narrow one does, and its channels learn apart."""

from __future__ import annotations

import pytest
import torch

from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet
from rfdetr_foundationpose.train.widen import widened


def _lively(network):
    """Statistics and weights as after training: no channel like another, no norm without effect."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.LayerNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    return network.eval()


@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
def test_answers_stay(kind):
    narrow = _lively(kind(0.125))
    wide = widened(narrow)
    assert wide.width == 0.25
    a, b = torch.rand(2, 3, 6, 160, 160, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        if kind is ScoreNet:
            torch.testing.assert_close(wide(a, b), narrow(a, b), atol=1e-4, rtol=1e-4)
            return
        for before, after in zip(narrow(a, b), wide(a, b), strict=True):
            # Its norms see the finer positions.
            assert (before - after).norm() < 0.1 * before.norm()


def test_a_pair_of_channels_does_not_learn_the_same():
    wide = widened(_lively(RefineNet(0.125)))
    a, b = torch.rand(2, 2, 6, 160, 160, generator=torch.Generator().manual_seed(0))
    trans, rot = wide(a, b)
    (trans.square().sum() + rot.square().sum()).backward()
    first = wide.encodeA[0].net[0].weight.grad
    assert (first[0] - first[2]).norm() > 0.01 * first[0].norm()
