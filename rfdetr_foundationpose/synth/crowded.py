"""The held-out set ``crowded``: things packed against each other, of shapes and textures that no training draws.

Figures over it say how well weights hold where an object is touched and hidden by its neighbours, and where the depth camera
is worse than the one that trainings of the table scenes assume.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, cKDTree
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..pose.mesh import ObjectModel
from .depth_noise import DepthNoise
from .objects import SynthObject, layout, placed, textured_mesh
from .scene import Imaging, SceneBatch, SceneContent, SceneSampler, look_at, random_rooms
from .scene_renderer import SceneSet
from .shapes import Array, Solid, Surface, box, extrude, grid, outward, shift_regions, subdivide, transform, tube
from .textures import Picture, random_palette

NEIGHBOURS = 7
WALL, TABLE_EDGE, OWN_KIND = 0.25, 0.25, 0.2
"""These shares of the scenes have a wall, or the table's edge, right behind the object, and of the neighbours are of its kind."""
MOST_LARGER = 2.5
"""No neighbour is so many times larger or smaller than the object."""
NOISE = DepthNoise(scale=1.3, dropout=0.01, edge_jitter=1.0)
_TEXTURE = 256
_DIRECTIONS = 24
_PENETRATION = 0.003


def _ring(rng: np.random.Generator) -> list[Solid]:
    thick, flat = rng.uniform(0.08, 0.22), rng.uniform(0.4, 1.0)
    u, v = np.meshgrid(np.linspace(0, 2 * np.pi, 41), np.linspace(0, 2 * np.pi, 17), indexing="ij")
    r = 0.5 - thick + thick * np.cos(v)
    return [outward([grid(np.stack([r * np.cos(u), r * np.sin(u), flat * thick * np.sin(v)], -1))])]


def _scissors(rng: np.random.Generator) -> list[Solid]:
    parts = []
    opening, thick = rng.uniform(0.15, 0.6), rng.uniform(0.02, 0.04)
    for side in (-1, 1):
        blade = np.array([[0.0, 0.03], [0.55, 0.0], [0.0, -0.05], [-0.35, -0.03], [-0.35, 0.03]])
        angle = np.linspace(0, 2 * np.pi, 25)[:-1]
        size = rng.uniform(0.07, 0.13)
        handle = np.stack([size * np.cos(angle) - 0.35 - size, 0.7 * size * np.sin(angle)], 1)
        turn = Rotation.from_euler("z", side * opening / 2).as_matrix()
        parts += [transform(extrude(polygon, thick, 1), turn, (0, 0, side * thick / 2)) for polygon in (blade, handle)]
    return parts


def _crystal(rng: np.random.Generator) -> list[Solid]:
    points = rng.normal(size=(int(rng.integers(9, 18)), 3)) * rng.uniform(0.5, 1.0, 3)
    hull = ConvexHull(points)
    surfaces: Solid = []
    for triangle, plane in zip(hull.simplices, hull.equations, strict=True):
        corners = points[triangle]
        if np.cross(corners[1] - corners[0], corners[2] - corners[0]) @ plane[:3] < 0:
            corners = corners[::-1]
        uv = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 1.0]])
        surfaces.append(Surface(corners, np.array([[0, 1, 2]]), uv, len(surfaces) % 12))
    return [surfaces]


def _stairs(rng: np.random.Generator) -> list[Solid]:
    parts, size, height = [], np.array([1.0, rng.uniform(0.5, 1.0)]), 0.0
    shift = np.zeros(2)
    for _ in range(int(rng.integers(3, 6))):
        rise = rng.uniform(0.1, 0.3)
        parts.append(transform(box((*size, rise), 3), None, (*shift, height + rise / 2)))
        height += rise
        smaller = size * rng.uniform(0.55, 0.85, 2)
        shift = shift + (size - smaller) / 2 * rng.uniform(-1, 1, 2)
        size = smaller
    return parts


def _crate(rng: np.random.Generator) -> list[Solid]:
    x, y, z = 1.0, rng.uniform(0.5, 1.0), rng.uniform(0.3, 0.8)
    wall = rng.uniform(0.03, 0.08)
    front = z * rng.uniform(0.4, 1.0)
    return [
        box((x, y, wall), 4),
        transform(box((wall, y, z), 4), None, ((wall - x) / 2, 0, z / 2)),
        transform(box((wall, y, front), 4), None, ((x - wall) / 2, 0, front / 2)),
        transform(box((x, wall, z), 4), None, (0, (wall - y) / 2, z / 2)),
        transform(box((x, wall, z), 4), None, (0, (y - wall) / 2, z / 2)),
    ]


def _spring(rng: np.random.Generator) -> list[Solid]:
    turns, height = rng.uniform(2.0, 4.5), rng.uniform(0.5, 1.3)
    s = np.linspace(0, 1, int(24 * turns))
    radius = 0.35 * (1 + rng.uniform(-0.5, 0.5) * s)
    angle = 2 * np.pi * turns * s
    path = np.stack([radius * np.cos(angle), radius * np.sin(angle), height * s], 1)
    return [tube(path, rng.uniform(0.04, 0.09), 8)]


def _jack(rng: np.random.Generator) -> list[Solid]:
    parts = []
    for axis in np.eye(3):
        ends = np.linspace(-rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.8), 8)
        parts.append(tube(ends[:, None] * axis, rng.uniform(0.04, 0.13), 14))
    return parts


FAMILIES: tuple[Callable[[np.random.Generator], list[Solid]], ...] = (
    _ring,
    _scissors,
    _crystal,
    _stairs,
    _crate,
    _spring,
    _jack,
)
"""None of them is in ``families.FAMILIES``, which trainings draw from."""


def mosaic(rng: np.random.Generator, size: int) -> Picture:
    """(size, size, 3) uint8: cells of few colours with joints between them, as no training's texture has them."""
    palette = random_palette(rng, 5)
    seeds = rng.random((int(rng.integers(8, 60)), 2))
    grid_ = (np.stack(np.meshgrid(*[np.arange(size)] * 2, indexing="ij"), -1) + 0.5) / size
    distance, cell = cKDTree(seeds).query(grid_.reshape(-1, 2), k=2)
    nearest, distances = np.asarray(cell), np.asarray(distance)
    color = palette[rng.integers(len(palette), size=len(seeds))][nearest[:, 0]]
    color[distances[:, 1] - distances[:, 0] < rng.uniform(0.0, 0.02)] = palette[0] * 0.4
    return np.clip(color, 0, 255).astype(np.uint8).reshape(size, size, 3)


def crowded_object(rng: np.random.Generator, name: str | None = None) -> SynthObject:
    """One object of 4 to 40 cm; its texture leaves it without symmetry. Deterministic in ``rng``."""
    parts = FAMILIES[int(rng.integers(len(FAMILIES)))](rng)
    numbered, offset = [], 0
    for part in parts:
        part = subdivide(part, 0.0, levels=1)
        numbered.append(shift_regions(part, offset))
        offset += 1 + max(s.region for s in part)
    rects = layout(offset, big_first=False)
    picture = mosaic(rng, 2 * _TEXTURE)
    tiles = []
    for x0, y0, x1, y1 in rects:
        side = np.maximum((np.array([y1 - y0, x1 - x0]) * _TEXTURE).astype(int), 4)
        v, u = (int(rng.integers(0, 2 * _TEXTURE - s + 1)) for s in side)
        cut = picture[v : v + side[0], u : u + side[1]]
        tiles.append(np.asarray(cv2.flip(cut, int(rng.integers(-1, 2))), np.uint8))
    mesh = textured_mesh(numbered, rects, tiles, _TEXTURE)
    return placed(rng, name or f"crowded_{int(rng.integers(2**31))}", mesh, (), ())


class CrowdedSampler(SceneSampler):
    """Scenes of one object among neighbours that touch it, on a table. ``size`` is (height, width); same seed, same scenes.

    Only the object in the middle has a label. Its neighbours are of the same objects, a fifth of them of its own kind.
    """

    def __init__(
        self, objects: Sequence[SynthObject | ObjectModel], device: torch.device | str, size: tuple[int, int], seed: int
    ) -> None:
        super().__init__(objects, device, size, seed, SceneContent(distractors=0), Imaging(noise=NOISE))
        self._corners = [
            np.asarray(m.arrays.vertices, np.float64)[ConvexHull(m.arrays.vertices, qhull_options="QJ").vertices]
            for m in self.assets.objects
        ]
        ratio = self.assets.radius[: len(self.names), None] / self.assets.radius[: len(self.names)]
        self._company = [np.flatnonzero((r > 1 / MOST_LARGER) & (r < MOST_LARGER)) for r in ratio]

    def sample(self, count: int) -> SceneBatch:
        batch = super().sample(count)
        return replace(batch, depth=self._worse(batch.depth))

    def _worse(self, depth: Tensor) -> Tensor:
        """Depth that grows over edges, is mixed between near and far there, lies beside colour, and has a wrong scale."""
        n = len(depth)

        def uniform(low: float, high: float) -> Tensor:
            return torch.rand(n, 1, 1, generator=self._generator, device=self.device) * (high - low) + low

        far = torch.where(depth > 0, depth, torch.full_like(depth, torch.inf))
        near = -F.max_pool2d(-far[:, None], 3, 1, 1)[:, 0]
        near = torch.where(torch.isfinite(near) & (depth > 0), near, depth)
        mean = F.avg_pool2d(depth[:, None], 3, 1, 1)[:, 0]
        edge = (depth > 0) & (near < depth - 0.015)
        kind = uniform(0, 1)
        depth = torch.where((kind < 0.35) & edge, near, depth)
        depth = torch.where((kind >= 0.35) & (kind < 0.6) & edge, mean, depth)
        depth = depth * (1 + uniform(-0.005, 0.005)) * (depth > 0)
        shift = torch.randint(-2, 3, (n, 2), generator=self._generator, device=self.device).tolist()
        return torch.stack([torch.roll(d, s, (0, 1)) for d, s in zip(depth, shift, strict=True)])

    def _compose(self, count: int) -> tuple[SceneSet, NDArray[np.int64]]:
        rng, assets = self._rng, self.assets
        slots = 1 + NEIGHBOURS
        mesh = rng.integers(len(self.names), size=(count, slots))
        for i, target in enumerate(mesh[:, 0]):
            mesh[i, 1:] = rng.choice(self._company[target], NEIGHBOURS)
        mesh = np.where(rng.random((count, slots)) < OWN_KIND, mesh[:, :1], mesh)
        rooms = random_rooms(rng, count, assets.renderer.surface_count)
        T = np.tile(np.eye(4), (count, slots, 1, 1))
        focus = np.zeros((count, 3))
        for i in range(count):
            wall = rng.random() < WALL
            edge = not wall and rng.random() < TABLE_EDGE
            T[i], present, behind = self._pack(rng, mesh[i], rng.uniform(0.5, 1.0), wall)
            mesh[i, ~present] = -1
            focus[i] = T[i, 0, :3, 3]
            # The wall, or the edge of the table, is on the side of +x.
            if wall:
                rooms["room"][i, 1, 0] = behind
            if wall or edge:
                rooms["table"][i, 1, 0] = behind
        label = np.where(np.arange(slots) == 0, mesh, -1)

        h, w = self.size
        focal = rng.uniform(0.75, 1.5, count) * w
        middle = np.stack([w / 2 + rng.normal(0, 0.01, count) * w, h / 2 + rng.normal(0, 0.01, count) * h], 1)
        camera = np.column_stack([focal, focal * rng.normal(1, 0.005, count), middle])
        radius = assets.radius[mesh[:, 0]]
        distance = np.clip(radius * np.exp(rng.uniform(np.log(5), np.log(16), count)), 0.3, 1.5)
        azimuth, elevation = np.pi + rng.uniform(-1.2, 1.2, count), np.deg2rad(rng.uniform(12, 75, count))
        direction = np.stack(
            [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], 1
        )
        eye = np.clip(focus + direction * distance[:, None], rooms["room"][:, 0] + 0.1, rooms["room"][:, 1] - 0.02)
        target = focus + rng.normal(0, 0.5, (count, 3)) * radius[:, None]
        scenes = SceneSet(
            mesh=mesh,
            T_world_mesh=T,
            gloss=np.where(rng.random(mesh.shape) < 0.5, rng.random(mesh.shape), 0.2),
            camera=camera,
            T_world_cam=look_at(eye, target, rng.normal(0, 0.2, count)),
            **rooms,  # type: ignore[arg-type]
        )
        return scenes, label

    def _pack(
        self, rng: np.random.Generator, mesh: NDArray[np.int64], share: float, wall: bool
    ) -> tuple[Array, NDArray[np.bool_], float]:
        """Poses (M, 4, 4) world <- mesh, which things there are (M,), and where on the x axis the first one's place ends.

        Each neighbour is moved along a horizontal direction until it touches the first object; it is left out where another
        one, or the wall, already is.
        """
        assets = self.assets
        angle = np.linspace(0, np.pi, _DIRECTIONS, endpoint=False)
        axes = np.stack([np.cos(angle), np.sin(angle)], 1)
        T = np.tile(np.eye(4), (len(mesh), 1, 1))
        spans: list[tuple[Array, Array]] = []
        present = np.zeros(len(mesh), np.bool_)
        behind = np.inf
        start = rng.uniform(0, 2 * np.pi)
        for m, index in enumerate(mesh):
            pick = int(
                rng.choice(len(assets.rest_height[index]), p=np.diff(assets.rest_cumulative[index], prepend=0.0))
            )
            R = Rotation.from_euler("z", rng.uniform(0, 2 * np.pi)).as_matrix() @ assets.rest_rotation[index, pick]
            corners = self._corners[index] @ R.T
            T[m, :3, :3], T[m, 2, 3] = R, assets.rest_height[index, pick]
            if m:
                turn = start + 2 * np.pi * m / NEIGHBOURS + rng.normal(0, 0.2)
                d = np.array([np.cos(turn), np.sin(turn)])
                first = self._corners[mesh[0]] @ T[0, :3, :3].T
                gap = 0.0 if rng.random() < 0.7 else rng.uniform(0, 0.3) * assets.radius[mesh[0]]
                T[m, :2, 3] = d * ((first[:, :2] @ d).max() + (-corners[:, :2] @ d).max() + gap + 0.0005)
            along = (corners[:, :2] + T[m, :2, 3]) @ axes.T
            span = (along.min(0), along.max(0))
            apart = [max((span[0] - high).max(), (low - span[1]).max()) for low, high in spans[1:]]
            if m == 0:
                behind = float(span[1][0]) + rng.uniform(0.0, 0.02)
            elif rng.random() > share or min(apart, default=0.0) < -_PENETRATION or (wall and span[1][0] > behind):
                continue
            present[m] = True
            spans.append(span)
        return T, present, behind
