"""Warp kernels around the rendering: depth filter, crops, network inputs, pose update.

Image coordinates: ``u = fx X / Z + cx`` (OpenCV: integer at pixel centres of the observed image).
``cameras`` holds fx, fy, cx, cy of each view, or of all views in one entry.
"""

from __future__ import annotations

import math
from typing import Any

import warp as wp

from .render_kernels import back_project, pose_rotation, pose_translation, store_input, unravel

wp.set_module_options({"enable_backward": False, "fast_math": False})

mat55 = wp.types.matrix(shape=(5, 5), dtype=wp.float32)
BORDER = 2
"""Depth that is filtered has so many empty pixels around it: without branches at the edges the loads of a window overlap."""
NEARNESS = mat55(*(math.exp(-(i * i + j * j) / 8.0) for j in range(-2, 3) for i in range(-2, 3)))
"""These weigh a window: Gaussian, sigma 2 px."""


@wp.func
def within(d: float, low: float, high: float):
    """d, or 0 where it is outside of the limits or no number."""
    return wp.where(d >= low, wp.where(d <= high, d, 0.0), 0.0)


@wp.kernel
def erode_depth(
    depth: wp.array2d(dtype=wp.float32),
    scale: wp.array(dtype=wp.float32),
    min_depth: float,
    max_depth: float,
    out: wp.array2d(dtype=wp.float32),
):
    """Official 5x5 erosion: 0 where over 80 % of the window is invalid or differs by more than 1 mm. scale: m a unit.

    Both images have a BORDER.
    """
    y, x = wp.tid()
    unit = scale[0]
    middle = within(depth[y + 2, x + 2] * unit, min_depth, max_depth)
    good = float(0.0)
    for j in range(5):
        for i in range(5):
            d = within(depth[y + j, x + i] * unit, min_depth, max_depth)
            good += wp.where(wp.abs(d - middle) <= 0.001, wp.where(d > 0.0, 1.0, 0.0), 0.0)
    rows = wp.min(y, 2) + wp.min(depth.shape[0] - 5 - y, 2) + 1
    columns = wp.min(x, 2) + wp.min(depth.shape[1] - 5 - x, 2) + 1
    total = float(rows * columns)
    out[y + 2, x + 2] = wp.where((total - good) / total > 0.8, 0.0, middle)


@wp.kernel
def bilateral_depth(depth: wp.array2d(dtype=wp.float32), nearness: mat55, out: wp.array2d(dtype=wp.float32)):
    """Official 5x5 bilateral filter of eroded depth, which has a BORDER: pixels within 1 cm of the window's mean; fills small
    holes.

    The official weight has exp(-dz^2 / 2e10) besides, which is 1 in float32. Sums go down the columns, as the official ones: in
    another order the mean's last bits differ, and with them which pixels are within.
    """
    y, x = wp.tid()
    mean = float(0.0)
    count = float(0.0)
    for i in range(5):
        for j in range(5):
            d = depth[y + j, x + i]
            mean += d
            count += wp.where(d > 0.0, 1.0, 0.0)
    mean = mean / wp.max(count, 1.0)
    total = float(0.0)
    weights = float(0.0)
    for i in range(5):
        for j in range(5):
            d = depth[y + j, x + i]
            weight = wp.where(wp.abs(d - mean) < 0.01, wp.where(d > 0.0, nearness[j, i], 0.0), 0.0)
            weights += weight
            total += weight * d
    out[y, x] = wp.where(weights > 0.0, total / wp.max(weights, 1.0e-6), 0.0)


@wp.func
def observed_coordinate(i: int, low: float, high: float, size: float, extent: float):
    """Image coordinate that crop pixel i reads (kornia's warp_perspective with align_corners=False)."""
    return (low + float(i) * (high - low) / size) * extent / (extent - 1.0) - 0.5


@wp.func
def crop_pixel(window: wp.vec4f, x: int, y: int, size: float, width: int, height: int):
    """Image coordinates of a crop's pixel."""
    return wp.vec2f(
        observed_coordinate(x, window[0], window[2], size, float(width)),
        observed_coordinate(y, window[1], window[3], size, float(height)),
    )


@wp.func
def read_rgb(rgb: wp.array3d(dtype=wp.uint8), x: int, y: int):
    if x < 0 or y < 0 or x >= rgb.shape[1] or y >= rgb.shape[0]:
        return wp.vec3f(0.0, 0.0, 0.0)
    return wp.vec3f(float(rgb[y, x, 0]), float(rgb[y, x, 1]), float(rgb[y, x, 2]))


@wp.func
def bilinear_rgb(rgb: wp.array3d(dtype=wp.uint8), at: wp.vec2f):
    """Colour in [0, 255] at image coordinates ``at``, zeros outside the image."""
    x0 = int(wp.floor(at[0]))
    y0 = int(wp.floor(at[1]))
    a = at[0] - float(x0)
    b = at[1] - float(y0)
    return (read_rgb(rgb, x0, y0) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0) * a) * (1.0 - b) + (
        read_rgb(rgb, x0, y0 + 1) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0 + 1) * a
    ) * b


@wp.func
def observe(rgb: wp.array3d(dtype=wp.uint8), depth: wp.array2d(dtype=wp.float32), camera: wp.vec4f, at: wp.vec2f):
    """Colour (bilinear) and back-projected depth (nearest) at image coordinates ``at``, zeros outside the image."""
    color = bilinear_rgb(rgb, at)
    xi = int(wp.rint(at[0]))
    yi = int(wp.rint(at[1]))
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    if xi >= 0 and yi >= 0 and xi < depth.shape[1] and yi < depth.shape[0]:
        z = depth[yi, xi]
        if z >= 0.001:
            xyz = back_project(camera, float(xi), float(yi)) * z
    return color / 255.0, xyz


@wp.kernel
def crop_observed(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    windows: wp.array(dtype=wp.vec4f),
    out_rgb: wp.array4d(dtype=wp.float32),
    out_xyz: wp.array4d(dtype=wp.float32),
):
    """Crops (N, R, R, 3) of colour in [0, 1] and of points."""
    n, y, x = wp.tid()
    at = crop_pixel(windows[n], x, y, float(out_rgb.shape[1]), rgb.shape[1], rgb.shape[0])
    color, xyz = observe(rgb, depth, cameras[n % cameras.shape[0]], at)
    for c in range(3):
        out_rgb[n, y, x, c] = color[c]
        out_xyz[n, y, x, c] = xyz[c]


@wp.kernel
def crop_inputs(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    windows: wp.array(dtype=wp.vec4f),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    out: wp.array4d(dtype=Any),
):
    """Network inputs (N, R, R, 6) of observed crops, without an image in between; launched over all pixels."""
    place = unravel(wp.tid(), out.shape[1], out.shape[2])
    n = place[0]
    y = place[1]
    x = place[2]
    at = crop_pixel(windows[n], x, y, float(out.shape[1]), rgb.shape[1], rgb.shape[0])
    color, xyz = observe(rgb, depth, cameras[n % cameras.shape[0]], at)
    store_input(out, n, y, x, color, xyz, pose_translation(poses[n]), 2.0 / diameters[n], min_z)


@wp.kernel
def pack_input(
    rgb: wp.array4d(dtype=wp.float32),
    xyz: wp.array4d(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    out: wp.array4d(dtype=Any),
):
    """Network inputs (N, R, R, 6) of images that something else made."""
    n, y, x = wp.tid()
    color = wp.vec3f(rgb[n, y, x, 0], rgb[n, y, x, 1], rgb[n, y, x, 2])
    point = wp.vec3f(xyz[n, y, x, 0], xyz[n, y, x, 1], xyz[n, y, x, 2])
    store_input(out, n, y, x, color, point, pose_translation(poses[n]), 2.0 / diameters[n], min_z)


@wp.func
def turned(pose: wp.mat44f, w: wp.vec3f, t: wp.vec3f):
    """The pose whose rotation is exp(w), w in rad, times that of ``pose``, and whose translation is t, m."""
    angle = wp.length(w)
    q = wp.quat_identity(dtype=wp.float32)
    if angle > 1.0e-9:
        q = wp.quat_from_axis_angle(w / angle, angle)
    R = wp.quat_to_matrix(q) * pose_rotation(pose)
    # Gram-Schmidt keeps thousands of float32 products a rotation.
    x = wp.normalize(wp.vec3f(R[0, 0], R[1, 0], R[2, 0]))
    y = wp.vec3f(R[0, 1], R[1, 1], R[2, 1])
    y = wp.normalize(y - x * wp.dot(x, y))
    z = wp.cross(x, y)
    return wp.mat44f(
        x[0], y[0], z[0], t[0],
        x[1], y[1], z[1], t[1],
        x[2], y[2], z[2], t[2],
        0.0, 0.0, 0.0, 1.0,
    )  # fmt: skip


@wp.kernel
def update_poses(
    trans: wp.array2d(dtype=wp.float32),
    rot: wp.array2d(dtype=wp.float32),
    diameters: wp.array(dtype=wp.float32),
    rot_normalizer: float,
    poses: wp.array(dtype=wp.mat44f),
    delta: wp.array(dtype=wp.vec2f),
):
    """t += trans * radius; R = exp(tanh(rot) * rot_normalizer)^T R, in place. delta: |dt| in radii, |dR| in rad."""
    n = wp.tid()
    dt = wp.vec3f(trans[n, 0], trans[n, 1], trans[n, 2]) * (diameters[n] * 0.5)
    w = -rot_normalizer * wp.vec3f(wp.tanh(rot[n, 0]), wp.tanh(rot[n, 1]), wp.tanh(rot[n, 2]))
    poses[n] = turned(poses[n], w, pose_translation(poses[n]) + dt)
    delta[n] = wp.vec2f(wp.length(dt) * 2.0 / diameters[n], wp.length(w))


# Every overload that is used is declared, so that Warp compiles the module once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(pack_input, {"out": wp.array4d(dtype=_dtype)})
    wp.overload(crop_inputs, {"out": wp.array4d(dtype=_dtype)})
