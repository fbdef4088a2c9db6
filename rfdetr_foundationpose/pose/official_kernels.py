"""Observed crops as the official code samples them, for its weights.

Its images go through kornia's ``warp_perspective`` (align_corners=False), points with the nearest pixel. The refiner's points
take one such warp, from image to crop. The scorer's take three: depth into the crop, that crop back to the image, where it
is back-projected, and those points into the crop again. A window's edges are whole pixels, so that many coordinates, those
of a crop's first column among them, fall midway between two pixels: which one is taken depends on the last bit. Here each
operation is therefore rounded as torch rounds it, and none is fused with the next one.

All warps shift and scale, so that rows and columns are found one by one.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from .render_kernels import back_project, pose_translation, store_input, unravel
from .warp_kernels import bilinear_rgb, crop_pixel

wp.set_module_options({"enable_backward": False, "fast_math": False, "fuse_fp": False})

PASSES = {"refiner": 1, "scorer": 3}
"""The points of a network's observed crops take so many warps."""


@wp.func
def inverse_offset(scale: float, offset: float, cuda: int):
    """Of x * scale + offset, as torch.linalg.inv rounds it: on CUDA it divides, on a CPU it multiplies by 1 / scale."""
    if cuda != 0:
        return -offset / scale
    return -offset * (1.0 / scale)


@wp.func
def warped(i: int, scale: float, offset: float, source: int, target: int, cuda: int):
    """Where a nearest warp reads the i-th of ``target`` pixels of an axis among its ``source`` pixels, -1 outside of them.

    x * scale + offset: target coordinate of source coordinate x. cuda: rounded as torch's CUDA kernels do, which multiply by
    the reciprocal of a divisor that is no tensor, invert a matrix by dividing its offset, and fuse what grid_sample multiplies
    and adds.
    """
    sources = float(source)
    last = float(target - 1)
    # kornia: inverse of (to [-1, 1] in the target) (x * scale + offset) (from [-1, 1] in the source)
    from_unit = 1.0 / (2.0 / (sources - 1.0))
    to_unit = 2.0 / last
    a = to_unit * (scale * from_unit)
    b = to_unit * (scale * from_unit + offset) - 1.0
    inverse = 1.0 / a
    unit = float(i) / last
    if cuda != 0:
        unit = float(i) * (1.0 / last)
    at = (unit - 0.5) * 2.0 * inverse + inverse_offset(a, b, cuda) + 1.0
    # torch's grid_sample
    if cuda != 0:
        at = float(wp.float64(at) * wp.float64(sources) - wp.float64(1.0)) * 0.5
    else:
        at = (at * sources - 1.0) * 0.5
    at = wp.rint(at)
    if at >= 0.0 and at < sources:
        return int(at)
    return -1


@wp.func
def official_axis(i: int, low: float, high: float, size: int, extent: int, passes: int, cuda: int):
    """Along one axis of the image: the pixel whose point crop pixel i shows, and the one whose depth that point has; -1 for
    none. low, high: of the window. size, extent: pixels of crop and image."""
    scale = 1.0 / (high - low) * float(size)  # so does torch divide a number by a tensor
    offset = scale * -low
    pixel = warped(i, scale, offset, extent, size, cuda)
    depth = pixel
    if passes > 1 and pixel >= 0:
        within = warped(pixel, 1.0 / scale, inverse_offset(scale, offset, cuda), size, extent, cuda)
        depth = -1
        if within >= 0:
            depth = warped(within, scale, offset, extent, size, cuda)
    return wp.vec2i(pixel, depth)


@wp.kernel
def official_inputs(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    windows: wp.array(dtype=wp.vec4f),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    passes: int,
    cuda: int,
    out: wp.array4d(dtype=Any),
):
    """Network inputs (N, R, R, 6) of observed crops, as ``crop_inputs``; launched over all pixels."""
    place = unravel(wp.tid(), out.shape[1], out.shape[2])
    n = place[0]
    y = place[1]
    x = place[2]
    size = out.shape[1]
    window = windows[n]
    color = bilinear_rgb(rgb, crop_pixel(window, x, y, float(size), rgb.shape[1], rgb.shape[0]))
    across = official_axis(x, window[0], window[2], size, depth.shape[1], passes, cuda)
    down = official_axis(y, window[1], window[3], size, depth.shape[0], passes, cuda)
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    if across[1] >= 0 and down[1] >= 0:
        z = depth[down[1], across[1]]
        if z >= 0.001:
            xyz = back_project(cameras[n % cameras.shape[0]], float(across[0]), float(down[0])) * z
    store_input(out, n, y, x, color / 255.0, xyz, pose_translation(poses[n]), 2.0 / diameters[n], min_z)


# Every overload that is used is declared, so that Warp compiles the module once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(official_inputs, {"out": wp.array4d(dtype=_dtype)})
