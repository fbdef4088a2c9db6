"""The crop windows of hypotheses.

Their edges are whole pixels, so that the last bit decides between two where one falls midway. A module of its own, since its
operations must not be fused: torch, whose windows the official weights know, rounds each.
"""

from __future__ import annotations

import warp as wp

from .render_kernels import pose_translation

wp.set_module_options({"enable_backward": False, "fast_math": False, "fuse_fp": False})


@wp.func
def projected(focal: float, centre: float, x: float, z: float):
    """Image coordinate of a point, rounded as torch's product with the camera matrix."""
    return (focal * x + centre * z) / z


@wp.kernel
def crop_windows(
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    crop_ratio: wp.float64,
    size: float,
    observed: wp.array(dtype=wp.vec4f),
    rendered: wp.array(dtype=wp.vec4f),
):
    """Crop window of each hypothesis, and the window its rendering covers (one crop pixel smaller, as the weights learned).

    Computed in the official order, from the projections of the points at the radius left and right of the centre, above and
    below it.
    """
    n = wp.tid()
    t = pose_translation(poses[n])
    r = float(wp.float64(diameters[n]) * crop_ratio * wp.float64(0.5))
    z = wp.max(t[2], 1.0e-3)
    k = cameras[n % cameras.shape[0]]
    u = projected(k[0], k[2], t[0], z)
    v = projected(k[1], k[3], t[1], z)
    across = wp.max(wp.abs(projected(k[0], k[2], t[0] + r, z) - u), wp.abs(projected(k[0], k[2], t[0] - r, z) - u))
    along = wp.max(wp.abs(projected(k[1], k[3], t[1] + r, z) - v), wp.abs(projected(k[1], k[3], t[1] - r, z) - v))
    radius = wp.max(across, along)
    left = wp.rint(u - radius)
    right = wp.rint(u + radius)
    top = wp.rint(v - radius)
    bottom = wp.rint(v + radius)
    right = wp.max(right, left + 1.0)
    bottom = wp.max(bottom, top + 1.0)
    last = (size - 1.0) / size
    observed[n] = wp.vec4f(left, top, right, bottom)
    rendered[n] = wp.vec4f(left, top, left + (right - left) * last, top + (bottom - top) * last)
