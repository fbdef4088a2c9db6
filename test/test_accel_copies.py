"""Copies in one pass over memory: what they give is what torch gives, bit by bit. The kernels are the same on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rfdetr_foundationpose.accel.attention import plain_attention
from rfdetr_foundationpose.accel.base import RunnerContext
from rfdetr_foundationpose.accel.copy_kernels import add_embedding, join_sides
from rfdetr_foundationpose.accel.fold import (
    OnePassEmbedding,
    OnePassJoin,
    fold_batch_norm,
    fuse_conv_relu,
    one_pass_copies,
)
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.accel.stem_kernels import pixel_blocks
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def random(*shape, seed=0, dtype=torch.float16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("channels", "height", "width"), [(8, 1, 1), (24, 7, 5), (128, 3, 40)])
def test_sides_are_joined_pixel_by_pixel(n, dtype, channels, height, width):
    a = channels_last(random(n, channels, height, width, dtype=dtype))
    b = channels_last(random(n, channels, height, width, seed=1, dtype=dtype))
    found = join_sides(a, b)
    assert torch.equal(found, torch.cat([a, b], dim=1))
    assert found.is_contiguous(memory_format=torch.channels_last)
    shared = join_sides(a, b[:1])
    assert torch.equal(shared, torch.cat([a, b[:1].expand_as(a)], dim=1))


def test_sides_may_be_parts_of_a_batch_and_in_any_order_of_memory():
    both = channels_last(random(7, 24, 3, 5))
    assert torch.equal(join_sides(both[1:4], both[4:]), torch.cat([both[1:4], both[4:]], dim=1))
    plain = random(3, 24, 3, 5)
    assert torch.equal(join_sides(plain, both[:3]), torch.cat([plain, both[:3]], dim=1))
    assert join_sides(plain[:0], both[:0]).shape == (0, 48, 3, 5)


def test_sides_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="16 bytes at a time"):
        join_sides(random(2, 12, 3, 3), random(2, 12, 3, 3))
    with pytest.raises(ValueError, match="beside"):
        join_sides(random(3, 8, 3, 3), random(2, 8, 3, 3))
    with pytest.raises(ValueError, match="beside"):
        join_sides(random(3, 8, 3, 3), random(3, 8, 3, 3).float())
    shifted = random(2 * 9 * 8 + 4)[4:].view(2, 3, 3, 8).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match="aligned"):
        join_sides(shifted, shifted)


@pytest.mark.parametrize("n", [1, 2, 3, 7])
@pytest.mark.parametrize(("length", "channels"), [(1, 8), (33, 24), (400, 512)])
def test_embedding_is_added_and_rounded_once(n, length, channels):
    # Scales from far below to far above 1: sums are rounded at every exponent, subnormal, and to infinity.
    scale = torch.exp2(torch.linspace(-26, 17, channels)).to(DEVICE)
    x = (random(n, length, channels, dtype=torch.float32) * scale).half()
    embedding = (random(length, channels, seed=1, dtype=torch.float32) * scale.flip(0)).half()
    expected = (x.float() + embedding.float()).half()
    assert torch.equal(add_embedding(x, embedding), expected)
    assert torch.equal(add_embedding(x.transpose(1, 2).contiguous().transpose(1, 2), embedding), expected)


def test_embeddings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="16 bytes at a time"):
        add_embedding(random(2, 8, 12), random(8, 12))
    for x, embedding in (
        (random(2, 8, 16).float(), random(8, 16)),
        (random(2, 8, 16), random(8, 16).float()),
        (random(2, 8, 16), random(4, 16)),
    ):
        with pytest.raises(ValueError, match="float16 and one shape"):
            add_embedding(x, embedding)


@pytest.mark.parametrize("counts", [(1, 1), (3, 3), (6, 1), (4, 9)])
@pytest.mark.parametrize(
    ("channels", "dtype"),
    [(6, torch.float16), (6, torch.float32), (5, torch.float16), (1, torch.float16), (6, torch.uint8)],
)
@pytest.mark.parametrize(("height", "width"), [(2, 4), (8, 12), (34, 20)])
def test_blocks_are_those_of_a_padded_image(counts, channels, dtype, height, width):
    """16 bytes at a time where four pixels are a multiple of that, 8 elsewhere."""
    batches = [
        channels_last((random(n, channels, height, width, seed=n, dtype=torch.float32) * 100).to(dtype)) for n in counts
    ]
    padded = torch.zeros(sum(counts), channels, height + 6, width + 8, dtype=dtype, device=DEVICE)
    padded[:, :, 4:-2, 4:-4] = torch.cat(batches)
    pixels = padded.unflatten(3, (-1, 4)).unflatten(2, (-1, 2))  # (N, C, rows, 2, columns, 4)
    expected = pixels.permute(0, 3, 5, 1, 2, 4).flatten(1, 3)
    assert torch.equal(pixel_blocks(batches), expected)


def test_blocks_of_a_batch_that_is_not_aligned_are_the_same():
    image = random(4 * 8 * 12 * 6 + 4)
    shifted = image[4:].view(4, 8, 12, 6).permute(0, 3, 1, 2)
    assert shifted.data_ptr() % 16 == 8
    assert torch.equal(pixel_blocks([shifted]), pixel_blocks([channels_last(shifted.clone())]))


def fused(module):
    network = fuse_conv_relu(plain_attention(fold_batch_norm(module.eval())), stem=True)
    return network.to(DEVICE, torch.float16, memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
@pytest.mark.parametrize("observed", [3, 1])
def test_tokens_of_a_rewritten_network_are_the_same(kind, observed):
    torch.manual_seed(0)
    network = fused(kind(0.125, 32))
    rewritten = one_pass_copies(network)
    assert rewritten is not None
    kinds = [type(m) for m in rewritten.modules()]
    assert (kinds.count(OnePassJoin), kinds.count(OnePassEmbedding)) == (1, 1)
    pair = channels_last(random(3, 6, 32, 32)), channels_last(random(observed, 6, 32, 32, seed=1))
    with torch.inference_mode():
        assert torch.equal(rewritten.tokens(*pair), network.tokens(*pair))
    assert not {OnePassJoin, OnePassEmbedding} & {type(m) for m in network.modules()}, "what it was made from stays"
    shared = {t.data_ptr() for t in (*network.parameters(), *network.buffers())}
    assert {t.data_ptr() for t in (*rewritten.parameters(), *rewritten.buffers())} == shared


def test_a_network_without_two_sides_is_left_alone():
    assert one_pass_copies(nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU())) is None


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
@pytest.mark.parametrize("size", [32, 160])
def test_on_a_gpu_the_candidate_gives_the_outputs_of_the_plain_one(kind, size, said):
    torch.manual_seed(0)
    runner = make_runner(kind(0.5, size).eval(), "cuda_graph", RunnerContext("cuda", (6, size)), fallback=False)
    plain, copying = runner._candidates["plain"], runner._candidates.get("one-pass copies")
    assert copying is not None, said
    for n, observed in ((3, 3), (100, 100), (100, 1)):
        pair = (
            channels_last(random(n, 6, size, size).abs()),
            channels_last(random(observed, 6, size, size, seed=1).abs()),
        )
        captured = runner._graphed(copying, (n, observed), runner.pool)
        for buffer, given in zip(runner.inputs(n, observed), pair, strict=True):
            buffer.copy_(given)
        with torch.inference_mode():
            for found in (copying(*pair), captured.replay()):
                for e, f in zip(plain(*pair), found, strict=True):
                    assert f.dtype == torch.float32 and f.shape == e.shape
                    assert ((e - f).abs().max() / e.abs().max()).item() < 0.05
