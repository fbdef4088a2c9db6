"""Rewrites of a network keep what it computes: batch norm folding, fused convolutions, plain attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rfdetr_foundationpose.accel import norm_kernels
from rfdetr_foundationpose.accel.attention import PlainAttention, plain_attention
from rfdetr_foundationpose.accel.base import as_tuple
from rfdetr_foundationpose.accel.encoder_layer import PostNormLayer, one_pass_norms
from rfdetr_foundationpose.accel.fold import ConvReLU, StemReLU, fold_batch_norm, fuse_conv_relu
from rfdetr_foundationpose.accel.stem_kernels import pixel_blocks
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

SIZE = 64


def lively(kind: type[nn.Module]) -> nn.Module:
    """A small network whose norms are far from identity, as after training."""
    torch.manual_seed(0)
    network = kind(width=0.125, crop_size=SIZE)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def count_batch_norms(module: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in module.modules())


def crops(n: int) -> torch.Tensor:
    return torch.rand(n, 6, SIZE, SIZE)


@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
@pytest.mark.parametrize("observed", [1, 3])
@pytest.mark.parametrize(
    "rewrite",
    [
        fold_batch_norm,
        plain_attention,
        lambda m: fuse_conv_relu(fold_batch_norm(m)),
        lambda m: fuse_conv_relu(fold_batch_norm(m), stem=True),
        lambda m: fuse_conv_relu(plain_attention(fold_batch_norm(m)), stem=True).to(memory_format=torch.channels_last),
    ],
    ids=["fold", "attention", "fuse", "stem", "all"],
)
def test_rewrites_keep_the_outputs(kind, observed, rewrite):
    network = lively(kind)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    a, b = crops(3), crops(observed)
    with torch.inference_mode():
        expected = as_tuple(network(a, b))
        found = as_tuple(rewrite(network)(a, b))
    for e, f in zip(expected, found, strict=True):
        assert e.abs().max() > 1e-3
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5 * e.abs().max().item())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key]), f"the original's {key} was changed"


@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
def test_every_norm_and_relu_is_taken_in(kind):
    network = lively(kind)
    convolutions = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    folded = fold_batch_norm(network)
    fused = fuse_conv_relu(folded)
    assert count_batch_norms(network) == convolutions == 15
    assert count_batch_norms(folded) == 0
    assert sum(isinstance(m, ConvReLU) for m in fused.modules()) == convolutions
    assert not any(isinstance(m, nn.Conv2d) for m in fused.modules())
    stems = [m for m in fuse_conv_relu(folded, stem=True).modules() if isinstance(m, StemReLU)]
    assert [tuple(m.weight.shape) for m in stems] == [(16, 48, 4, 3)]
    assert sum(isinstance(m, PlainAttention) for m in plain_attention(network).modules()) == 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_blocks_of_several_batches_are_those_of_one(dtype):
    """Block (y, x) holds its pixels row by row, inside a margin of empty blocks."""
    a, b = torch.rand(2, 6, 8, 12).to(dtype), torch.rand(3, 6, 8, 12).to(dtype)
    b = b.contiguous(memory_format=torch.channels_last)
    expected = torch.zeros(5, 48, 7, 5, dtype=dtype)
    for n, image in enumerate([*a, *b]):
        for y in range(4):
            for x in range(3):
                pixels = [image[:, 2 * y + dy, 4 * x + dx] for dy in range(2) for dx in range(4)]
                expected[n, :, y + 2, x + 1] = torch.cat(pixels)
    assert torch.equal(pixel_blocks([a, b]), expected)


class Odd(nn.Module):
    """A convolution whose raw output is used twice, and one that runs twice: neither may be folded."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.twice, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.branch(x)
        return self.twice(self.other(self.twice(self.norm(y) + y)))


def test_norms_that_cannot_be_folded_stay():
    torch.manual_seed(1)
    odd = Odd().eval()
    odd.norm.running_var.fill_(4.0)
    odd.other.running_mean.fill_(1.0)
    x = torch.rand(1, 3, 8, 8)
    folded = fold_batch_norm(odd)
    assert count_batch_norms(folded) == 2
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), odd(x))


def test_training_mode_is_refused():
    network = RefineNet(width=0.125, crop_size=SIZE)
    with pytest.raises(ValueError, match="eval mode"):
        fold_batch_norm(network)
    with pytest.raises(ValueError, match="eval mode"):
        plain_attention(network)


def test_a_layer_with_one_pass_norms_is_the_layer(monkeypatch):
    """With torch's norms in the place of the kernels, which need a GPU."""
    monkeypatch.setattr(norm_kernels, "add_norm", lambda x, y, w, b, eps: F.layer_norm(x + y, x.shape[-1:], w, b, eps))
    monkeypatch.setattr(
        norm_kernels, "add_norm_mean", lambda x, y, w, b, eps: F.layer_norm(x + y, x.shape[-1:], w, b, eps).mean(1)
    )
    torch.manual_seed(0)
    network = RefineNet(width=0.5, crop_size=SIZE).eval()
    tokens = torch.randn(2, 9, 256)
    lean = one_pass_norms(plain_attention(network))
    assert lean is not None
    with torch.inference_mode():
        for head, rewritten in zip(network.heads, lean.heads, strict=True):
            layer, plain = rewritten[0], head[0]
            assert isinstance(layer, PostNormLayer)
            torch.testing.assert_close(layer(tokens), plain(tokens), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(layer.mean(tokens), plain(tokens).mean(1), atol=1e-5, rtol=1e-4)
            attention = layer.self_attn
            qkv = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
            torch.testing.assert_close(layer.mean(tokens, qkv), plain(tokens).mean(1), atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(rewritten(tokens), head(tokens), atol=1e-5, rtol=1e-4)
