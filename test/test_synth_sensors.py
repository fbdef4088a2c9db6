"""Sensors of training pairs: how often each effect happens, how large it is, and that it can be switched off."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.train import pair_sensor_kernels as kernels
from rfdetr_foundationpose.train.pair_sensors import STEADY, Place, SensorEffects, Sensors, Sight
from rfdetr_foundationpose.warp_setup import launch

EFFECTS = [f.name for f in fields(SensorEffects)]
SCENES, SIZE = 64, 96
NEAR, FAR = 0.5, 0.6
SQUARE = slice(32, 64)
UNIT = 10.0
"""The crops' xyz is in these, m: far more than all depths."""


def only(**chances):
    return SensorEffects(**{name: chances.get(name, 0.0) for name in EFFECTS})


def square(size=SIZE):
    """A square target in front of a wall, in stripes of two colours."""
    z = torch.full((SCENES, size, size), FAR)
    target = torch.zeros_like(z)
    z[:, SQUARE, SQUARE], target[:, SQUARE, SQUARE] = NEAR, 1.0
    rgb = torch.full((SCENES, size, size, 3), 0.3)
    rgb[:, :, ::2] = 0.7
    return Sight(rgb, z, torch.ones_like(z), target)


def place(size=SIZE):
    cameras = torch.tensor([[500.0, 500.0, 320.0, 240.0]]).repeat(SCENES, 1)
    windows = torch.tensor([[320.0 - size / 2, 240.0 - size / 2, 320.0 + size / 2, 240.0 + size / 2]])
    return Place(
        torch.arange(SCENES, dtype=torch.int32),
        windows.repeat(SCENES, 1),
        torch.eye(4).repeat(SCENES, 1, 1),
        torch.full((SCENES,), 2 * UNIT),
        cameras,
        torch.tensor([[640.0, 480.0]]).repeat(SCENES, 1),
    )


def observed(effects, sight=None, seed=0):
    """Depth (n, r, r) m and colour (n, r, r, 3)."""
    sight = sight or square()
    out = torch.full((SCENES, SIZE, SIZE, 6), 7.0)
    Sensors(torch.Generator().manual_seed(seed), effects).observe(sight, place(), 0.001, out)
    return out[..., 5] * UNIT, out[..., :3]


def settings(effects, count=20_000, seed=3):
    """Fields of so many scenes' settings."""
    sensors = Sensors(torch.Generator().manual_seed(seed), effects)
    memory, array = sensors._settings(count)
    seeds = torch.tensor([seed, 0], dtype=torch.int32)
    launch(kernels.draw_settings, count, [kernels.wp.from_torch(seeds), sensors.chances, array], device="cpu")
    names = {name: np.array(array.numpy()[name], np.float64) for name in kernels.Setting.vars}
    assert len(memory) == count
    return names


def uniform(values, low, high):
    assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
    np.testing.assert_allclose(np.quantile(values, [0.1, 0.5, 0.9]), low + (high - low) * np.array([0.1, 0.5, 0.9]), atol=0.02 * (high - low))  # fmt: skip


def near(measured, expected, share=0.05):
    assert abs(measured - expected) <= share * abs(expected), (measured, expected)


def test_effects_happen_as_often_as_they_are_told():
    s = settings(SensorEffects(shift=0.4, coarse=0.3, fatten=0.35, flying=0.25, shadow=0.2, bias=0.45, waves=0.15, missing=0.12, motion=0.5))  # fmt: skip
    happened = {
        "shift": (s["offset"] != 0).any(1),
        "coarse": s["grid"] > 1,
        "fatten": s["fatten"] > 0,
        "flying": s["flying"] > 0,
        "shadow": s["shadow"] > 0,
        "bias": (s["bias"] != 0).all(1),
        "waves": s["waves"] > 0,
        "missing": s["missing"] > 0,
        "motion": (s["motion"] != 0).any(1),
    }
    # A shift may round to none in both directions.
    shares = {"shift": 0.4 * (1 - 1 / 49), "coarse": 0.3, "fatten": 0.35, "flying": 0.25, "shadow": 0.2, "bias": 0.45, "waves": 0.15, "missing": 0.12, "motion": 0.5}  # fmt: skip
    assert set(happened) == set(EFFECTS)
    for name, share in shares.items():
        assert abs(happened[name].mean() - share) < 0.012, name
    together = np.corrcoef(np.stack(list(happened.values())).astype(float))
    assert np.abs(together - np.eye(len(happened))).max() < 0.03, "each by itself"


def test_sizes_of_effects():
    s = settings(only(**dict.fromkeys(EFFECTS, 1.0)))
    for k in range(2):
        values, counts = np.unique(s["offset"][:, k], return_counts=True)
        assert set(np.abs(values)) <= {0, 1, 2, 3, 4}
        near(counts[np.abs(values) <= 3].min() / len(s["grid"]), 1 / 7, 0.1)
    uniform(s["grid"], 1, 4)
    uniform(s["phase"], 0, 1)
    uniform(np.log(s["sigma"]), -1.5, 1)
    uniform(s["waves"], 0.3, 1.2)
    near(s["bias"][:, 0].std(), 0.002)
    near(s["bias"][:, 1].std(), 0.004)
    near((s["round_mm"] > 0).mean(), 0.5)
    near((s["edge"] > 0.015).mean(), 0.5)
    uniform(s["lost_edge"], 0, 0.8)
    uniform(s["lost_cosine"], 0, 0.25)
    uniform(s["lost_hole"], -0.3, 0.25)
    uniform(s["lost_speckle"], -0.05, 0.05)
    near((s["missing"] == 1).mean(), 0.6)
    uniform(s["missing_level"], 0.4, 1.1)
    near((s["blur"] == 0).mean(), 0.5 / 1.7)
    near((s["blur"] == 1).mean(), 0.2 / 1.7, 0.1)
    uniform(np.linalg.norm(s["motion"], axis=1), 0.5, 4)
    uniform(np.arctan2(s["motion"][:, 1], s["motion"][:, 0]), 0, np.pi)
    near(np.log(s["gain"]).std(), (0.25**2 + 0.1**2) ** 0.5)
    near((np.log(s["gain"][:, 0]) - np.log(s["gain"][:, 1])).std(), 0.1 * 2**0.5)
    near(s["lift"].std(), 0.05)
    uniform(s["saturation"], 0.4, 1.4)
    uniform(s["grain"], 0, 0.03)


def test_what_is_switched_off_does_not_happen():
    s = settings(only())
    for name in ("offset", "phase", "fatten", "flying", "shadow", "bias", "waves", "missing", "motion"):
        assert not s[name].any(), name
    assert (s["grid"] == 1).all()


def test_noise_grows_with_distance_and_some_depth_is_lost():
    for distance in (0.5, 2.0):
        flat = square()
        flat.z[:] = distance
        z, _ = observed(only(), flat)
        error = (z - flat.z)[z > 0]
        # Rounding to millimetres is a part of it, in half of the scenes.
        sigma = 0.0006 + 0.0016 * distance**2
        factor = np.exp(2 * np.linspace(-1.5, 1.0, 1000)).mean()
        # The smooth part is a mean of four nodes between which it is interpolated: less than 1.
        assert 0.4 < error.std() / (sigma * factor**0.5) < 1.0
        assert abs(error.mean()) < 0.05 * sigma
        assert 0.0 < (z == 0).float().mean() < 0.1
    slanted = square()
    slanted.cosine[:] = 0.2
    z, _ = observed(only(), slanted)
    assert 0.1 < (z == 0).flatten(1).float().mean(1).gt(0.99).float().mean() < 0.35, "a fifth sees nothing that flat"


def test_depth_is_shifted_beside_colour():
    z, _ = observed(only(shift=1.0))
    near_z = ((z > 0) & (z < (NEAR + FAR) / 2)).float()
    at = torch.arange(SIZE, dtype=torch.float32)
    row, column = ((near_z.sum(axis) * at).sum(1) / near_z.sum((1, 2)) for axis in (2, 1))
    for middle in (row, column):
        off = middle - (SQUARE.start + SQUARE.stop - 1) / 2
        assert 1.5 < off.std() < 2.6
        assert off.abs().max() < 4.5
    z, _ = observed(only())
    assert not ((z > 0) & (z < 0.55) & (square().target == 0)).any()


def test_coarse_depth_has_cells_of_one_depth():
    ramp = square()
    ramp.z[:] = 0.4 + 0.01 * torch.arange(SIZE)
    same = []
    for effects in (only(coarse=1.0), only()):
        z, _ = observed(effects, ramp)
        both = (z[..., 1:] > 0) & (z[..., :-1] > 0)
        same.append(((z[..., 1:] - z[..., :-1]).abs() < 0.004)[both].float().mean())
    assert abs(same[0] - (1 - np.log(4) / 3)) < 0.1  # the mean of 1 - 1 / grid
    assert same[1] < 0.1


def test_things_in_front_grow_by_two_pixels():
    side = SQUARE.stop - SQUARE.start
    for effects, grown in ((only(fatten=1.0), side + 4), (only(), side)):
        z, _ = observed(effects)
        near_z = (z > 0) & (z < (NEAR + FAR) / 2)
        rows, columns = (near_z.any(axis).sum(1) for axis in (2, 1))
        assert rows.max() == columns.max() == grown
        assert (rows == grown).float().mean() > 0.9


def test_flying_pixels_lie_between_two_depths_at_edges():
    between = []
    for effects in (only(flying=1.0), only()):
        z, _ = observed(effects)
        flying = (z > NEAR + 0.03) & (z < FAR - 0.03)
        between.append(flying.float().sum((1, 2)).mean())
        assert not flying[:, 40:56, 40:56].any() and not flying[:, :28].any()
    edge = 34**2 - 30**2  # pixels with both in 3 x 3
    near(between[0], edge * 0.7 * 0.4 * (1 - 0.4), 0.2)  # two in five of 0.1 m, and an edge's are lost by 0.4
    assert between[1] == 0


def test_shadow_lies_left_of_what_stands_in_front():
    z, _ = observed(only(shadow=1.0))
    assert (z[:, SQUARE, SQUARE.start - 6 : SQUARE.start] == 0).all()
    for beside in ((SQUARE, slice(8, 25)), (SQUARE, slice(66, 90)), (SQUARE, slice(40, 60)), (slice(0, 30), SQUARE)):
        assert (z[:, beside[0], beside[1]] == 0).float().mean() < 0.15
    z, _ = observed(only())
    assert (z[:, SQUARE, SQUARE.start - 6 : SQUARE.start - 1] == 0).float().mean() < 0.15
    z, _ = observed(only(shadow=1.0, flying=1.0))
    # Flying pixels at the outline may be too near to the wall to cast one.
    assert (z[:, 34:62, SQUARE.start - 5 : SQUARE.start - 2] == 0).all()


def test_bias_is_of_a_scene_and_waves_of_a_place():
    flat = square()
    flat.z[:] = 1.0

    def parts(effects):
        z, _ = observed(effects, flat)
        error = torch.where(z > 0, z - 1.0, torch.nan).reshape(SCENES, 8, 12, 8, 12)
        cells = error.nanmean(dim=(2, 4))
        means = cells.nanmean(dim=(1, 2))
        return means.std(), (cells - means[:, None, None]).nan_to_num().std()

    plain, biased, wavy = (parts(e) for e in (only(), only(bias=1.0), only(waves=1.0)))
    near(biased[0], (0.002**2 + 0.004**2) ** 0.5, 0.25)
    near(biased[1], plain[1], 0.1)
    assert plain[0] < 0.0005 and wavy[0] < 0.002
    assert 0.0015 < wavy[1] - plain[1] < 0.004


def test_target_or_surroundings_are_missing():
    target = square().target.bool()
    z, _ = observed(only(missing=1.0))
    lost = (z == 0).float()
    on = torch.stack([lost[i][target[i]].mean() for i in range(SCENES)])
    off = torch.stack([lost[i][~target[i]].mean() for i in range(SCENES)])
    assert 0.4 < (on > off).float().mean() < 0.8
    assert (torch.maximum(on, off) > 0.25).float().mean() > 0.9
    assert (torch.minimum(on, off) < 0.25).float().mean() > 0.9


def test_motion_blurs_colour_alone():
    steps, depths = [], []
    for effects in (only(motion=1.0), only()):
        z, rgb = observed(effects)
        steps.append((rgb[:, :, 1:] - rgb[:, :, :-1]).abs().mean())
        depths.append(z)
    assert steps[0] < 0.8 * steps[1]
    torch.testing.assert_close(depths[0], depths[1])


def test_colour_stays_in_its_range_and_differs_between_scenes():
    _, rgb = observed(only())
    assert rgb.min() >= 0 and rgb.max() <= 1
    assert rgb.mean((1, 2)).std(0).min() > 0.08
    even = square()
    even.rgb[:] = 0.5
    _, rgb = observed(only(), even)
    grain = rgb.flatten(1, 2).std(1).mean(1)
    uniform_saturation = 0.9  # noise comes after saturation: the mean of 0 to 0.03
    assert 0.012 * uniform_saturation < grain.mean() < 0.018
    channels = rgb[..., 0] - rgb[..., 1]
    assert channels.flatten(1).std(1).mean() > 0.015, "each channel has its own noise"


def test_one_seed_one_picture_and_the_steady_sensor_is_steady():
    for a, b in zip(observed(SensorEffects(), seed=4), observed(SensorEffects(), seed=4), strict=True):
        assert torch.equal(a, b)
    assert (observed(SensorEffects(), seed=4)[0] - observed(SensorEffects(), seed=5)[0]).abs().mean() > 1e-3
    z, _ = observed(STEADY)
    flat = (z - square().z)[z > 0]
    assert flat.abs().mean() < 0.003


def test_nothing_is_seen_where_nothing_is():
    empty = square()
    empty.z[:, :, :40] = 0.0
    z, _ = observed(only(shift=1.0, coarse=1.0, fatten=1.0, flying=1.0, waves=1.0, bias=1.0), empty)
    assert not z[:, :, :40].any()
    assert z[:, :, 60:].any()


@pytest.mark.parametrize("name", EFFECTS)
def test_each_effect_alone_changes_what_is_seen(name):
    plain, changed = observed(only()), observed(only(**{name: 1.0}))
    differs = [(a - b).abs().gt(1e-4).float().mean() for a, b in zip(plain, changed, strict=True)]
    assert differs[1] > 0.05 if name == "motion" else differs[0] > 0.005


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_devices_see_the_same_of_the_same_numbers(device, monkeypatch):
    """All effects at once; torch's numbers, which differ between devices, are drawn on the CPU."""
    numbers = torch.Generator().manual_seed(9)
    for name in ("randint", "randn", "rand"):
        draw = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, generator, device, f=draw: f(*a, generator=numbers).to(device))
    effects = only(**dict.fromkeys(EFFECTS, 0.5))
    seen = []
    for where in ("cpu", device):
        numbers.manual_seed(9)
        sight = Sight(**{f.name: getattr(square(), f.name).to(where) for f in fields(Sight)})
        at = Place(**{f.name: getattr(place(), f.name).to(where) for f in fields(Place)})
        out = torch.full((SCENES, SIZE, SIZE, 6), 7.0, device=where)
        Sensors(torch.Generator(where), effects).observe(sight, at, 0.001, out)
        seen.append(out.cpu())
    # Rounding decides over pixels at a limit.
    assert ((seen[0] - seen[1]).abs().amax(-1) > 1e-3).float().mean() < 1e-3
    assert 0.05 < (seen[0][..., 5] == 0).float().mean() < 0.6
