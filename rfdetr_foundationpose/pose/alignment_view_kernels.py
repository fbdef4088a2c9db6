"""Warp kernels that bring rendered views and the image into a form in which they can be aligned.

A view's pixel i lies at left + (i + 0.5)(right - left) / R of its window, in the rendering as in what is read of the image.
"""

from __future__ import annotations

import warp as wp

from .warp_kernels import bilinear_rgb

wp.set_module_options({"enable_backward": False, "fast_math": False})

TAPS = wp.constant(4)
"""A pixel's brightness is a mean of so many samples across, at most."""
BLUR = wp.constant(10)
"""Brightness is compared with its neighbourhood of so many pixels on each side."""
BLUR_SIGMA = wp.constant(4.8)
SMOOTH_SIGMA = wp.constant(0.72)
CONTRAST = wp.constant(0.03)
"""Less contrast than this is noise."""
STEEP = wp.constant(0.2)
"""A surface whose normal has less than this along the optical axis is seen edge-on, and its depth is not to be trusted."""
JUMP = wp.constant(0.08)
"""Neighbours that are farther apart than this, in diameters, are of two surfaces."""


@wp.func
def reach_of(diameter: float):
    """Depth that is farther than this from the model, m, is of something else."""
    return wp.clamp(0.06 * diameter, 0.006, 0.015)


@wp.func
def brightness(color: wp.vec3f):
    return (color[0] + color[1] + color[2]) / 3.0


@wp.func
def pixel_size(window: wp.vec4f, size: int):
    """Width and height of a view's pixel, in pixels of the image."""
    return wp.vec2f(window[2] - window[0], window[3] - window[1]) / float(size)


@wp.kernel
def observe(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    windows: wp.array(dtype=wp.vec4f),
    out_depth: wp.array3d(dtype=wp.float32),
    out_brightness: wp.array3d(dtype=wp.float32),
):
    """Depth (nearest, m, 0 where there is none) and brightness (mean over the pixel, [0, 1], -1 outside of the image)."""
    n, y, x = wp.tid()
    window = windows[n]
    size = pixel_size(window, out_depth.shape[2])
    u = window[0] + (float(x) + 0.5) * size[0]
    v = window[1] + (float(y) + 0.5) * size[1]
    i = int(wp.rint(u))
    j = int(wp.rint(v))
    if i < 0 or j < 0 or i >= depth.shape[1] or j >= depth.shape[0]:
        out_depth[n, y, x] = 0.0
        out_brightness[n, y, x] = -1.0
        return
    out_depth[n, y, x] = depth[j, i]
    taps = wp.clamp(int(wp.ceil(size[0])), 1, TAPS)
    total = float(0.0)
    for b in range(taps):
        for a in range(taps):
            across = (float(a) + 0.5) / float(taps) - 0.5
            down = (float(b) + 0.5) / float(taps) - 0.5
            total += brightness(bilinear_rgb(rgb, wp.vec2f(u + across * size[0], v + down * size[1])))
    out_brightness[n, y, x] = total / (255.0 * float(taps * taps))


@wp.func
def offset(rendered: wp.array4d(dtype=wp.float32), n: int, y: int, x: int, radius: float):
    """Point of the model, m, relative to the pose's translation; zeros where there is none."""
    return wp.vec3f(rendered[n, y, x, 3], rendered[n, y, x, 4], rendered[n, y, x, 5]) * radius


@wp.func
def is_model(point: wp.vec3f):
    return point[0] != 0.0 or point[1] != 0.0 or point[2] != 0.0


@wp.kernel
def describe_surface(
    rendered: wp.array4d(dtype=wp.float32),
    observed_depth: wp.array3d(dtype=wp.float32),
    observed_brightness: wp.array3d(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    normals: wp.array3d(dtype=wp.vec3f),
    visible: wp.array3d(dtype=wp.float32),
):
    """normals: (N, R, R) unit, towards the camera, by finite differences; zeros where the surface has none that can be trusted.
    visible: 1 where the model is seen, or nothing says that it is not."""
    n, y, x = wp.tid()
    size = rendered.shape[1]
    radius = diameters[n] * 0.5
    here = offset(rendered, n, y, x, radius)
    normal = wp.vec3f(0.0, 0.0, 0.0)
    seen = float(0.0)
    if is_model(here):
        z = here[2] + poses[n][2, 3]
        measured = observed_depth[n, y, x]
        near = wp.abs(measured - z) < reach_of(diameters[n])
        if observed_brightness[n, y, x] >= 0.0 and (measured == 0.0 or near):
            seen = 1.0
        if x > 0 and y > 0 and x < size - 1 and y < size - 1:
            left = offset(rendered, n, y, x - 1, radius)
            right = offset(rendered, n, y, x + 1, radius)
            up = offset(rendered, n, y - 1, x, radius)
            down = offset(rendered, n, y + 1, x, radius)
            whole = is_model(left) and is_model(right) and is_model(up) and is_model(down)
            across = right - left
            along = down - up
            if whole and wp.max(wp.abs(across[2]), wp.abs(along[2])) < JUMP * diameters[n]:
                normal = wp.normalize(wp.cross(along, across))
                normal = wp.where(wp.abs(normal[2]) > STEEP, normal, wp.vec3f(0.0, 0.0, 0.0))
    normals[n, y, x] = normal
    visible[n, y, x] = seen


@wp.kernel
def smooth(
    rendered: wp.array4d(dtype=wp.float32),
    observed_brightness: wp.array3d(dtype=wp.float32),
    visible: wp.array3d(dtype=wp.float32),
    out: wp.array3d(dtype=wp.vec2f),
):
    """(N, R, R) brightness of rendering and image, over 3 x 3 visible pixels."""
    n, y, x = wp.tid()
    size = visible.shape[1]
    total = wp.vec2f(0.0, 0.0)
    weights = float(0.0)
    for b in range(-1, 2):
        for a in range(-1, 2):
            j = wp.clamp(y + b, 0, size - 1)
            i = wp.clamp(x + a, 0, size - 1)
            weight = visible[n, j, i] * wp.exp(-float(a * a + b * b) / (2.0 * SMOOTH_SIGMA * SMOOTH_SIGMA))
            color = wp.vec3f(rendered[n, j, i, 0], rendered[n, j, i, 1], rendered[n, j, i, 2])
            total += weight * wp.vec2f(brightness(color), observed_brightness[n, j, i])
            weights += weight
    out[n, y, x] = total / wp.max(weights, 1.0e-6)


@wp.func
def blur_weight(i: int):
    return wp.exp(-float(i * i) / (2.0 * BLUR_SIGMA * BLUR_SIGMA))


@wp.kernel
def blur_rows(
    smoothed: wp.array3d(dtype=wp.vec2f), visible: wp.array3d(dtype=wp.float32), out: wp.array4d(dtype=wp.float32)
):
    """(N, R, R, 5) weighted sums along the rows: of 1, and of each brightness and its square."""
    n, y, x = wp.tid()
    size = visible.shape[1]
    weights = float(0.0)
    first = wp.vec2f(0.0, 0.0)
    second = wp.vec2f(0.0, 0.0)
    for i in range(wp.max(x - BLUR, 0), wp.min(x + BLUR + 1, size)):
        weight = blur_weight(i - x) * visible[n, y, i]
        both = smoothed[n, y, i]
        weights += weight
        first += weight * both
        second += weight * wp.cw_mul(both, both)
    out[n, y, x, 0] = weights
    for c in range(2):
        out[n, y, x, 1 + c] = first[c]
        out[n, y, x, 3 + c] = second[c]


@wp.kernel
def normalize_contrast(
    smoothed: wp.array3d(dtype=wp.vec2f),
    visible: wp.array3d(dtype=wp.float32),
    rows: wp.array4d(dtype=wp.float32),
    out: wp.array3d(dtype=wp.vec2f),
):
    """(N, R, R) each brightness less its mean nearby, in units of its deviation there; 0 where the model is not seen."""
    n, y, x = wp.tid()
    both = wp.vec2f(0.0, 0.0)
    if visible[n, y, x] > 0.0:
        weights = float(0.0)
        first = wp.vec2f(0.0, 0.0)
        second = wp.vec2f(0.0, 0.0)
        for j in range(wp.max(y - BLUR, 0), wp.min(y + BLUR + 1, visible.shape[1])):
            weight = blur_weight(j - y)
            weights += weight * rows[n, j, x, 0]
            first += weight * wp.vec2f(rows[n, j, x, 1], rows[n, j, x, 2])
            second += weight * wp.vec2f(rows[n, j, x, 3], rows[n, j, x, 4])
        mean = first / weights
        variance = second / weights - wp.cw_mul(mean, mean)
        both = smoothed[n, y, x] - mean
        for c in range(2):
            both[c] = both[c] / wp.sqrt(wp.max(variance[c], 0.0) + CONTRAST * CONTRAST)
    out[n, y, x] = both
