"""Warp kernel that rasterizes the objects of training scenes, as pose/raster_kernels.py does single ones, through the pixels that
observed crops read: whole ones of the source image."""

from __future__ import annotations

import warp as wp

from ..pose.raster_kernels import (
    FAR,
    OVERLAP,
    SLACK,
    STEEP,
    camera_corners,
    clamp_to_int,
    depth_key,
    expand,
    intersect,
    make_edge,
    ray_factors,
    widen,
)
from ..pose.render_kernels import BankData, back_project
from ..pose.warp_kernels import observed_coordinate
from .pair_kernels import FACES, SceneData

wp.set_module_options({"enable_backward": False, "fast_math": False})


@wp.func
def source_pixel(p: wp.vec3f, camera: wp.vec4f):
    """Column and row, with fractions, of the source image where a point in front of the camera is seen."""
    return wp.vec2f(camera[0] * p[0] / p[2] + camera[2], camera[1] * p[1] / p[2] + camera[3])


@wp.func
def crop_range(low: float, high: float, start: float, end: float, size: int, extent: float):
    """First of the crop's rows or columns that read source pixels between low and high, and the one after the last.

    start, end: of the window. extent: of the source image.
    """
    first = observed_coordinate(0, start, end, float(size), extent)
    step = (end - start) / float(size) * extent / (extent - 1.0)
    # What is read is the nearest whole pixel, half a pixel off at most.
    return wp.vec2i(
        clamp_to_int(wp.ceil((low - 0.5 - SLACK - first) / step), size),
        clamp_to_int(wp.floor((high + 0.5 + SLACK - first) / step) + 1.0, size),
    )


@wp.kernel
def rasterize_scenes(
    bank: BankData,
    scene: SceneData,
    view_scene: wp.array(dtype=wp.int32),
    windows: wp.array(dtype=wp.vec4f),
    near: float,
    lanes: int,
    keys: wp.array3d(dtype=wp.int64),
):
    """Put the key of the nearest face of all instances into every pixel that one covers; the key's face is that of instance m
    plus m times FACES. Launched over the instances of all views, faces of the largest mesh, and ``lanes`` threads a face."""
    drawn, face, lane = wp.tid()
    n = drawn // scene.mesh.shape[1]
    m = drawn - n * scene.mesh.shape[1]
    s = view_scene[n]
    mesh = scene.mesh[s, m]
    if mesh < 0:
        return
    if face >= bank.face_count[mesh]:
        return
    corners = camera_corners(bank, mesh, face, scene.pose[s, m])
    middle = corners.a + corners.b + corners.c
    if not (wp.isfinite(middle[0]) and wp.isfinite(middle[1]) and wp.isfinite(middle[2])):
        return  # every pixel would have to be tested
    expanded_a = expand(corners.a, middle)
    expanded_b = expand(corners.b, middle)
    expanded_c = expand(corners.c, middle)
    nearest = wp.min(expanded_a[2], wp.min(expanded_b[2], expanded_c[2]))
    farthest = wp.max(expanded_a[2], wp.max(expanded_b[2], expanded_c[2]))
    if farthest < near:
        return
    camera = scene.camera[s]
    extent = scene.size[s]
    window = windows[n]
    rows = keys.shape[1]
    columns = keys.shape[2]
    a = wp.vec2f(-1.0, -1.0)
    b = extent
    c = extent
    if nearest > near:  # else it has no projection, and the whole image is tested
        a = source_pixel(expanded_a, camera)
        b = source_pixel(expanded_b, camera)
        c = source_pixel(expanded_c, camera)
    low = wp.min(a, wp.min(b, c))
    high = wp.max(a, wp.max(b, c))
    across = crop_range(low[0], high[0], window[0], window[2], columns, extent[0])
    down = crop_range(low[1], high[1], window[1], window[3], rows, extent[1])
    if across[0] >= across[1]:
        return
    by_edges = nearest > near and farthest < STEEP * nearest
    by_edges = by_edges and low[0] > -FAR and low[1] > -FAR and high[0] < FAR and high[1] < FAR
    ab = make_edge(a, b)
    bc = make_edge(b, c)
    ca = make_edge(c, a)
    factors = ray_factors(corners)
    for y in range(down[0] + lane, down[1], lanes):
        row = wp.rint(observed_coordinate(y, window[1], window[3], float(rows), extent[1]))
        part = across
        if by_edges:
            # The part of a triangle between two rows is convex, so that its first and last columns lie on edges.
            span = wp.vec2f(FAR, -FAR)
            span = widen(span, ab, row)
            span = widen(span, bc, row)
            span = widen(span, ca, row)
            part = crop_range(span[0], span[1], window[0], window[2], columns, extent[0])
        for x in range(part[0], part[1]):
            column = wp.rint(observed_coordinate(x, window[0], window[2], float(columns), extent[0]))
            at = intersect(factors, back_project(camera, column, row))
            if at[0] >= -OVERLAP and at[1] >= -OVERLAP and at[0] + at[1] <= 1.0 + OVERLAP and at[2] >= near:
                wp.atomic_min(keys, n, y, x, depth_key(at[2], m * FACES + face))
