"""Architecture, official keys and checkpoints of refiner and scorer."""

from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from rfdetr_foundationpose.pose import checkpoints
from rfdetr_foundationpose.pose.networks import RefineNet, ScoreNet

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def conv_bn(prefix: str, c_in: int, c_out: int, kernel: int) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {
        f"{prefix}.net.0.weight": (c_out, c_in, kernel, kernel),
        f"{prefix}.net.0.bias": (c_out,),
    }
    return keys | {f"{prefix}.net.1.{k}": () if k == "num_batches_tracked" else (c_out,) for k in BN}


def block(prefix: str, c: int) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    for i in (1, 2):
        keys |= {f"{prefix}.conv{i}.weight": (c, c, 3, 3), f"{prefix}.conv{i}.bias": (c,)}
        keys |= {f"{prefix}.bn{i}.{k}": () if k == "num_batches_tracked" else (c,) for k in BN}
    return keys


def encoders(single: str, pair: str) -> dict[str, tuple[int, ...]]:
    return {
        **conv_bn(f"{single}.0", 6, 64, 7),
        **conv_bn(f"{single}.1", 64, 128, 3),
        **block(f"{single}.2", 128),
        **block(f"{single}.3", 128),
        **block(f"{pair}.0", 256),
        **block(f"{pair}.1", 256),
        **conv_bn(f"{pair}.2", 256, 512, 3),
        **block(f"{pair}.3", 512),
        **block(f"{pair}.4", 512),
        "pos_embed.pe": (1, 400, 512),
    }


def attention(prefix: str) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.in_proj_weight": (1536, 512),
        f"{prefix}.in_proj_bias": (1536,),
        f"{prefix}.out_proj.weight": (512, 512),
        f"{prefix}.out_proj.bias": (512,),
    }


def official_refiner() -> dict[str, tuple[int, ...]]:
    keys = encoders("encodeA", "encodeAB")
    for head in ("trans_head", "rot_head"):
        keys |= attention(f"{head}.0.self_attn")
        keys |= {
            f"{head}.0.linear{i}.{k}": (512, 512) if k == "weight" else (512,)
            for i in (1, 2)
            for k in ("weight", "bias")
        }
        keys |= {f"{head}.0.norm{i}.{k}": (512,) for i in (1, 2) for k in ("weight", "bias")}
        keys |= {f"{head}.1.weight": (3, 512), f"{head}.1.bias": (3,)}
    return keys


def official_scorer() -> dict[str, tuple[int, ...]]:
    return {
        **encoders("encoderA", "encoderAB"),
        **attention("att"),
        **attention("att_cross"),
        "linear.weight": (1, 512),
        "linear.bias": (1,),
    }


@pytest.mark.parametrize(
    ("network", "keys", "millions"), [(RefineNet, official_refiner, 16.83), (ScoreNet, official_scorer, 15.77)]
)
def test_official_keys_shapes_and_size(network, keys, millions):
    made = network(1.0)
    assert {k: tuple(v.shape) for k, v in made.state_dict().items()} == keys()
    assert sum(p.numel() for p in made.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


@pytest.mark.parametrize("network", [RefineNet, ScoreNet])
def test_outputs_are_finite_in_half_precision(network):
    made = network(0.25).eval().to(torch.float16)
    pairs = [torch.rand(3, 6, 160, 160, dtype=torch.float16) for _ in range(2)]
    with torch.inference_mode():
        outputs = made(*pairs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for out in outputs:
        assert out.shape[0] == 3
        assert torch.isfinite(out).all()


@pytest.mark.parametrize("network", [RefineNet, ScoreNet])
def test_one_observed_crop_serves_all_hypotheses(network):
    made = network(0.125).eval()
    rendered, observed = torch.rand(4, 6, 160, 160), torch.rand(1, 6, 160, 160)
    with torch.inference_mode():
        shared, expanded = made(rendered, observed), made(rendered, observed.expand(4, -1, -1, -1).contiguous())
    for a, b in zip(*(x if isinstance(x, tuple) else (x,) for x in (shared, expanded)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_position_embedding_values():
    pe = RefineNet(1.0).pos_embed.pe[0]
    assert pe[0, 0::2].abs().max() == 0
    assert (pe[0, 1::2] == 1).all()
    torch.testing.assert_close(pe[7, 0], torch.sin(torch.tensor(7.0)))
    torch.testing.assert_close(pe[7, 511], torch.cos(torch.tensor(7.0) * 10000 ** (-510 / 512)))


def test_official_layout_and_ours_load_to_the_same_network(tmp_path):
    network = RefineNet(0.25).eval()
    official = tmp_path / checkpoints.OFFICIAL["refiner"]
    official.mkdir()
    half = {
        k: v.half().float() if v.is_floating_point() and k != "pos_embed.pe" else v
        for k, v in network.state_dict().items()
    }
    torch.save({"model": half, "epoch": 3}, official / "model_best.pth")
    checkpoints.write(tmp_path / "ours.safetensors", network, "trained for a test")
    a, told = checkpoints.load_refiner(checkpoints.find(tmp_path, "refiner"))
    b, ours = checkpoints.load_refiner(tmp_path / "ours.safetensors")
    assert "official" in told.description
    assert "trained for a test" in ours.description
    for key, value in a.state_dict().items():
        torch.testing.assert_close(value, b.state_dict()[key], atol=1e-6, rtol=0, msg=key)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled code ran')",))


def test_checkpoints_that_cannot_be_used_say_why(tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="official FoundationPose release"):
        checkpoints.find(tmp_path, "scorer")
    broken = tmp_path / "refiner.safetensors"
    broken.write_bytes(b"no tensors here")
    with pytest.raises(checkpoints.CheckpointError, match="safetensors"):
        checkpoints.load_refiner(broken)
    other = tmp_path / "scorer.safetensors"
    checkpoints.write(other, RefineNet(0.125), "a refiner")
    with pytest.raises(checkpoints.CheckpointError, match="no scorer"):
        checkpoints.load_scorer(other)
    partial = {k: v for k, v in RefineNet(0.125).state_dict().items() if "rot_head" not in k}
    save_file({k: v.contiguous() for k, v in partial.items()}, str(broken))
    with pytest.raises(checkpoints.CheckpointError, match="rot_head"):
        checkpoints.load_refiner(broken)
    evil = tmp_path / "model_best.pth"
    evil.write_bytes(pickle.dumps({"model": Evil()}))
    with pytest.raises(checkpoints.CheckpointError, match="plain tensors"):
        checkpoints.read(evil)


@pytest.mark.parametrize("names", [("refiner_net.onnx", "score_net.onnx"), ("refine_model.onnx", "score_model.onnx")])
def test_nvidias_files_are_found_by_either_generations_names(names, tmp_path):
    for role, name in zip(("refiner", "scorer"), names, strict=True):
        (tmp_path / name).write_bytes(b"")
        assert checkpoints.find(tmp_path, role).name == name
