"""Depth images with known camera poses fused into one coloured surface.

A truncated signed distance volume (Curless and Levoy 1996), in which what nobody saw to be free counts as inside: the
surface is closed, and what was not seen is filled as far as the views and the convex hull of what they saw leave it open.
Marching cubes are Warp's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
import warp as wp
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError, cKDTree

from ..types import CameraIntrinsics
from ..warp_setup import launch, warp_device
from . import fusion_kernels as kernels
from .shading import PAPER, Light

EDGE_STEP = 0.008
"""Pixels beside a step of depth of so many metres are mixed of both sides and left out."""
MIXED_PIXELS = 2
"""The colour of pixels so near to such a step is taken only where no view has a better one."""
AROUND, NEAR = (24, 300), 0.003
"""What no view saw well gets the median colour of so many of the nearest points that one did: of few where there is one within
so many metres, so that thin things keep their colour, else of many: the ground of a print, not its lines."""
SURE, DOUBT = 0.03, 0.004
"""Weights of colours, 1/m^2: what has less than the first is mixed with the colours around it, which count as the second. A view
at half a metre that faces the surface has 4, one that sees it at 70 degrees 0.06, a pixel mixed of two things a thousandth."""
PIT = 0.008
"""m; a hole in what stands on the board that is narrower is a floor so thin that the noise of depth goes through it."""
MOST_VOXELS = 12_000_000

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """rgb: (H, W, 3) uint8. depth: (H, W) float32, m, 0 for none, negative for what is not the object. T_cam_board: (4, 4).

    white: (3,) colour of the board's paper in it, by which exposure and white balance are taken out; None: as they are.
    light: what shaded the object, in the frame of the volume; one and the same for all views of a pass. None: nothing known.
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    camera: CameraIntrinsics
    T_cam_board: Array
    white: Array | None = None
    light: Light | None = None


@dataclass(frozen=True)
class Surface:
    """mesh: in the board's frame, metres, with vertex colours. views: (V,) so many views saw each vertex well. gain: by which
    its colours were darkened to stay below white."""

    mesh: trimesh.Trimesh
    views: NDArray[np.int32]
    gain: float = 1.0


def without_edges(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth with 0 where a pixel lies beside a step."""
    away = np.abs(depth)
    valid = away > 0
    high = cv2.dilate(away, np.ones((3, 3), np.uint8))
    low = cv2.erode(np.where(valid, away, np.float32(1e3)), np.ones((3, 3), np.uint8))
    return np.where(valid & (high - low < EDGE_STEP), depth, np.float32(0))


def fuse(
    views: Sequence[View],
    low: Array,
    high: Array,
    voxel: float,
    floor: float | None = None,
    device: str = "cpu",
    boards: Sequence[Array] = (),
) -> Surface:
    """The surface between the corners ``low`` and ``high`` (board frame, m) at a resolution of ``voxel`` m.

    floor: height above the board up to which the board itself is taken for what is seen; below it the surface goes
    straight down. None: nothing but the object has positive depth. boards: (4, 4) volume <- board, of boards that the object
    stood on: nothing of it is below them. Raises ValueError when nothing is left.
    """
    count = np.ceil((high - low) / voxel).astype(int) + 1
    place = warp_device(device)
    distance = wp.full(tuple(int(n) for n in count), value=1.0, dtype=wp.float32, device=place)
    weight = wp.zeros(tuple(int(n) for n in count), dtype=wp.float32, device=place)
    band = 4 * voxel
    for view in views:
        depth = wp.array(without_edges(view.depth), dtype=wp.float32, device=place)
        launch(
            kernels.integrate,
            distance.shape,
            [depth, _camera(view), wp.mat44f(view.T_cam_board), wp.vec3f(*low), voxel, band, distance, weight],
            device,
        )
    field = closed(distance.numpy(), weight.numpy(), 0 if floor is None else int(np.ceil((floor - low[2]) / voxel)))
    x, y, z = (low[i] + voxel * np.arange(n) for i, n in enumerate(field.shape))
    for T in boards:
        n = T[:3, 2]
        height = n[0] * x[:, None, None] + n[1] * y[:, None] + n[2] * z - n @ T[:3, 3]
        field[height < -voxel / 2] = 1
    field = only_object(field, low, voxel, floor)
    corners, triangles = wp.MarchingCubes.extract_surface_marching_cubes(
        wp.array(field, dtype=wp.float32, device="cpu"), 0.0
    )
    if len(triangles) == 0:
        raise ValueError("nothing stands on the board")
    mesh = trimesh.Trimesh(corners.numpy() * voxel + low, triangles.numpy().reshape(-1, 3), process=True)
    mesh = max(mesh.split(only_watertight=False), key=lambda part: part.area)
    trimesh.smoothing.filter_taubin(mesh, iterations=4)
    if mesh.volume < 0:
        mesh.invert()
    return paint(mesh, views, voxel, device, -np.inf if floor is None else floor + voxel)


def closed(distance: NDArray[np.float32], weight: NDArray[np.float32], first: int) -> NDArray[np.float32]:
    """The field with what no view looked into: solid inside the convex hull of the seen surface, free outside of it, such as
    above a thing that the pictures cut off at its top.

    first: of the layers that count for the hull; below them lies the board.
    """
    unseen = weight <= 0
    field = np.where(unseen, np.float32(-1), distance)
    up = np.array((0, 0, first))
    behind = np.argwhere((field < 0)[..., first:] & ~unseen[..., first:]) + up
    if len(behind) < 100:
        return field
    try:
        planes = ConvexHull(behind).equations.astype(np.float32)
    except QhullError:  # flat
        return field
    where = (np.argwhere(unseen[..., first:]) + up).astype(np.float32)
    for some in np.array_split(where, max(1, len(where) // 20_000)):
        outside = some[(some @ planes[:, :3].T + planes[:, 3]).max(1) > 1.0].astype(int)
        field[tuple(outside.T)] = 1
    return field


def only_object(field: NDArray[np.float32], low: Array, voxel: float, floor: float | None) -> NDArray[np.float32]:
    """The largest piece above the floor, carried straight down to the board; free all around."""
    field = field.copy()
    if floor is not None:
        heights = low[2] + voxel * np.arange(field.shape[2])
        first = int(np.searchsorted(heights, floor))
        holes, count = ndimage.label(field[:, :, first] >= 0)
        narrow = np.bincount(holes.ravel(), minlength=count + 1) * voxel**2 < PIT**2
        narrow[0] = False
        field[:, :, first][narrow[holes]] = np.float32(-0.1)
        field[:, :, :first] = np.where(heights[:first] > 0, field[:, :, first : first + 1], np.float32(1))
    inside = field < 0
    label, pieces = ndimage.label(inside)
    if pieces > 1:
        sizes = np.bincount(label.ravel())
        sizes[0] = 0
        # The signed distance just outside of what stays must remain: only the other pieces become free.
        other = inside & (label != sizes.argmax())
        field[other] = 1
    for axis in range(3):
        for end in (0, -1):
            field[(slice(None),) * axis + (end,)] = 1
    # Bubbles inside are noise: nothing that a camera could have seen.
    solid = ndimage.binary_fill_holes(field < 0)
    return np.where(solid & (field >= 0), np.float32(-1), field)


def paint(
    mesh: trimesh.Trimesh, views: Sequence[View], voxel: float, device: str = "cpu", above: float = -np.inf
) -> Surface:
    """The mesh in the colours that the views have for it, without the light that they know of.

    above: below this height (m) the board's print is mixed with what is seen; no such height where views know the object's pixels.
    """
    points, normals = (np.asarray(v, np.float64) for v in (mesh.vertices, mesh.vertex_normals))
    colours, weights, seen = seen_colours(points, normals, views, voxel, device)
    weights[points[:, 2] < above] = 0
    doubtful = weights < SURE
    if doubtful.any() and not doubtful.all():
        which = np.flatnonzero(doubtful)
        around = _ground(points[which], points[~doubtful], colours[~doubtful])
        colours[which] = mixed(colours[which], weights[which], around)
    # What is brighter than paper is a light's reflection, or lies where that light is stronger than on the board.
    gain = min(1.0, 250 / max(float(np.quantile(colours, 0.99)), 1.0))
    rgba = np.concatenate([np.clip(gain * colours, 0, 255), np.full((len(colours), 1), 255)], 1).astype(np.uint8)
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=rgba)
    return Surface(mesh, seen, gain)


def _ground(points: Array, known: Array, colours: Array) -> Array:
    """(N, 3) median colours of the points (M, 3) around each of ``points`` (N, 3) whose colours (M, 3) are known."""
    tree, made = cKDTree(known), np.zeros_like(points)
    near = tree.query(points)[0] < NEAR
    for which, count in ((np.flatnonzero(near), AROUND[0]), (np.flatnonzero(~near), AROUND[1])):
        k = min(count, len(known))
        for some in np.array_split(which, max(1, len(which) // 4000)):
            made[some] = np.median(colours[tree.query(points[some], k=k)[1].reshape(-1, k)], axis=1)
    return made


def mixed(colours: Array, weights: Array, around: Array) -> Array:
    """(N, 3) colours of little weight (N,), drawn towards those around them (N, 3)."""
    return (weights[:, None] * colours + DOUBT * around) / (weights[:, None] + DOUBT)


def seen_colours(
    points: Array, normals: Array, views: Sequence[View], voxel: float, device: str
) -> tuple[Array, Array, NDArray[np.int32]]:
    """Mean colours (N, 3) of surface points (N, 3), their weights (N,), 0 for what no view saw, and how many views did."""
    place = warp_device(device)
    where = [wp.array(v.astype(np.float32), dtype=wp.vec3f, device=place) for v in (points, normals)]
    seen = wp.zeros(len(points), dtype=wp.int32, device=place)
    colours, weights = np.zeros((len(points), 3)), np.zeros(len(points))
    lights = {id(view.light): view.light for view in views}
    for key, light in lights.items():
        total = wp.zeros(len(points), dtype=wp.vec3f, device=place)
        weight = wp.zeros(len(points), dtype=wp.float32, device=place)
        for view in (v for v in views if id(v.light) == key):
            rgb = wp.array(view.rgb, dtype=wp.uint8, device=place)
            depth = wp.array(view.depth, dtype=wp.float32, device=place)
            pure = wp.array(_pure(view.depth), dtype=wp.uint8, device=place)
            gain = np.ones(3) if view.white is None else PAPER / np.maximum(view.white, 1.0)
            camera = [wp.vec3f(*gain), _camera(view), wp.mat44f(view.T_cam_board)]
            inputs = [rgb, depth, pure, *camera, *where, max(3 * voxel, 0.005), total, weight, seen]
            launch(kernels.colour, len(points), inputs, device)
        strength = np.ones(len(points)) if light is None else light.strength(normals)
        colours += total.numpy() / strength[:, None]
        weights += weight.numpy()
    return colours / np.maximum(weights, 1e-9)[:, None], weights, seen.numpy()


def _pure(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """1 where the colour of a pixel is that of one thing alone: no step of depth is near."""
    step = (without_edges(depth) == 0).astype(np.uint8)
    size = 2 * MIXED_PIXELS - 1
    return np.asarray(1 - cv2.dilate(step, np.ones((size, size), np.uint8)), np.uint8)


def _camera(view: View) -> wp.vec4f:
    k = view.camera
    return wp.vec4f(k.fx, k.fy, k.cx, k.cy)
