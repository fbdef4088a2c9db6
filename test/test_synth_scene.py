"""Generated scenes: depth lies on the posed meshes, ids, masks, boxes and visibility agree, and seeds repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.depth_noise import DepthNoise, add_depth_noise
from rfdetr_foundationpose.synth.resting import resting_poses
from rfdetr_foundationpose.synth.scene import SceneBatch, SceneContent, SceneSampler
from rfdetr_foundationpose.synth.sensor import ColorSensor, expose

SIZE = (120, 160)


@pytest.fixture(scope="module")
def sampler() -> SceneSampler:
    return SceneSampler(demo_objects(), "cpu", SIZE, 3, SceneContent(8, 8))


@pytest.fixture(scope="module")
def batch(sampler: SceneSampler) -> SceneBatch:
    return sampler.sample(12)


def unproject(depth: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """(H, W, 3) points of depth at integer pixel centres."""
    v, u = np.mgrid[0 : depth.shape[0], 0 : depth.shape[1]]
    fx, fy, cx, cy = camera
    return np.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], axis=-1)


def surface_distance(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    """Exact distance of (P, 3) points to a mesh: every point against every triangle, no acceleration structure."""
    triangles = np.asarray(mesh.triangles)
    best = np.empty(len(points))
    for i, point in enumerate(points):
        nearest = trimesh.triangles.closest_point(triangles, np.broadcast_to(point, (len(triangles), 3)))
        best[i] = np.linalg.norm(nearest - point, axis=1).min()
    return best


def cast(mesh: trimesh.Trimesh, rays: np.ndarray) -> np.ndarray:
    """Depth (R,) at which rays (R, 3) with z = 1 from the origin meet a mesh, inf for none (Moeller and Trumbore)."""
    a, b, c = (np.asarray(mesh.triangles)[:, i] for i in range(3))
    e1, e2 = b - a, c - a
    p = np.cross(rays[:, None], e2[None])
    det = np.einsum("fk,rfk->rf", e1, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("fk,rfk->rf", -a, p) / det
        q = np.cross(-a, e1)
        v = rays @ q.T / det
        t = np.einsum("fk,fk->f", e2, q)[None] / det
        hit = (np.abs(det) > 1e-14) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    return np.where(hit, t, np.inf).min(axis=1)


def test_unprojected_depth_lies_on_the_posed_meshes(batch: SceneBatch) -> None:
    meshes = {o.name: o.mesh for o in demo_objects()}
    checked = 0
    for s in range(len(batch.rgb)):
        points = unproject(batch.clean_depth[s].numpy().astype(np.float64), batch.camera[s])
        for m in np.flatnonzero(batch.label[s].numpy() >= 0):
            seen = points[batch.mask(s, m).numpy()]
            seen = seen[:: len(seen) // 25 + 1]
            if len(seen) < 5:
                continue
            T = np.linalg.inv(batch.T_cam_obj[s, m])
            local = seen @ T[:3, :3].T + T[:3, 3]
            mesh = meshes[batch.names[int(batch.label[s, m])]]
            assert surface_distance(mesh, local).max() < 1e-4
            checked += len(seen)
    assert checked > 200


def test_depth_is_the_nearest_surface_of_an_independent_ray_caster(batch: SceneBatch) -> None:
    """Each object alone, cast in float64: nowhere nearer than the scene's depth, and hit wherever the id says so."""
    meshes = {o.name: o.mesh for o in demo_objects()}
    compared = 0
    for s in range(4):
        rays = unproject(np.ones(SIZE), batch.camera[s])[::4, ::4].reshape(-1, 3)
        depth = batch.clean_depth[s].numpy()[::4, ::4].reshape(-1)
        ids = batch.instance[s].numpy()[::4, ::4].reshape(-1)
        for m in np.flatnonzero(batch.label[s].numpy() >= 0):
            mesh = meshes[batch.names[int(batch.label[s, m])]].copy()
            mesh.apply_transform(batch.T_cam_obj[s, m])
            z = cast(mesh, rays)
            visible = ids == m
            # A ray along a silhouette may pass on either side in float32.
            both = visible & np.isfinite(z)
            assert both.sum() >= 0.97 * visible.sum()
            assert (np.abs(z[both] - depth[both]) < 1e-4).sum() >= 0.97 * both.sum()
            assert (np.isfinite(z) & (z < depth - 1e-3)).sum() <= 2
            compared += int(both.sum())
    assert compared > 50


def test_ids_boxes_and_visibility_agree(batch: SceneBatch) -> None:
    shown = 0
    for s in range(len(batch.rgb)):
        present = set(torch.unique(batch.instance[s]).tolist()) - {-1}
        for m in range(batch.label.shape[1]):
            mask = batch.mask(s, m).numpy()
            assert (m in present) == bool(mask.any())
            if not mask.any():
                assert batch.visibility[s, m] == 0 and batch.box[s, m].tolist() == [0, 0, 0, 0]
                continue
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            assert batch.box[s, m].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            assert 0 < batch.visibility[s, m] <= 1
            shown += 1
    assert shown > 20
    assert int((batch.label >= 0).sum()) > 12
    fully = batch.visibility[batch.label >= 0]
    assert (fully > 0.95).any() and ((fully > 0.05) & (fully < 0.9)).any()


def test_same_seed_same_scenes_other_seed_other_scenes() -> None:
    def first(seed: int) -> SceneBatch:
        return SceneSampler(demo_objects()[:2], "cpu", (48, 64), seed, SceneContent(3, 3)).sample(3)

    a, b, c = first(1), first(1), first(2)
    for name in ("rgb", "depth", "instance", "box", "visibility"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert np.array_equal(a.T_cam_obj, b.T_cam_obj)
    assert not torch.equal(a.rgb, c.rgb)


def test_depth_noise_has_the_stated_spread_and_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = DepthNoise(dropout=0.0)
    for z in (0.5, 1.0, 2.0):
        depth = torch.full((2, 200, 200), z)
        out = add_depth_noise(depth, torch.ones_like(depth), noise, generator)
        assert (out > 0).all()
        error = out - depth
        sigma = float(noise.sigma(torch.tensor(z)))
        assert abs(float(error.mean())) < 0.1 * sigma + 1e-4
        assert float(error.std()) == pytest.approx(np.hypot(sigma, 0.001 / 12**0.5), rel=0.1)
        assert torch.allclose((out * 1000).round() / 1000, out, atol=1e-6)
    far, near = noise.sigma(torch.tensor(2.0)), noise.sigma(torch.tensor(0.5))
    assert far > 3 * near


def test_depth_is_lost_at_edges_grazing_angles_and_range() -> None:
    generator = torch.Generator().manual_seed(0)
    depth = torch.full((1, 100, 100), 1.0)
    depth[:, :, 50:] = 1.5
    cosine = torch.ones_like(depth)
    cosine[:, :20] = 0.03
    cosine[:, 20:40] = 0.15
    out = add_depth_noise(depth, cosine, DepthNoise(dropout=0.0), generator)[0]
    assert (out[:20] == 0).all()
    assert 0.05 < float((out[20:40, :45] == 0).float().mean()) < 0.95
    assert (out[42:, :45] > 0).all()
    assert 0.2 < float((out[42:, 49:51] == 0).float().mean()) < 0.8
    assert (add_depth_noise(depth * 5, torch.ones_like(depth), DepthNoise(), generator)[:, 45:, 60:] == 0).all()
    # A steep plane, whose depth changes much from pixel to pixel, is no edge.
    slanted = 1 / torch.linspace(0.5, 1.0, 100)[None, :, None].expand(1, 100, 100)
    whole = add_depth_noise(slanted.contiguous(), torch.ones(1, 100, 100), DepthNoise(dropout=0.0), generator)
    assert (whole > 0).all()
    holes = add_depth_noise(torch.ones(1, 200, 200), torch.ones(1, 200, 200), DepthNoise(dropout=0.02), generator)
    assert 0.005 < float((holes == 0).float().mean()) < 0.05


def test_color_sensor_noise_blur_and_exposure() -> None:
    generator = torch.Generator().manual_seed(0)
    grey = torch.full((2, 100, 100, 3), 0.5)
    fixed = ColorSensor(exposure=(1.2, 1.2), balance=0.0, blur=(0.5, 0.5), noise=(0.02, 0.02), vignette=0.0)
    out = expose(grey, fixed, generator).float() / 255
    assert float(out.mean()) == pytest.approx(0.6, abs=0.005)
    assert float(out.std()) == pytest.approx(0.02 * (0.3 + 0.7 * 0.6**0.5), rel=0.15)
    step = torch.zeros(1, 20, 20, 3)
    step[:, :, 10:] = 1.0
    clean = ColorSensor(exposure=(1.0, 1.0), balance=0.0, blur=(0.8, 0.8), noise=(0.0, 0.0), vignette=0.0)
    edge = expose(step, clean, generator)[0, 10, :, 0].tolist()
    assert edge[:8] == [0] * 8 and edge[12:] == [255] * 8 and 0 < edge[9] < 128 < edge[10] < 255


def test_resting_poses_stand_on_the_table() -> None:
    for o in demo_objects():
        vertices = np.asarray(o.mesh.vertices) - o.mesh.bounds.mean(axis=0)
        rest = resting_poses(vertices)
        assert rest.weight.sum() == pytest.approx(1)
        for R, h, reach, weight in zip(rest.rotation, rest.height, rest.reach, rest.weight, strict=True):
            if weight == 0:
                continue
            standing = vertices @ R.T + (0, 0, h)
            assert np.linalg.det(R) == pytest.approx(1)
            assert standing[:, 2].min() == pytest.approx(0, abs=1e-9)
            # At least three corners touch, or the surface there is round.
            assert (standing[:, 2] < 0.003).sum() >= 3
            assert reach >= np.linalg.norm(standing[:, :2], axis=1).max() - 1e-9
    upright = resting_poses(np.asarray(demo_objects()[0].mesh.vertices))
    assert upright.weight.argmax() == 0 and upright.height[0] == pytest.approx(0.03, abs=1e-6)


def test_a_sampler_without_objects_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one object"):
        SceneSampler([], "cpu", SIZE, 0)


@pytest.mark.gpu
def test_cuda_and_cpu_render_the_same_scene() -> None:
    first, second = (SceneSampler(demo_objects(), d, SIZE, 5, SceneContent(4, 4)) for d in ("cpu", "cuda"))
    try:
        a = first.sample(4)
    except AttributeError:
        pytest.skip("this Warp has no CPU backend (warp-clang)")
    b = second.sample(4)
    same = a.instance == b.instance.cpu()
    assert same.float().mean() > 0.999
    assert ((a.clean_depth - b.clean_depth.cpu()).abs()[same] < 1e-3).float().mean() > 0.999
    assert np.allclose(a.T_cam_obj, b.T_cam_obj)
