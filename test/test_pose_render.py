"""Every renderer against analytic shapes and trimesh's ray caster; its shading against the formula."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion

from rfdetr_foundationpose.config import Config, ConfigError, iter_settings
from rfdetr_foundationpose.pose.build import make_renderer
from rfdetr_foundationpose.pose.renderer import Renderer, Rendering, Views
from support.pose_scenes import object_of, random_pose, textured_box

CAMERA = (600.0, 610.0, 40.0, 30.0)
SIZE = (60, 80)


NEED_A_GPU = ("nvdiffrast",)
(RENDERERS,) = (s.choices for s in iter_settings(Config()) if s.path == "pose.renderer")


@pytest.fixture(params=RENDERERS)
def renderer(request) -> Callable[..., Renderer]:
    """Makes the renderer that a value of the setting names."""
    name = request.param
    on_gpu = name in NEED_A_GPU
    if on_gpu and not (torch.cuda.is_available() and importlib.util.find_spec(name)):
        pytest.skip(f"{name} is not installed, or there is no GPU")
    return lambda *items: make_renderer(name, items, torch.device("cuda" if on_gpu else "cpu"))


@pytest.fixture
def render(renderer):
    """Renders one object."""

    def made(
        item, T: np.ndarray, window: tuple[float, float, float, float] = (0, 0, 80, 60), size: tuple[int, int] = SIZE
    ) -> Rendering:
        n = T.size // 16
        return rendering(renderer(item), T, [0] * n, window, size)

    return made


def rendering(
    renderer: Renderer, T: np.ndarray, models: list[int], window: tuple[float, ...], size: tuple[int, int]
) -> Rendering:
    """On the CPU."""
    device = getattr(renderer, "device", "cpu")
    views = Views(
        torch.tensor(T, dtype=torch.float32, device=device).reshape(-1, 4, 4),
        torch.tensor(models, dtype=torch.int32, device=device),
        torch.tensor([window], dtype=torch.float32, device=device).repeat(len(models), 1),
        torch.tensor([CAMERA], device=device),
    )
    made = renderer.render(views, size)
    return Rendering(made.rgb.cpu(), made.xyz.cpu(), made.normal.cpu(), made.mask.cpu())


def rays(window: tuple[float, float, float, float] = (0, 0, 80, 60), size=SIZE) -> np.ndarray:
    """(R, C, 3) directions at depth 1 through the pixel centres of a window."""
    u = window[0] + (np.arange(size[1]) + 0.5) * (window[2] - window[0]) / size[1]
    v = window[1] + (np.arange(size[0]) + 0.5) * (window[3] - window[1]) / size[0]
    u, v = np.meshgrid(u, v)
    return np.stack([(u - CAMERA[2]) / CAMERA[0], (v - CAMERA[3]) / CAMERA[1], np.ones_like(u)], -1)


def test_sphere_against_its_formula(render):
    item = object_of(trimesh.creation.icosphere(subdivisions=6, radius=0.03))
    T = np.eye(4)
    T[:3, 3] = [0.004, -0.003, 0.8]
    image = render(item, T)
    d = rays()
    a, b = (d * d).sum(-1), -2 * d @ T[:3, 3]
    c = T[:3, 3] @ T[:3, 3] - 0.03**2
    disc = b * b - 4 * a * c
    mask = disc > 0
    z = np.where(mask, (-b - np.sqrt(np.maximum(disc, 0))) / (2 * a), 0)
    found = image.mask[0].numpy()
    inside = binary_erosion(mask) & found
    assert np.abs(image.xyz[0, ..., 2].numpy() - z)[inside].max() < 1e-4
    assert (found & ~binary_dilation(mask)).sum() == 0
    assert (binary_erosion(mask) & ~found).sum() == 0
    normal = (image.xyz[0].numpy() - T[:3, 3])[inside] / 0.03
    assert np.abs(image.normal[0].numpy()[inside] - normal).max() < 0.02


def test_tilted_plane_against_its_formula(render):
    item = object_of(trimesh.creation.box((2.0, 2.0, 0.001)))
    T = np.eye(4)
    T[:3, :3] = trimesh.transformations.rotation_matrix(0.6, [1, 0.3, 0])[:3, :3]
    T[:3, 3] = [0, 0, 1.5]
    image = render(item, T)
    n = T[:3, 2] if T[2, 2] < 0 else -T[:3, 2]
    point = T[:3, 3] + n * 0.0005
    z = (n @ point) / (rays() @ n)
    assert image.mask.all()
    assert np.abs(image.xyz[0, ..., 2].numpy() - z).max() < 1e-4
    np.testing.assert_allclose(image.xyz[0].numpy(), rays() * z[..., None], atol=1e-4)


def test_depth_and_silhouette_equal_trimesh_ray_casting(render):
    mesh = trimesh.util.concatenate(
        [
            trimesh.creation.torus(0.03, 0.01),
            trimesh.creation.box((0.02, 0.05, 0.04)).apply_translation((0.02, 0, 0.02)),
        ]
    )
    item = object_of(mesh)
    window = (12.0, 5.0, 68.0, 55.0)
    poses = np.stack([random_pose(i, 0.9) for i in range(3)])
    poses[:, :3, 3] = [0.002, 0.001, 0.9]
    images = render(item, poses, window, (40, 40))
    directions = rays(window, (40, 40)).reshape(-1, 3)
    for T, xyz, found in zip(poses, images.xyz.numpy(), images.mask.numpy(), strict=True):
        posed = trimesh.Trimesh(item.arrays.vertices @ T[:3, :3].T + T[:3, 3], item.arrays.faces, process=False)
        points, ray, _ = posed.ray.intersects_location(np.zeros_like(directions), directions, multiple_hits=False)
        z = np.zeros(1600)
        z[ray] = points[:, 2]
        z = z.reshape(40, 40)
        mask = z > 0
        assert 50 < mask.sum() < 1500
        both = mask & found
        assert np.percentile(np.abs(xyz[..., 2] - z)[both], 99) < 1e-4
        assert (found & ~binary_dilation(mask)).sum() == 0
        assert (mask & ~binary_dilation(found)).sum() == 0


def test_shading_of_vertex_colours(render):
    mesh = trimesh.creation.box((0.2, 0.2, 0.02))
    mesh.visual.vertex_colors = np.tile([100, 50, 200, 255], (8, 1))
    mesh.unmerge_vertices()
    T = np.eye(4)
    T[:3, 3] = [0, 0, 1.0]
    for angle, diffuse in ((0.0, 1.0), (1.0, np.cos(1.0))):
        T[:3, :3] = trimesh.transformations.rotation_matrix(angle, [1, 0, 0])[:3, :3]
        rgb = render(object_of(mesh), T).rgb[0, 30, 40].numpy()
        expected = np.minimum(np.array([100, 50, 200]) / 255 * (0.8 + 0.5 * diffuse), 1)
        np.testing.assert_allclose(rgb, expected, atol=2e-3)


def test_texture_is_upright_and_bilinear(render):
    texture = np.zeros((2, 2, 3), np.uint8)
    texture[0, 0], texture[0, 1], texture[1, 0], texture[1, 1] = [190, 0, 0], [0, 190, 0], [0, 0, 190], [190, 190, 190]
    vertices = np.array([[-1, 1, 0], [1, 1, 0], [1, -1, 0], [-1, -1, 0]]) * 0.05
    visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], image=Image.fromarray(texture))
    mesh = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    item = object_of(mesh)
    assert item.color_source == "texture"
    T = np.eye(4)
    T[:3, 3] = [0, 0, 1.5]
    rgb = render(item, T).rgb[0].numpy() / 1.3
    # v is up: image row 0 is at y = -0.05, v = 1. Texel centres are at half integers.
    x, y = (30.5 - 40) / 600 * 1.5, (20.5 - 30) / 610 * 1.5
    column, row = (x + 0.05) / 0.1 * 2 - 0.5, (y + 0.05) / 0.1 * 2 - 0.5
    weights = np.outer([1 - row, row], [1 - column, column])
    np.testing.assert_allclose(rgb[20, 30], np.einsum("ij,ijc->c", weights, texture / 255), atol=3e-3)
    np.testing.assert_allclose(rgb[30, 40], texture.reshape(4, 3).mean(0) / 255, atol=0.05)


def test_background_is_zero_and_models_are_told_apart(renderer):
    made = renderer(object_of(textured_box()), object_of(trimesh.creation.icosphere(radius=0.02)))
    T = np.eye(4)[None].repeat(2, 0)
    T[:, 2, 3] = 1.0
    image = rendering(made, T, [0, 1], (0, 0, 80, 60), SIZE)
    assert image.mask[0].sum() > 2 * image.mask[1].sum() > 0
    for values in (image.rgb, image.xyz, image.normal):
        assert values[~image.mask].abs().max() == 0


@pytest.mark.parametrize("name", [*NEED_A_GPU, "opengl"])
def test_a_renderer_that_cannot_run_is_refused_with_what_to_set(name):
    with pytest.raises(ConfigError, match=rf"pose\.renderer='?{name}.* warp"):
        make_renderer(name, [object_of(textured_box())], torch.device("cpu"))
