"""The backbone as a training step runs it, against rfdetr's own forward and backward pass."""

from __future__ import annotations

import logging

import pytest
import torch
from rfdetr.utilities.tensors import NestedTensor

from rfdetr_foundationpose.detect import rfdetr_library as library
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.train import detector_trainer
from rfdetr_foundationpose.train.detector_backbone import NarrowBackbone
from rfdetr_foundationpose.train.detector_selection import quicken
from rfdetr_foundationpose.train.detector_trainer import MEAN, STD, Trainer
from support.detector_training import TINY, pool, settings, trained_on

NAMES = [o.name for o in demo_objects()]
WINDOWED = {**TINY, "resolution": 128, "positional_encoding_size": 8, "num_windows": 2}
LARGER = {**TINY, "resolution": 192}  # positions are interpolated


def backbone(config: dict) -> torch.nn.Module:
    torch.manual_seed(0)
    net = library.network(library.construct("nano", "cpu", num_classes=3, group_detr=2, **config))
    library.truncate_encoder(net)
    for name, parameter in net.named_parameters():
        if "lambda" in name:  # all are 1 at first, which would hide where they go
            parameter.data.mul_(torch.rand_like(parameter) + 0.5)
    return net.backbone[0].train()


def passes(run, module, resolution: int) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, resolution, resolution, generator=generator)
    samples = NestedTensor(image, torch.zeros(3, resolution, resolution, dtype=torch.bool))
    (feature,), cross = run(samples)
    assert cross is None and not feature.mask.any() and feature.tensors.dtype == torch.float32
    weight = torch.randn(feature.tensors.shape, generator=generator)
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad((feature.tensors * weight).sum(), parameters, allow_unused=True)
    return feature.tensors.detach(), dict(zip(names, gradients, strict=True))


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("config", [TINY, WINDOWED, LARGER])
def test_in_fp32_it_is_what_rfdetr_computes(config):
    module = backbone(config)
    expected, gradients = passes(module, module, config["resolution"])
    before = {name: p.clone() for name, p in module.named_parameters()}
    found, ours = passes(NarrowBackbone(module, torch.float32), module, config["resolution"])
    assert distance(found, expected) < 1e-5
    for name, gradient in gradients.items():
        assert (ours[name] is None) == (gradient is None)
        if gradient is not None and "key.bias" not in name:  # that one's gradient is 0 but for rounding
            assert distance(ours[name], gradient) < 1e-4, name
    assert all(torch.equal(p, before[name]) for name, p in module.named_parameters())


def test_in_bf16_gradients_reach_the_fp32_weights_within_its_rounding():
    module = backbone(WINDOWED)
    expected, gradients = passes(module, module, 128)
    found, ours = passes(NarrowBackbone(module, torch.bfloat16), module, 128)
    assert 1e-4 < distance(found, expected) < 0.03
    for name, gradient in gradients.items():
        if gradient is None:
            continue
        assert ours[name].dtype == torch.float32
        # PyTorch's CPU kernel, unlike the CUDA one, adds up the gradient of a norm's offset in BF16.
        if "key.bias" not in name and "norm1.bias" not in name:
            assert distance(ours[name], gradient) < 0.06, name


def test_it_sees_weights_that_change_in_place():
    module = backbone(TINY)
    run = NarrowBackbone(module, torch.float32)
    first, _ = passes(run, module, 96)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.1)
    expected, _ = passes(module, module, 96)
    found, _ = passes(run, module, 96)
    assert distance(found, expected) < 1e-5 < distance(found, first)


def test_pass_is_one_graph():
    run = NarrowBackbone(backbone(WINDOWED), torch.bfloat16)
    found = torch._dynamo.explain(run._call)(torch.randn(2, 3, 128, 128), run._folded())
    assert (found.graph_count, found.graph_break_count) == (1, 0)


@pytest.mark.parametrize("reparam", [True, False])
def test_choice_of_proposals_is_that_of_rfdetr(reparam):
    torch.manual_seed(0)
    config = {**TINY, "group_detr": 3, "bbox_reparam": reparam}
    transformer = library.network(library.construct("nano", "cpu", num_classes=3, **config)).transformer.train()
    parameters = list(transformer.enc_out_bbox_embed.parameters()) + list(transformer.enc_output.parameters())
    parameters += list(transformer.enc_output_norm.parameters()) + list(transformer.enc_out_class_embed.parameters())
    for parameter in parameters:  # the last box layer is 0 at first, norms are the same in all groups
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    memory = torch.randn(4, 36, 64, requires_grad=True)
    proposals = torch.rand(4, 36, 4)

    def run(choose):
        out = choose(memory, proposals, 3)
        total = sum((o * torch.linspace(0, 1, o.numel()).view_as(o)).sum() for o in out[1:])
        return out, torch.autograd.grad(total, [memory, *parameters])

    expected, gradients = run(transformer._two_stage_group_selection)
    quicken(transformer)
    found, ours = run(transformer._two_stage_group_selection)
    assert not found[0].requires_grad
    for a, b in zip([*found, *ours], [*expected, *gradients], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_training_in_bf16_lowers_the_loss(tmp_path):
    trainer = Trainer(settings(tmp_path), NAMES)
    trainer.backbone.dtype = torch.bfloat16
    batch = pool(4).draw(4, 96, torch.tensor(MEAN), torch.tensor(STD), augment=False)
    trained_on(trainer, batch)
    assert all(p.dtype == torch.float32 for p in trainer.network.parameters())


def test_failing_compiler_is_reported_and_training_goes_on(tmp_path, monkeypatch, caplog):
    def broken(function, **options):
        def call(*arguments):
            raise RuntimeError("\n".join(f"line {i}" for i in range(9)))

        return call

    monkeypatch.setattr(detector_trainer.torch, "compile", broken)
    trainer = Trainer(settings(tmp_path), NAMES)
    batch = pool(2).draw(2, 96, torch.tensor(MEAN), torch.tensor(STD))
    with caplog.at_level(logging.WARNING, "rfdetr_foundationpose"):
        trainer.compile(batch)
    assert "RuntimeError: line 0" in caplog.text and "line 4" in caplog.text and "line 5" not in caplog.text
    assert all(torch.isfinite(v) for v in trainer.train_step(batch, 1e-4).values())
