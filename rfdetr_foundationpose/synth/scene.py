"""Random RGB-D scenes in batches, on the device: what the detector is trained and tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..objects import ObjectSpec
from ..pose.mesh import ObjectModel, make_object
from .crossing import BARS, put_across, random_bar
from .depth_noise import DepthNoise, add_depth_noise
from .objects import SynthObject, random_object
from .resting import MAX_POSES, resting_poses
from .scene_renderer import SURFACES, SceneRenderer, SceneSet
from .sensor import ColorSensor, expose
from .textures import Picture, calm_picture, random_palette, random_picture

Array = NDArray[np.float64]


def as_model(item: SynthObject | ObjectModel) -> ObjectModel:
    """The loaded form of a procedural object."""
    if isinstance(item, ObjectModel):
        return item
    spec = ObjectSpec(item.name, Path(item.name), discrete=item.discrete, continuous=item.continuous)
    return make_object(spec, item.mesh)


@dataclass(frozen=True)
class SceneBatch:
    """N scenes of up to M instances. Images and ids are tensors on the sampler's device.

    rgb: (N, H, W, 3) uint8. depth: (N, H, W) float32 m, noisy, 0 missing. clean_depth: the same without noise.
    instance: (N, H, W) int32, -1 background. label: (N, M) int64 index into ``names``, -1 for distractors and nothing.
    box: (N, M, 4) float32 x0, y0, x1, y1 of the visible pixels. visibility: (N, M) float32, visible share.
    T_cam_obj: (N, M, 4, 4) float64, meshes as loaded, metres. camera: (N, 4) float64 fx, fy, cx, cy.
    """

    names: tuple[str, ...]
    rgb: Tensor
    depth: Tensor
    clean_depth: Tensor
    instance: Tensor
    label: Tensor
    box: Tensor
    visibility: Tensor
    T_cam_obj: Array
    camera: Array

    @property
    def outlined(self) -> Tensor:
        """(N, M) bool: instances of which ``instance`` has the outline; all, as they are rendered."""
        return self.label >= 0

    def mask(self, scene: int, instance: int) -> Tensor:
        """(H, W) bool: visible pixels of one instance."""
        return self.instance[scene] == instance


class Assets:
    """Models, distractors and surface textures on one device, with their resting poses.

    ``models`` of the given objects come first, then ``distractors`` random objects, then ``bars``. Deterministic in ``rng``.
    """

    def __init__(
        self,
        objects: Sequence[SynthObject | ObjectModel],
        device: torch.device | str,
        rng: np.random.Generator,
        distractors: int,
        surfaces: Sequence[Picture],
        bars: int = 0,
    ) -> None:
        self.objects = [as_model(o) for o in objects]
        self.models = [*self.objects, *(as_model(random_object(rng)) for _ in range(distractors))]
        self.bars = range(len(self.models), len(self.models) + bars)
        self.models += [as_model(random_bar(rng)) for _ in self.bars]
        self.renderer = SceneRenderer([m.arrays for m in self.models], surfaces, device)
        rest = [resting_poses(m.arrays.vertices) for m in self.models]
        self.rest_rotation = np.stack([r.rotation for r in rest])
        self.rest_height = np.stack([r.height for r in rest])
        self.rest_reach = np.stack([r.reach for r in rest])
        self.rest_cumulative = np.cumsum([r.weight for r in rest], axis=1)
        self.radius = np.array([np.linalg.norm(m.arrays.vertices, axis=1).max() for m in self.models], np.float64)
        self.center = np.stack([m.center for m in self.models])


def surface_picture(rng: np.random.Generator, calm: float, size: int = 256) -> Picture:
    """A table or wall texture that tiles without a seam; calm with that probability, else any print."""
    if rng.random() < calm:
        picture = calm_picture(rng, size, size)
    else:
        palette = random_palette(rng)
        if rng.random() < 0.5:
            palette[1:] = np.clip(palette[0] + rng.normal(0, 22, (len(palette) - 1, 3)), 0, 255)
        picture = random_picture(rng, palette, size, size)
    half = picture[::2, ::2]  # mirrored halves meet without a seam
    return np.concatenate(
        [np.concatenate([half, half[:, ::-1]], 1), np.concatenate([half[::-1], half[::-1, ::-1]], 1)], 0
    )


def look_at(eye: Array, target: Array, roll: Array) -> Array:
    """(N, 4, 4) world <- camera (x right, y down, z forward) at ``eye`` (N, 3) looking at ``target`` (N, 3), rolled (N,) rad."""
    z = target - eye
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    x = np.cross(z, np.array([0.0, 0.0, 1.0]))
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    y = np.cross(z, x)
    c, s = np.cos(roll)[:, None], np.sin(roll)[:, None]
    T = np.tile(np.eye(4), (len(eye), 1, 1))
    T[:, :3, 0], T[:, :3, 1], T[:, :3, 2], T[:, :3, 3] = c * x + s * y, c * y - s * x, z, eye
    return T


def random_rooms(rng: np.random.Generator, count: int, surfaces: int) -> dict[str, NDArray[np.float64]]:
    """Room, table, surface and light fields of a SceneSet for ``count`` scenes."""
    table = np.zeros((count, 2, 3))
    half = rng.uniform(0.35, 0.8, (count, 2))
    table[:, 0, :2], table[:, 1, :2], table[:, 0, 2] = -half, half, -rng.uniform(0.02, 0.06, count)
    room = np.zeros((count, 2, 3))
    room[:, 0, :2] = -half - rng.uniform(0.9, 2.5, (count, 2))
    room[:, 1, :2] = half + rng.uniform(0.9, 2.5, (count, 2))
    room[:, 0, 2], room[:, 1, 2] = -rng.uniform(0.4, 0.9, count), rng.uniform(1.6, 2.5, count)
    light = rng.uniform(-1.0, 1.0, (count, 3)) * (1.2, 1.2, 0.0)
    light[:, 2] = rng.uniform(0.9, 1.55, count)
    ambient = rng.uniform(0.3, 0.75, count)
    level = np.stack(
        [
            ambient,
            rng.uniform(0.7, 1.2, count) - ambient * 0.5,
            rng.uniform(0.0, 0.6, count),
            np.where(rng.random(count) < 0.8, rng.uniform(0.4, 1.0, count), 0.0),
        ],
        axis=1,
    )
    return {
        "room": room,
        "table": table,
        "surface": rng.integers(surfaces, size=(count, SURFACES)),
        "tiling": np.exp(rng.uniform(np.log(0.4), np.log(3.0), (count, SURFACES))),
        "light": light,
        "tint": np.clip(1 + rng.normal(0, 0.06, (count, 3)), 0.7, 1.3),
        "level": level,
    }


@dataclass(frozen=True)
class SceneContent:
    """What is in random scenes. distractors, surfaces: how many are made to choose from. max_targets, max_distractors: in one
    scene. crossed: share of the scenes in which a bar is put across the middle of an object."""

    distractors: int = 96
    surfaces: int = 64
    max_targets: int = 6
    max_distractors: int = 8
    crossed: float = 0.0


@dataclass(frozen=True)
class Imaging:
    """How random scenes are seen. samples: rays a pixel. noise: of depth. sensor: of colour."""

    samples: int = 1
    noise: DepthNoise = field(default_factory=DepthNoise)
    sensor: ColorSensor = field(default_factory=ColorSensor)


class SceneSampler:
    """Random scenes of the given objects among distractors. ``size`` is (height, width); same seed, same scenes."""

    def __init__(
        self,
        objects: Sequence[SynthObject | ObjectModel],
        device: torch.device | str,
        size: tuple[int, int],
        seed: int,
        content: SceneContent = SceneContent(),
        imaging: Imaging = Imaging(),
    ) -> None:
        if not objects:
            raise ValueError("a scene sampler needs at least one object")
        self.size, self.max_targets = size, content.max_targets
        self.content, self.imaging = content, imaging
        self._rng = np.random.default_rng(seed)
        pictures = [surface_picture(self._rng, calm=0.4) for _ in range(content.surfaces)]
        bars = BARS if content.crossed else 0
        self.assets = Assets(objects, device, self._rng, content.distractors, pictures, bars=bars)
        self.names = tuple(m.name for m in self.assets.objects)
        self.device = self.assets.renderer.device
        self._generator = torch.Generator(device=self.device)
        self._generator.manual_seed(seed)

    def sample(self, count: int) -> SceneBatch:
        """``count`` new scenes."""
        scenes, label = self._compose(count)
        out = self.assets.renderer.render(scenes, self.size, self.imaging.samples)
        depth = add_depth_noise(out.depth, out.cosine, self.imaging.noise, self._generator)
        T_cam_mesh = np.linalg.inv(scenes.T_world_cam)[:, None] @ scenes.T_world_mesh
        offset = np.tile(np.eye(4), (*label.shape, 1, 1))
        offset[..., :3, 3] = -self.assets.center[np.maximum(scenes.mesh, 0)]
        return SceneBatch(
            names=self.names,
            rgb=expose(out.rgb, self.imaging.sensor, self._generator),
            depth=depth,
            clean_depth=out.depth,
            instance=out.instance,
            label=torch.from_numpy(label).to(self.device),
            box=out.box.float(),
            visibility=out.visibility,
            T_cam_obj=T_cam_mesh @ offset,
            camera=scenes.camera,
        )

    def _compose(self, count: int) -> tuple[SceneSet, NDArray[np.int64]]:
        rng, assets = self._rng, self.assets
        kinds = len(self.names)
        max_targets, max_distractors = self.max_targets, self.content.max_distractors
        mesh = np.full((count, max_targets + max_distractors), -1, np.int64)
        wanted = rng.integers(0 if max_distractors else 1, max_targets + 1, count)
        order = np.argsort(rng.random((count, kinds)), axis=1)
        for m in range(max_targets):
            # Mostly one of each kind; a second instance now and then, and whenever kinds run out.
            repeat = (rng.random(count) < 0.2) | (m >= kinds)
            choice = np.where(repeat, rng.integers(kinds, size=count), order[:, m % kinds])
            mesh[:, m] = np.where(m < wanted, choice, -1)
        extra = len(assets.models) - kinds - len(assets.bars)
        others = rng.integers(0, max_distractors + 1, count) if extra else np.zeros(count, np.int64)
        for m in range(max_distractors):
            mesh[:, max_targets + m] = np.where(m < others, kinds + rng.integers(max(extra, 1), size=count), -1)
        rooms = random_rooms(rng, count, assets.renderer.surface_count)
        T, mesh = place_on_table(rng, assets, mesh, spread=rng.uniform(0.12, 0.4, count), lift=0.3)
        label = np.where((mesh >= 0) & (mesh < kinds), mesh, -1)

        h, w = self.size
        focal = rng.uniform(0.75, 1.3, count) * w
        camera = np.stack(
            [
                focal,
                focal * rng.normal(1, 0.005, count),
                w / 2 + rng.normal(0, 0.01, count) * w,
                h / 2 + rng.normal(0, 0.01, count) * h,
            ],
            axis=1,
        )
        # Look somewhere between the table's middle and its first object.
        focus = T[:, 0, :3, 3] * rng.uniform(0, 1.2, (count, 1)) * (mesh[:, :1] >= 0) + rng.normal(0, 0.06, (count, 3))
        distance = np.exp(rng.uniform(np.log(0.45), np.log(1.5), count))
        azimuth, elevation = rng.uniform(0, 2 * np.pi, count), np.deg2rad(rng.uniform(12, 80, count))
        direction = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
        )
        # The camera stays inside the room: its walls close the scene.
        margin = 0.1
        eye = np.clip(focus + direction * distance[:, None], rooms["room"][:, 0] + margin, rooms["room"][:, 1] - margin)
        if self.content.crossed:
            across, there = put_across(
                rng, T[:, :max_targets], mesh[:, :max_targets], assets.radius, eye, self.content.crossed
            )
            bar = np.where(there, rng.choice(assets.bars, count), -1)
            T, mesh, label = (
                np.concatenate([a, b[:, None]], 1) for a, b in ((T, across), (mesh, bar), (label, np.full(count, -1)))
            )
        roll = rng.normal(0, 0.15, count) + np.where(rng.random(count) < 0.1, np.pi, 0.0)
        scenes = SceneSet(
            mesh=mesh,
            T_world_mesh=T,
            gloss=np.where(rng.random(mesh.shape) < 0.5, rng.random(mesh.shape), 0.2),
            camera=camera,
            T_world_cam=look_at(eye, focus, roll),
            **rooms,  # type: ignore[arg-type]
        )
        return scenes, label


def place_on_table(
    rng: np.random.Generator, assets: Assets, mesh: NDArray[np.int64], spread: Array, lift: float, tries: int = 12
) -> tuple[Array, NDArray[np.int64]]:
    """Poses (N, M, 4, 4) world <- mesh of objects standing about the origin, and ``mesh`` with -1 for those without room.

    spread: (N,) standard deviation of positions, m. lift: share of objects that hover in a random orientation instead.
    Earlier slots are placed first; bounding circles may overlap a little, so that objects touch and occlude.
    """
    count, slots = mesh.shape
    T = np.tile(np.eye(4), (count, slots, 1, 1))
    placed = np.zeros((count, slots, 3))
    reach = np.zeros((count, slots))
    result = mesh.copy()
    rows = np.arange(count)
    for m in range(slots):
        index = np.maximum(mesh[:, m], 0)
        pick = (
            (rng.random((count,))[:, None] > assets.rest_cumulative[index] + 1e-9).sum(axis=1).clip(max=MAX_POSES - 1)
        )
        R = assets.rest_rotation[index, pick]
        height = assets.rest_height[index, pick].copy()
        size = assets.rest_reach[index, pick].copy()
        hover = rng.random((count,)) < lift
        R[hover] = np.eye(3)
        free = Rotation.from_quat(rng.normal(size=(count, 4))).as_matrix()
        yaw = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi, (count, 1))).as_matrix()
        R = np.where(hover[:, None, None], free, yaw) @ R
        height[hover] = assets.radius[index][hover] + rng.exponential(0.08, (count,))[hover]
        size[hover] = assets.radius[index][hover]
        candidate = rng.normal(0, 1, (count, tries, 2)) * spread[:, None, None]
        gap = np.linalg.norm(candidate[:, :, None] - placed[:, None, :m, :2], axis=-1) - 0.8 * (
            reach[:, None, :m] + size[:, None, None]
        )
        used = result[:, None, :m] >= 0
        ok = ((gap > 0) | ~used).all(axis=2)
        first = ok.argmax(axis=1)
        result[~ok[rows, first], m] = -1
        position = np.concatenate([candidate[rows, first], height[:, None]], axis=1)
        placed[:, m], reach[:, m] = position, size
        T[:, m, :3, :3], T[:, m, :3, 3] = R, position
    return T, result
