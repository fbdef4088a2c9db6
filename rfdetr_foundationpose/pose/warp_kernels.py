"""Warp kernels around the rendering: depth filter, crops, network inputs, pose update, agreement.

Image coordinates: ``u = fx X / Z + cx`` (OpenCV: integer at pixel centres of the observed image).
``cameras`` holds fx, fy, cx, cy of each view, or of all views in one entry.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from .render_kernels import back_project, rotation_of, store_input, translation_of

wp.set_module_options({"enable_backward": False, "fast_math": False})

AGREEMENT_LANES = wp.constant(32)


@wp.kernel
def erode_depth(
    depth: wp.array2d(dtype=wp.float32), min_depth: float, max_depth: float, out: wp.array2d(dtype=wp.float32)
):
    """Official 5x5 erosion: 0 where over 80 % of the window is invalid or differs by more than 1 mm."""
    y, x = wp.tid()
    d = depth[y, x]
    if not (d >= min_depth and d <= max_depth):
        out[y, x] = 0.0
        return
    bad = float(0.0)
    total = float(0.0)
    for j in range(wp.max(y - 2, 0), wp.min(y + 3, depth.shape[0])):
        for i in range(wp.max(x - 2, 0), wp.min(x + 3, depth.shape[1])):
            near = depth[j, i]
            total += 1.0
            if not (near >= min_depth and near <= max_depth) or wp.abs(near - d) > 0.001:
                bad += 1.0
    if bad / total > 0.8:
        out[y, x] = 0.0
    else:
        out[y, x] = d


@wp.kernel
def bilateral_depth(depth: wp.array2d(dtype=wp.float32), out: wp.array2d(dtype=wp.float32)):
    """Official 5x5 bilateral filter of eroded depth: sigma 2 px, pixels within 1 cm of the window's mean, fills small holes."""
    y, x = wp.tid()
    mean = float(0.0)
    count = float(0.0)
    for j in range(wp.max(y - 2, 0), wp.min(y + 3, depth.shape[0])):
        for i in range(wp.max(x - 2, 0), wp.min(x + 3, depth.shape[1])):
            d = depth[j, i]
            if d > 0.0:
                mean += d
                count += 1.0
    if count == 0.0:
        out[y, x] = 0.0
        return
    mean = mean / count
    total = float(0.0)
    weights = float(0.0)
    for j in range(wp.max(y - 2, 0), wp.min(y + 3, depth.shape[0])):
        for i in range(wp.max(x - 2, 0), wp.min(x + 3, depth.shape[1])):
            d = depth[j, i]
            if d > 0.0 and wp.abs(d - mean) < 0.01:
                du = float(i - x)
                dv = float(j - y)
                dz = depth[y, x] - d
                weight = wp.exp(-(du * du + dv * dv) / 8.0 - dz * dz / 2.0e10)
                weights += weight
                total += weight * d
    if weights > 0.0:
        out[y, x] = total / weights
    else:
        out[y, x] = 0.0


@wp.kernel
def crop_windows(
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    crop_ratio: float,
    size: float,
    observed: wp.array(dtype=wp.vec4f),
    rendered: wp.array(dtype=wp.vec4f),
):
    """Crop window of each hypothesis, and the window its rendering covers (one crop pixel smaller, as the weights learned)."""
    n = wp.tid()
    t = translation_of(poses[n])
    r = diameters[n] * crop_ratio * 0.5
    z = wp.max(t[2], 1.0e-3)
    k = cameras[n % cameras.shape[0]]
    u = k[0] * t[0] / z + k[2]
    v = k[1] * t[1] / z + k[3]
    radius = wp.max(k[0], k[1]) * r / z
    left = wp.rint(u - radius)
    right = wp.rint(u + radius)
    top = wp.rint(v - radius)
    bottom = wp.rint(v + radius)
    right = wp.max(right, left + 1.0)
    bottom = wp.max(bottom, top + 1.0)
    last = (size - 1.0) / size
    observed[n] = wp.vec4f(left, top, right, bottom)
    rendered[n] = wp.vec4f(left, top, left + (right - left) * last, top + (bottom - top) * last)


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
    return wp.vec3f(float(rgb[y, x, 0]), float(rgb[y, x, 1]), float(rgb[y, x, 2])) / 255.0


@wp.func
def observe(rgb: wp.array3d(dtype=wp.uint8), depth: wp.array2d(dtype=wp.float32), camera: wp.vec4f, at: wp.vec2f):
    """Colour (bilinear) and back-projected depth (nearest) at image coordinates ``at``, zeros outside the image."""
    x0 = int(wp.floor(at[0]))
    y0 = int(wp.floor(at[1]))
    a = at[0] - float(x0)
    b = at[1] - float(y0)
    color = (read_rgb(rgb, x0, y0) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0) * a) * (1.0 - b) + (
        read_rgb(rgb, x0, y0 + 1) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0 + 1) * a
    ) * b
    xi = int(wp.rint(at[0]))
    yi = int(wp.rint(at[1]))
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    if xi >= 0 and yi >= 0 and xi < depth.shape[1] and yi < depth.shape[0]:
        z = depth[yi, xi]
        if z >= 0.001:
            xyz = back_project(camera, float(xi), float(yi)) * z
    return color, xyz


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
    """Network inputs (N, R, R, 6) of observed crops, without an image in between."""
    n, y, x = wp.tid()
    at = crop_pixel(windows[n], x, y, float(out.shape[1]), rgb.shape[1], rgb.shape[0])
    color, xyz = observe(rgb, depth, cameras[n % cameras.shape[0]], at)
    store_input(out, n, y, x, color, xyz, translation_of(poses[n]), 2.0 / diameters[n], min_z)


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
    store_input(out, n, y, x, color, point, translation_of(poses[n]), 2.0 / diameters[n], min_z)


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
    angle = wp.length(w)
    q = wp.quat_identity(dtype=wp.float32)
    if angle > 1.0e-9:
        q = wp.quat_from_axis_angle(w / angle, angle)
    R = wp.quat_to_matrix(q) * rotation_of(poses[n])
    t = translation_of(poses[n]) + dt
    # Gram-Schmidt keeps thousands of float32 products a rotation.
    x = wp.normalize(wp.vec3f(R[0, 0], R[1, 0], R[2, 0]))
    y = wp.vec3f(R[0, 1], R[1, 1], R[2, 1])
    y = wp.normalize(y - x * wp.dot(x, y))
    z = wp.cross(x, y)
    poses[n] = wp.mat44f(
        x[0], y[0], z[0], t[0],
        x[1], y[1], z[1], t[1],
        x[2], y[2], z[2], t[2],
        0.0, 0.0, 0.0, 1.0,
    )  # fmt: skip
    delta[n] = wp.vec2f(wp.length(dt) * 2.0 / diameters[n], angle)


@wp.func
def print_color(color: wp.vec3f, dark: float):
    """Chromaticity about grey: what shading leaves of a colour. ``dark`` counts as grey."""
    return color / (color[0] + color[1] + color[2] + dark) - wp.vec3f(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0)


@wp.func
def color_at(image: wp.array4d(dtype=wp.float32), n: int, y: int, x: int):
    return wp.vec3f(image[n, y, x, 0], image[n, y, x, 1], image[n, y, x, 2])


@wp.kernel
def agreement(
    rendered_rgb: wp.array4d(dtype=wp.float32),
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_rgb: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    diameters: wp.array(dtype=wp.float32),
    min_tolerance: float,
    tolerance_share: float,
    dark: float,
    partial: wp.array3d(dtype=wp.float32),
):
    """Sums per view: model pixels, agreeing, occluded (observed nearer), violated (observed farther), depth residual of the
    agreeing in tolerances, colour difference of the agreeing. The rest of the model pixels has no depth.

    Where ``partial`` has 15 rows, also what the correlation of print needs, over the agreeing: rendered and observed print
    colour (3 + 3), squared rendered, squared observed, product.

    Launched over views, rows and AGREEMENT_LANES, which share a row; each thread has a column of ``partial`` (N, 6 or 15,
    rows * AGREEMENT_LANES) of its own: nothing need be cleared, and sums come out the same each time, as atomic ones do not.
    """
    n, y, lane = wp.tid()
    tolerance = wp.max(min_tolerance, tolerance_share * diameters[n])
    printed = partial.shape[1] > 6
    model = float(0.0)
    agree = float(0.0)
    occluded = float(0.0)
    violated = float(0.0)
    residual = float(0.0)
    color = float(0.0)
    rendered = wp.vec3f(0.0, 0.0, 0.0)
    observed = wp.vec3f(0.0, 0.0, 0.0)
    squares = wp.vec3f(0.0, 0.0, 0.0)
    for x in range(lane, rendered_xyz.shape[2], AGREEMENT_LANES):
        zr = rendered_xyz[n, y, x, 2]
        if zr >= 0.001:
            model += 1.0
            zo = observed_xyz[n, y, x, 2]
            if zo >= 0.001:
                dz = zo - zr
                if wp.abs(dz) <= tolerance:
                    agree += 1.0
                    residual += wp.abs(dz) / tolerance
                    a = color_at(rendered_rgb, n, y, x)
                    b = color_at(observed_rgb, n, y, x)
                    color += (wp.abs(a[0] - b[0]) + wp.abs(a[1] - b[1]) + wp.abs(a[2] - b[2])) / 3.0
                    if printed:
                        r = print_color(a, dark)
                        o = print_color(b, dark)
                        rendered += r
                        observed += o
                        squares += wp.vec3f(wp.dot(r, r), wp.dot(o, o), wp.dot(r, o))
                elif dz < 0.0:
                    occluded += 1.0
                else:
                    violated += 1.0
    column = y * AGREEMENT_LANES + lane
    partial[n, 0, column] = model
    partial[n, 1, column] = agree
    partial[n, 2, column] = occluded
    partial[n, 3, column] = violated
    partial[n, 4, column] = residual
    partial[n, 5, column] = color
    if printed:
        for c in range(3):
            partial[n, c + 6, column] = rendered[c]
            partial[n, c + 9, column] = observed[c]
            partial[n, c + 12, column] = squares[c]


# Every instance that is used, so that the module is compiled once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(pack_input, {"out": wp.array4d(dtype=_dtype)})
    wp.overload(crop_inputs, {"out": wp.array4d(dtype=_dtype)})
