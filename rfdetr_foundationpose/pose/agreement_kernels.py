"""Warp kernels that compare rendered views with the image: sums over their pixels, and what these say of the pose."""

from __future__ import annotations

import warp as wp

from .render_kernels import translation_of

wp.set_module_options({"enable_backward": False, "fast_math": False})

LANES = wp.constant(32)
"""Threads that share a row of pixels."""
MIN_TOLERANCE = wp.constant(0.004)
TOLERANCE = wp.constant(0.05)
"""Depth agrees within MIN_TOLERANCE metres, or this share of the diameter where it is more."""
DARK = wp.constant(0.1)
"""Added to the sum of the channels, so that dark pixels count as grey."""
CHROMA_NOISE = wp.constant(0.03)
"""Contrast that a camera's noise and shading make: an object without print matches nothing, and misses nothing."""

SUMS = 6
"""Of what agrees in depth and colour, see ``agreement``."""
PRINTED_SUMS = 17
"""With those of print and of areas, which only ``describe`` needs."""
AREA_RADIUS = wp.constant(3)
"""Pixels between a pixel of an area and its neighbours that must belong to it: more than the rim of a right pose is wide."""

POSE, MODEL_PIXELS, DESCRIBED = slice(0, 16), 16, slice(17, 28)
"""Columns of a result row, which both programs read back: T_cam_center (4, 4), pixels of the model in view, and what
confidence.FEATURES names."""
RESULT_COLUMNS = DESCRIBED.stop


@wp.func
def print_color(color: wp.vec3f):
    """Chromaticity about grey: what shading leaves of a colour."""
    return color / (color[0] + color[1] + color[2] + DARK) - wp.vec3f(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0)


@wp.func
def color_at(image: wp.array4d(dtype=wp.float32), n: int, y: int, x: int):
    return wp.vec3f(image[n, y, x, 0], image[n, y, x, 1], image[n, y, x, 2])


@wp.func
def contradiction(
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    n: int,
    y: int,
    x: int,
    tolerance: float,
    center: wp.vec3f,
    radius: float,
):
    """1 where the model is seen through, -1 where something before its surface is within ``radius`` m of its centre, 0
    elsewhere and outside of the crop."""
    kind = int(0)
    if y >= 0 and x >= 0 and y < rendered_xyz.shape[1] and x < rendered_xyz.shape[2]:
        zr = rendered_xyz[n, y, x, 2]
        zo = observed_xyz[n, y, x, 2]
        if zr >= 0.001 and zo >= 0.001:
            if zo - zr > tolerance:
                kind = 1
            elif zr - zo > tolerance:
                point = wp.vec3f(observed_xyz[n, y, x, 0], observed_xyz[n, y, x, 1], zo)
                kind = wp.where(wp.length(point - center) <= radius, -1, 0)
    return kind


@wp.func
def area(
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    n: int,
    y: int,
    x: int,
    tolerance: float,
    center: wp.vec3f,
    radius: float,
):
    """The pixel's ``contradiction`` where its eight neighbours at AREA_RADIUS have the same, else 0."""
    kind = contradiction(rendered_xyz, observed_xyz, n, y, x, tolerance, center, radius)
    same = int(0)
    for j in range(-1, 2):
        for i in range(-1, 2):
            v = y + j * AREA_RADIUS
            u = x + i * AREA_RADIUS
            same += wp.where(
                contradiction(rendered_xyz, observed_xyz, n, v, u, tolerance, center, radius) == kind, 1, 0
            )
    return wp.where(same == 9, kind, 0)


@wp.kernel
def agreement(
    rendered_rgb: wp.array4d(dtype=wp.float32),
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_rgb: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    partial: wp.array3d(dtype=wp.float32),
):
    """Sums per view: model pixels, agreeing, occluded (observed nearer), violated (observed farther), depth residual of the
    agreeing in tolerances, colour difference of the agreeing. The rest of the model pixels has no depth.

    Where ``partial`` has PRINTED_SUMS rows, also what the correlation of print needs, over the agreeing: rendered and
    observed print colour (3 + 3), squared rendered, squared observed, product; and of the violated, and of the occluded
    within half a diameter of the model's centre, those whose eight neighbours at AREA_RADIUS are the same: the rims of a
    slightly wrong silhouette are too narrow for that.

    Launched over views, rows and LANES; each thread has a column of ``partial`` (N, SUMS or PRINTED_SUMS, rows * LANES) of
    its own: nothing need be cleared, and sums come out the same each time, as atomic ones do not.
    """
    n, y, lane = wp.tid()
    tolerance = wp.max(MIN_TOLERANCE, TOLERANCE * diameters[n])
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
    free_space_violation = float(0.0)
    occupancy = float(0.0)
    center = translation_of(poses[n])
    radius = 0.5 * diameters[n]
    for x in range(lane, rendered_xyz.shape[2], LANES):
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
                        r = print_color(a)
                        o = print_color(b)
                        rendered += r
                        observed += o
                        squares += wp.vec3f(wp.dot(r, r), wp.dot(o, o), wp.dot(r, o))
                else:
                    if dz < 0.0:
                        occluded += 1.0
                    else:
                        violated += 1.0
                    if printed:
                        kind = area(rendered_xyz, observed_xyz, n, y, x, tolerance, center, radius)
                        free_space_violation += wp.where(kind == 1, 1.0, 0.0)
                        occupancy += wp.where(kind == -1, 1.0, 0.0)
    column = y * LANES + lane
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
        partial[n, 15, column] = free_space_violation
        partial[n, 16, column] = occupancy


@wp.func
def print_match(sums: wp.array2d(dtype=wp.float32), n: int):
    """How well rendered print matches observed print, whatever the light: what tells the front of a bottle from its back.
    Match, in [-1, 1], and missed, in [0, 2].

    match: correlation of the rendered print with the observed one, pulled to 0 where the contrast of either is noise.
    missed: by how much it falls short of what it would be if the rendered print were all there, as saturated as it is
    seen or less. That is 0 where the model has no print in this view, and little where highlights and reflections, which
    no model knows, outshine what it has.
    """
    count = wp.max(sums[n, 1], 1.0)
    rendered = wp.vec3f(sums[n, 6], sums[n, 7], sums[n, 8]) / count
    observed = wp.vec3f(sums[n, 9], sums[n, 10], sums[n, 11]) / count
    in_model = wp.max(sums[n, 12] / count - wp.dot(rendered, rendered), 0.0)
    in_image = wp.max(sums[n, 13] / count - wp.dot(observed, observed), 0.0)
    together = sums[n, 14] / count - wp.dot(rendered, observed)
    noise = 3.0 * CHROMA_NOISE * CHROMA_NOISE
    scale = wp.sqrt((in_model + noise) * (in_image + noise))
    wanted = wp.sqrt(in_model * wp.min(in_model, in_image))
    return wp.vec2f(together / scale, wp.max(wanted - together, 0.0) / scale)


@wp.kernel
def describe(
    sums: wp.array2d(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
    delta: wp.array(dtype=wp.vec2f),
    rows: wp.array2d(dtype=wp.float32),
):
    """Result rows (N, RESULT_COLUMNS) of poses whose views have the sums (N, PRINTED_SUMS). delta: last updates, mesh radii
    and rad.

    The features: visible, share of the model's pixels that agree in depth; violated, of those with depth that does not come
    from an occluder, the share seen behind the model, which should have hidden it; missing, without depth; residual, depth
    difference of the agreeing, in tolerances; color, colour difference of the agreeing, in [0, 1]; step, turn: size of the
    last update, square root; match, missed: see ``print_match``; free_space_violation, square root of the share that whole areas
    seen through have of what violated is a share of; occupancy, share of whole areas before the model but inside of its
    sphere, where it has nothing, among those and what violated is a share of: the bottom of a mug in place of its opening.
    """
    n = wp.tid()
    pose = poses[n]
    for i in range(4):
        for j in range(4):
            rows[n, i * 4 + j] = pose[i, j]
    model = sums[n, 0]
    agree = sums[n, 1]
    violated = sums[n, 3]
    total = wp.max(model, 1.0)
    matched = wp.max(agree, 1.0)
    step = delta[n]
    match = print_match(sums, n)
    rows[n, 16] = model
    rows[n, 17] = agree / total
    rows[n, 18] = violated / wp.max(agree + violated, 1.0)
    rows[n, 19] = wp.max(model - agree - sums[n, 2] - violated, 0.0) / total
    rows[n, 20] = sums[n, 4] / matched
    rows[n, 21] = sums[n, 5] / matched
    rows[n, 22] = wp.sqrt(wp.min(step[0], 1.0))
    rows[n, 23] = wp.sqrt(wp.min(step[1], 1.0))
    rows[n, 24] = match[0]
    rows[n, 25] = match[1]
    rows[n, 26] = wp.sqrt(sums[n, 15] / wp.max(agree + violated, 1.0))
    rows[n, 27] = sums[n, 16] / wp.max(agree + violated + sums[n, 16], 1.0)
