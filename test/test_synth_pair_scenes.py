"""Scenes of training pairs: what is seen is the nearest of all things, and the target is where the truth has it."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
import warp as wp

from rfdetr_foundationpose.pose import renderer
from rfdetr_foundationpose.pose.constants import MIN_Z
from rfdetr_foundationpose.pose.mesh_bank import MeshBank
from rfdetr_foundationpose.pose.render_kernels import BankData, back_project, pose_rotation, pose_translation
from rfdetr_foundationpose.pose.warp_kernels import observed_coordinate
from rfdetr_foundationpose.train.object_stream import make_all
from rfdetr_foundationpose.train.pair_kernels import SceneData
from rfdetr_foundationpose.train.pair_scenes import BOXES, INSTANCES, TIDY, SceneEffects, pack
from rfdetr_foundationpose.train.pairs import PairSampler
from rfdetr_foundationpose.warp_setup import launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NOTHING = {"mesh": -1, "box_half": 0.0, "capsule_radius": 0.0, "plane": 0.0}


@pytest.fixture(scope="module")
def items():
    return make_all([11, 12, 13, 14, 15])


def sampler_of(items, effects, seed=4):
    """A sampler, and what its sensors are shown."""
    sampler = PairSampler(items, DEVICE, seed, effects)
    shown: list = []
    sampler.sensors.observe = lambda sight, place, min_z, out: shown.append(sight)
    return sampler, shown


@wp.kernel
def cast_scenes(
    bank: BankData,
    scene: SceneData,
    windows: wp.array(dtype=wp.vec4f),
    out: wp.array3d(dtype=wp.float32),
    out_instance: wp.array3d(dtype=wp.int32),
):
    """Depth m and instance that a ray of each pixel meets first, 0 and -1 where there is none; view i is of scene i."""
    n, y, x = wp.tid()
    w = windows[n]
    size = float(out.shape[1])
    u = wp.rint(observed_coordinate(x, w[0], w[2], size, scene.size[n][0]))
    v = wp.rint(observed_coordinate(y, w[1], w[3], size, scene.size[n][1]))
    ray = back_project(scene.camera[n], u, v)
    best = wp.float32(1.0e6)
    instance = wp.int32(-1)
    for m in range(scene.mesh.shape[1]):
        if scene.mesh[n, m] >= 0:
            R = pose_rotation(scene.pose[n, m])
            origin = wp.transpose(R) * (-pose_translation(scene.pose[n, m]))
            hit = wp.mesh_query_ray(bank.mesh[scene.mesh[n, m]], origin, wp.transpose(R) * wp.normalize(ray), best)
            if hit.result:
                best = hit.t
                instance = m
    inside = u >= 0.0 and v >= 0.0 and u < scene.size[n][0] and v < scene.size[n][1]
    out[n, y, x] = wp.where(instance >= 0 and inside, best / wp.length(ray), 0.0)
    out_instance[n, y, x] = wp.where(inside, instance, -1)


def test_objects_are_seen_as_rays_meet_them(items):
    """More views than are drawn at once, of near scenes whose crops enlarge the image and of far ones."""
    sampler, shown = sampler_of(items, SceneEffects(), 5)
    places: list = []
    observe = sampler.sensors.observe
    sampler.sensors.observe = lambda sight, place, min_z, out: (places.append(place), observe(sight, place, min_z, out))
    n = 24
    scenes = only(sampler.composer.draw(n), "mesh", slice(None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(renderer, "VIEWS_AT_ONCE", 10)
        sampler._inputs(scenes, scenes.T_cam_obj, torch.arange(n, device=DEVICE), "refiner")
    z, instance = torch.zeros_like(shown[0].z), torch.zeros_like(shown[0].z, dtype=torch.int32)
    windows = wp.from_torch(places[0].windows, dtype=wp.vec4f)
    with_trees = MeshBank([item.arrays for item in items], DEVICE)
    inputs = [with_trees.data, scenes.data, windows, wp.from_torch(z), wp.from_torch(instance)]
    launch(cast_scenes, tuple(z.shape), inputs, DEVICE)
    covered = (z > 0).float().sum()
    assert covered > 0.2 * z.numel()
    assert ((shown[0].z - z).abs() > 1e-4).sum() < 1e-3 * covered
    assert ((shown[0].target > 0.5) != (instance == 0)).sum() < 1e-3 * covered
    widths = places[0].windows[:, 2] - places[0].windows[:, 0]
    assert widths.min() < 0.6 * z.shape[1] and widths.max() > 1.2 * z.shape[1]


def only(scenes, kind, i):
    """The same scenes without everything but one thing: the i-th of a kind, or the whole hand."""
    left = dict(scenes.tensors)
    for name, none in NOTHING.items():
        left[name] = torch.full_like(left[name], none)
    left[kind][:, i] = scenes.tensors[kind][:, i]
    data, tensors = pack(left)
    return replace(scenes, data=data, tensors=tensors)


def test_what_is_seen_is_the_nearest_of_all_things(items):
    """Each thing alone in the same scenes: all together show the nearest of them, in its colour."""
    sampler, shown = sampler_of(items, SceneEffects(**{f.name: 0.7 for f in fields(SceneEffects)}))
    scenes = sampler.composer.draw(12)
    things = [("mesh", i) for i in range(INSTANCES)] + [("box_half", i) for i in range(BOXES)]
    things += [("capsule_radius", slice(None)), ("plane", 0), ("plane", 1)]
    for drawn in (scenes, *(only(scenes, *thing) for thing in things)):
        sampler._inputs(drawn, scenes.T_cam_obj, torch.arange(12, device=DEVICE), "refiner")
    together, alone = shown[0], shown[1:]
    z = torch.stack([torch.where(a.z > 0, a.z, torch.inf) for a in alone])
    nearest, which = z.min(0)
    torch.testing.assert_close(torch.where(nearest.isinf(), 0.0, nearest), together.z, atol=1e-5, rtol=1e-5)
    rgb = torch.stack([a.rgb for a in alone]).gather(0, which[None, ..., None].expand(1, *which.shape, 3))[0]
    target = torch.stack([a.target for a in alone]).gather(0, which[None])[0]
    assert ((rgb - together.rgb).abs().amax(-1) > 1e-3).float().mean() < 1e-3
    assert (target != together.target).float().mean() < 1e-3
    nearest_is = [things[k][0] for k in which[together.z > 0].unique()]
    assert {"mesh", "box_half", "capsule_radius", "plane"} == set(nearest_is)


def test_the_target_is_seen_where_its_true_pose_renders_it(items):
    alone = replace(TIDY, cover=0.0)
    sampler, shown = sampler_of(items, alone, 6)
    scenes = sampler.composer.draw(16)
    rendered, _, visible = sampler._inputs(scenes, scenes.T_cam_obj, torch.arange(16, device=DEVICE), "refiner")
    on = shown[0].target > 0.5
    model = (rendered[:, 3:] != 0).any(1)
    # The crop reads whole source pixels and lies half a pixel beside the rendering: outlines differ.
    assert (on & model).sum() / (on | model).sum() > 0.5
    radius = sampler.diameter[scenes.target] / 2
    z = rendered[:, 5] * radius[:, None, None] + scenes.T_cam_obj[:, 2, 3, None, None]
    both = on & model
    off = ((shown[0].z - z).abs() / radius[:, None, None])[both]
    assert off.median() < 0.05
    assert MIN_Z["refiner"] < z[both].min()
    assert 0.3 < visible.mean() <= 1.1
