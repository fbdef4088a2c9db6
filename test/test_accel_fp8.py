"""FP8 where exact runs decide. Without a GPU the kernels run in Triton's interpreter (conftest.py), whose conversion to FP8
rounds some values wrongly: exact tests use what FP8 can hold exactly."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from rfdetr_foundationpose.accel.attention import plain_attention
from rfdetr_foundationpose.accel.base import RunnerContext
from rfdetr_foundationpose.accel.encoder_layer import one_pass_norms
from rfdetr_foundationpose.accel.fold import fold_batch_norm, fuse_conv_relu
from rfdetr_foundationpose.accel.runner import make_runner
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(
    DEVICE.type == "cuda" and torch.cuda.get_device_capability() < (9, 0), reason="needs compute capability 9.0"
)


@pytest.fixture
def fp8():
    pytest.importorskip("triton.tools.tensor_descriptor")
    from rfdetr_foundationpose.accel import fp8

    return fp8


@pytest.fixture
def kernels(fp8):
    from rfdetr_foundationpose.accel import fp8_kernels

    return fp8_kernels


def small_integers(shape, low, high, seed=0, share=1.0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(low, high, shape, generator=generator).float()
    return (values * (torch.rand(shape, generator=generator) < share)).to(DEVICE)


def images(n, channels, height, width, seed=0):
    """FP16 integers from 0 to 7, channels-last."""
    return small_integers((n, channels, height, width), 0, 8, seed).half().contiguous(memory_format=torch.channels_last)


def tap_by_tap(weight, unit, bias, kernels):
    return kernels.Fp8Weights(weight.permute(2, 3, 0, 1).flatten(0, 2).to(kernels.FP8), unit, bias)


def unflat(flat, channels):
    n, height, width = flat.size
    padded = flat.values.float().view(n, height + 1, width + 1, channels).permute(0, 3, 1, 2) / flat.scale
    assert not padded[:, :, height].any() and not padded[..., width].any(), "beyond the edges lie zeros"
    return padded[:, :, :height, :width]


@pytest.mark.parametrize(
    ("n", "channels_in", "channels_out", "height", "width"), [(3, 64, 128, 7, 5), (1, 256, 64, 9, 9)]
)
def test_convolution_is_that_of_torch(kernels, n, channels_in, channels_out, height, width):
    x = images(n, channels_in, height, width)
    weight = small_integers((channels_out, channels_in, 3, 3), -3, 4, seed=1, share=0.05)
    bias = small_integers((channels_out,), -5, 6, seed=2)
    unit = torch.full((channels_out,), 0.5, device=DEVICE)
    flat = kernels.flatten(x, 2.0)
    assert torch.equal(unflat(flat, channels_in), x.float())
    found = kernels.convolve(flat, tap_by_tap(weight, unit, bias, kernels), None, None)
    expected = F.conv2d(x.float(), weight * 0.5, bias, padding=1).relu()
    assert expected.max() < 2048 and (expected > 0).float().mean() > 0.3
    assert torch.equal(found[:, :, :height, :width].float(), expected)
    assert not found[:, :, height].any() and not found[..., width].any()


@pytest.mark.parametrize("tap", range(9))
def test_each_tap_sees_its_neighbour_and_the_residual_is_added(kernels, tap):
    x = images(2, 64, 6, 4)
    weight = torch.zeros(64, 64, 3, 3, device=DEVICE)
    weight[:, :, tap // 3, tap % 3] = torch.eye(64)
    one, none = torch.ones(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    flat, other = kernels.flatten(x, 4.0), kernels.flatten(images(2, 64, 6, 4, seed=3), 1.0)
    found = kernels.convolve(flat, tap_by_tap(weight, one, none, kernels), other, 8.0)
    expected = F.conv2d(x.float(), weight, padding=1) + images(2, 64, 6, 4, seed=3).float()
    assert torch.equal(unflat(found, 64), expected)


def test_what_is_too_large_saturates(kernels):
    x = torch.full((1, 64, 2, 2), 60000.0, device=DEVICE).half().contiguous(memory_format=torch.channels_last)
    flat = kernels.flatten(x, 1.0)
    assert torch.equal(unflat(flat, 64), torch.full((1, 64, 2, 2), 448.0, device=DEVICE))
    one, none = torch.ones(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    weights = tap_by_tap(torch.ones(64, 64, 3, 3, device=DEVICE), one, none, kernels)
    found = kernels.convolve(flat, weights, None, 1.0)
    assert torch.equal(unflat(found, 64), torch.full((1, 64, 2, 2), 448.0, device=DEVICE))


def test_only_the_images_become_tokens(kernels):
    x = images(2, 64, 5, 4)
    embedding = small_integers((12, 64), 0, 8, seed=4)
    tokens, reduced = kernels.embed(x, embedding, 0.5)
    expected = x[:, :, :4, :3].permute(0, 2, 3, 1).reshape(2, 12, 64).float() + embedding
    assert torch.equal(tokens.float(), expected)
    assert torch.equal(reduced.float(), expected.flatten(0, 1) / 2)


def test_parts_of_flat_images_are_the_same_memory(kernels):
    x = images(3, 64, 5, 4)
    flat = kernels.flatten(x, 1.0)
    part = flat.images(1, 2)
    assert torch.equal(unflat(part, 64), x[1:].float())
    assert part.values.untyped_storage().data_ptr() == flat.values.untyped_storage().data_ptr()


@pytest.mark.parametrize(("n", "height", "width"), [(1, 6, 4), (3, 8, 10)])
def test_strided_convolution_of_split_images_is_that_of_torch(kernels, n, height, width):
    x = images(n, 64, height, width)
    copy = torch.zeros(64, 64, 3, 3, device=DEVICE)
    copy[:, :, 1, 1] = torch.eye(64)
    one, none = torch.ones(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    out = torch.full((n * (height // 2 + 1) * (width // 2 + 1), 256), 7.0, device=DEVICE).to(kernels.FP8)
    flat = kernels.flatten(x, 1.0)
    split = kernels.convolve(flat, tap_by_tap(copy, one, none, kernels), None, 1.0, out, split=True)
    assert split.size == (n, height // 2, width // 2)
    quarters = F.pixel_unshuffle(x.float(), 2).unflatten(1, (64, 4)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(unflat(split, 256), quarters)

    weight = small_integers((128, 64, 3, 3), -3, 4, seed=1, share=0.05)
    bias = small_integers((128,), -5, 6, seed=2)
    unit = torch.full((128,), 0.5, device=DEVICE)
    found = kernels.convolve(split, tap_by_tap(weight, unit, bias, kernels), None, None, strided=True)
    expected = F.conv2d(x.float(), weight * 0.5, bias, stride=2, padding=1).relu()
    assert torch.equal(found[:, :, : height // 2, : width // 2].float(), expected)


def test_images_of_odd_size_are_not_split(kernels):
    flat = kernels.flatten(images(1, 64, 5, 4), 1.0)
    one = torch.ones(64, device=DEVICE)
    weights = tap_by_tap(torch.ones(64, 64, 3, 3, device=DEVICE), one, one, kernels)
    with pytest.raises(ValueError, match="5 x 4 pixels cannot be split"):
        kernels.convolve(flat, weights, None, 1.0, split=True)
    with pytest.raises(ValueError, match="only flat images"):
        kernels.convolve(flat, weights, None, None, split=True)


def test_a_convolution_writes_beside_another_one(kernels):
    x = images(2, 64, 6, 4)
    weight = torch.zeros(64, 64, 3, 3, device=DEVICE)
    weight[:, :, 1, 1] = torch.eye(64)
    one, none = torch.ones(64, device=DEVICE), torch.zeros(64, device=DEVICE)
    both = torch.full((2 * 7 * 5, 128), 7.0, device=DEVICE).to(kernels.FP8)
    flat = kernels.flatten(x, 1.0)
    found = kernels.convolve(flat, tap_by_tap(weight, one, none, kernels), None, 1.0, both[:, 64:])
    assert torch.equal(unflat(found, 64), x.float())
    assert torch.equal(both[:, 64:].float(), found.values.float()) and bool((both[:, :64].float() == 7).all())


def test_product_of_rows_is_that_of_torch(kernels):
    x = small_integers((200, 128), -7, 8)
    weight = small_integers((384, 128), -3, 4, seed=1, share=0.2)
    bias = small_integers((384,), -5, 6, seed=2)
    weights = kernels.Fp8Weights(weight.to(kernels.FP8), torch.full((384,), 0.25, device=DEVICE), bias)
    found = kernels.linear((2 * x).to(kernels.FP8), 2.0, weights)
    assert torch.equal(found.float(), F.linear(x, weight * 0.25, bias))


def fused(module, stem=False):
    torch.manual_seed(0)
    network = fuse_conv_relu(plain_attention(fold_batch_norm(module.eval())), stem=stem)
    network = one_pass_norms(network) or network
    return network.to(DEVICE, torch.float16, memory_format=torch.channels_last)


def crops(n, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = torch.rand(n, 6, size, size, generator=generator).to(DEVICE, torch.float16)
    return made.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", [RefineNet, ScoreNet])
@pytest.mark.parametrize("stem", [False, True])
@pytest.mark.parametrize("observed", [2, 1])
def test_tokens_and_projections_are_near_those_in_fp16(fp8, observed, stem, kind):
    network = fused(kind(0.5, 32), stem)
    example = crops(2), crops(2, seed=1)
    if kind is RefineNet:
        reduced = fp8.Fp8Refiner(network, example)
        attentions = [layer.self_attn for layer, _ in network.heads]
    else:
        reduced = fp8.Fp8Scorer(network, example)
        attentions = [network.att]
    convolutions = [m for m in reduced.modules() if isinstance(m, fp8.Fp8Conv)]
    assert len(convolutions) == 13, "all but the first two"
    with torch.inference_mode():
        expected = network.tokens(crops(2, seed=2), crops(observed, seed=3))
        tokens, projected = reduced.tokens(crops(2, seed=2), crops(observed, seed=3))
        assert difference(tokens, expected) < 0.04
        for attention, qkv in zip(attentions, projected, strict=True):
            assert difference(qkv, F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)) < 0.08
    assert not any(isinstance(m, fp8.Fp8Conv) for m in network.modules()), "what it was made from stays what it was"


def difference(found, expected):
    return ((found - expected).abs().mean() / expected.abs().mean()).item()


def test_embeddings_of_a_scorer_are_near_those_in_fp16(fp8):
    network = fused(ScoreNet(0.5, 32))
    pair = crops(3, seed=2), crops(3, seed=3)
    with torch.inference_mode():
        assert difference(fp8.Fp8Scorer(network, pair)(*pair), network.encode(*pair)) < 0.05


def test_networks_that_cannot_run_in_fp8_are_refused(fp8):
    plain = RefineNet(0.5, 32).eval()
    with pytest.raises(ValueError, match="one-pass norms"):
        fp8.Fp8Refiner(fuse_conv_relu(fold_batch_norm(plain)), (crops(1), crops(1)))
    with pytest.raises(ValueError, match="only an encoder of fused convolutions"):
        fp8.Fp8Scorer(plain_attention(ScoreNet(0.5, 32).eval()), (crops(1), crops(1)))


@pytest.mark.skipif(DEVICE.type == "cuda", reason="it is about machines without a GPU")
def test_without_a_gpu_the_backend_gives_way_and_says_why(said):
    runner = make_runner(RefineNet(0.125, 32).eval(), "fp8", RunnerContext(crop=(6, 32), label="refiner"))
    assert runner.name != "fp8" and "CUDA graphs need a CUDA device" in runner.degraded
    assert any("fp8 not available" in line for line in said)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [32, 160])
def test_gpu_coarse_runner_is_near_the_exact_one(size, said):
    torch.manual_seed(0)
    module = RefineNet(0.5, size).eval()
    runner = make_runner(module, "fp8", RunnerContext("cuda", (6, size), "refiner"), fallback=False)
    assert runner.name == "fp8" and "fp8" in runner.coarse._candidates, said
    exact = make_runner(module, "cuda_graph", RunnerContext("cuda", (6, size), "refiner"))
    candidate = runner.coarse._candidates["fp8"]
    for n, observed in ((1, 1), (3, 3), (100, 100), (100, 1)):
        pair = crops(n, size, seed=4).float(), crops(observed, size, seed=5).float()
        exact.prepare(n, observed)
        runner.prepare(n, observed)
        runner.coarse.prepare(n, observed)
        with torch.inference_mode():
            expected = exact(*pair)
            for found in (runner(*pair), runner.coarse(*pair), candidate(*pair)):
                for e, f in zip(expected, found, strict=True):
                    assert f.dtype == torch.float32 and f.shape == e.shape
                    assert ((e - f).abs().max() / e.abs().max()).item() < 0.1


@pytest.mark.gpu
@pytest.mark.parametrize("size", [32, 160])
def test_gpu_embeddings_of_a_coarse_scorer_can_stand_beside_exact_ones(size, said):
    torch.manual_seed(0)
    module = ScoreNet(0.5, size).eval()
    runner = make_runner(module, "fp8", RunnerContext("cuda", (6, size), "scorer"), fallback=False)
    assert runner.name == "fp8" and "fp8" in runner.coarse._candidates, said
    exact = make_runner(module, "cuda_graph", RunnerContext("cuda", (6, size), "scorer"))
    for n in (3, 100):
        pair = crops(n, size, seed=4).float(), crops(n, size, seed=5).float()
        expected = exact(*pair)[0]
        embeddings, coarse = runner.embed(*pair), runner.coarse.embed(*pair)
        assert embeddings.dtype == torch.float32 and difference(coarse, embeddings) < 0.05
        torch.testing.assert_close(runner(*pair)[0], expected, atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(runner.rank(embeddings), expected, atol=2e-3, rtol=1e-2)
        torch.testing.assert_close(runner.coarse(*pair)[0], runner.rank(coarse))


@pytest.mark.gpu
@pytest.mark.parametrize(("length", "channels"), [(400, 512), (33, 256), (5, 1024)])
def test_mean_of_the_norm_needs_no_norm(length, channels):
    from rfdetr_foundationpose.accel.norm_kernels import add_norm_mean

    generator = torch.Generator("cuda").manual_seed(0)
    x, y = (torch.randn(7, length, channels, generator=generator, device="cuda").half() * 3 + 1 for _ in range(2))
    weight, bias = (torch.randn(channels, generator=generator, device="cuda").half() for _ in range(2))
    expected = F.layer_norm(x.float() + y.float(), (channels,), weight.float(), bias.float(), 1e-5).mean(1)
    torch.testing.assert_close(add_norm_mean(x, y, weight, bias, 1e-5).float(), expected, atol=2e-3, rtol=2e-3)
