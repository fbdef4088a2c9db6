"""Warp kernels that compare rendered views with the image: sums over their pixels, and what these say of the pose."""

from __future__ import annotations

import warp as wp

from .agreement_columns import (
    MODEL_PIXELS,
    ROW_COLOR,
    ROW_FREE_SPACE_VIOLATION,
    ROW_MISSING,
    ROW_OCCUPANCY,
    ROW_RESIDUAL,
    ROW_STEP,
    ROW_TEXTURE_AGREEMENT,
    ROW_TEXTURE_MISSING,
    ROW_TURN,
    ROW_VIOLATED,
    ROW_VISIBLE,
    SHAPE_SUMS,
    SUM_AGREE,
    SUM_COLOR,
    SUM_FREE_SPACE_VIOLATION,
    SUM_INSIDE,
    SUM_MODEL,
    SUM_OBSERVED_SQUARED,
    SUM_OBSERVED_TEXTURE,
    SUM_OCCLUDED,
    SUM_OCCUPANCY,
    SUM_OUTSIDE,
    SUM_PRODUCT,
    SUM_RENDERED_SQUARED,
    SUM_RENDERED_TEXTURE,
    SUM_RESIDUAL,
    SUM_VIOLATED,
)
from .render_kernels import pose_translation
from .warp_kernels import crop_pixel

wp.set_module_options({"enable_backward": False, "fast_math": False})

LANES = wp.constant(32)
"""So many threads share a row of pixels."""
MIN_TOLERANCE = wp.constant(0.004)
TOLERANCE = wp.constant(0.05)
"""Depth agrees within MIN_TOLERANCE metres, or this share of the diameter where it is more."""
DARK = wp.constant(0.1)
"""This is added to the sum of the channels, so that dark pixels count as grey."""
CHROMA_NOISE = wp.constant(0.03)
"""A camera's noise and shading make this much contrast: an object without texture agrees with nothing, and misses nothing."""
AREA_RADIUS = wp.constant(3)
"""An area's pixel has neighbours of its kind so many pixels away: the rim of a right pose is narrower than that."""


@wp.func
def chromaticity(color: wp.vec3f):
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

    Where ``partial`` has ALL_SUMS rows, also what the correlation of texture needs, over the agreeing: rendered and
    observed chromaticity (3 + 3), squared rendered, squared observed, product; and of the violated, and of the occluded
    within half a diameter of the model's centre, those whose eight neighbours at AREA_RADIUS are the same: the rims of a
    slightly wrong silhouette are too narrow for that.

    Launched over views, rows and LANES; each thread has a column of ``partial`` (N, SHAPE_SUMS or ALL_SUMS, rows * LANES)
    of its own: nothing need be cleared, and sums come out the same each time, as atomic ones do not.
    """
    n, y, lane = wp.tid()
    tolerance = wp.max(MIN_TOLERANCE, TOLERANCE * diameters[n])
    textured = partial.shape[1] > SHAPE_SUMS
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
    center = pose_translation(poses[n])
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
                    if textured:
                        r = chromaticity(a)
                        o = chromaticity(b)
                        rendered += r
                        observed += o
                        squares += wp.vec3f(wp.dot(r, r), wp.dot(o, o), wp.dot(r, o))
                else:
                    if dz < 0.0:
                        occluded += 1.0
                    else:
                        violated += 1.0
                    if textured:
                        kind = area(rendered_xyz, observed_xyz, n, y, x, tolerance, center, radius)
                        free_space_violation += wp.where(kind == 1, 1.0, 0.0)
                        occupancy += wp.where(kind == -1, 1.0, 0.0)
    column = y * LANES + lane
    partial[n, SUM_MODEL, column] = model
    partial[n, SUM_AGREE, column] = agree
    partial[n, SUM_OCCLUDED, column] = occluded
    partial[n, SUM_VIOLATED, column] = violated
    partial[n, SUM_RESIDUAL, column] = residual
    partial[n, SUM_COLOR, column] = color
    if textured:
        for c in range(3):
            partial[n, SUM_RENDERED_TEXTURE + c, column] = rendered[c]
            partial[n, SUM_OBSERVED_TEXTURE + c, column] = observed[c]
        partial[n, SUM_RENDERED_SQUARED, column] = squares[0]
        partial[n, SUM_OBSERVED_SQUARED, column] = squares[1]
        partial[n, SUM_PRODUCT, column] = squares[2]
        partial[n, SUM_FREE_SPACE_VIOLATION, column] = free_space_violation
        partial[n, SUM_OCCUPANCY, column] = occupancy


@wp.kernel
def silhouette(
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    mask: wp.array2d(dtype=wp.bool),
    windows: wp.array(dtype=wp.vec4f),
    diameters: wp.array(dtype=wp.float32),
    partial: wp.array3d(dtype=wp.float32),
):
    """Sums per view: pixels of the model inside the object's mask (H, W), and those outside of it that nothing occludes. Pixels
    beyond the image count as neither.

    windows: of the crops in the image, px. Launched as ``agreement``; partial (N, SILHOUETTE_SUMS, rows * LANES).
    """
    n, y, lane = wp.tid()
    tolerance = wp.max(MIN_TOLERANCE, TOLERANCE * diameters[n])
    inside = float(0.0)
    outside = float(0.0)
    for x in range(lane, rendered_xyz.shape[2], LANES):
        at = crop_pixel(windows[n], x, y, float(rendered_xyz.shape[2]), mask.shape[1], mask.shape[0])
        u = int(wp.rint(at[0]))
        v = int(wp.rint(at[1]))
        zr = rendered_xyz[n, y, x, 2]
        if zr >= 0.001 and u >= 0 and v >= 0 and u < mask.shape[1] and v < mask.shape[0]:
            if mask[v, u]:
                inside += 1.0
            else:
                zo = observed_xyz[n, y, x, 2]
                outside += wp.where(zo >= 0.001 and zo < zr - tolerance, 0.0, 1.0)
    column = y * LANES + lane
    partial[n, SUM_INSIDE, column] = inside
    partial[n, SUM_OUTSIDE, column] = outside


@wp.func
def texture_agreement(sums: wp.array2d(dtype=wp.float32), n: int):
    """How well rendered texture matches observed texture, whatever the light: what tells the front of a bottle from its back.
    Agreement, in [-1, 1], and missing, in [0, 2].

    agreement: correlation of rendered chromaticity with the observed one, pulled to 0 where the contrast of either is noise.
    missing: by how much it falls short of what it would be if the rendered texture were all there, as saturated as it is
    seen or less. That is 0 where the model has no texture in this view, and little where highlights and reflections, which
    no model knows, outshine what it has.
    """
    count = wp.max(sums[n, SUM_AGREE], 1.0)
    rendered = (
        wp.vec3f(sums[n, SUM_RENDERED_TEXTURE], sums[n, SUM_RENDERED_TEXTURE + 1], sums[n, SUM_RENDERED_TEXTURE + 2])
        / count
    )
    observed = (
        wp.vec3f(sums[n, SUM_OBSERVED_TEXTURE], sums[n, SUM_OBSERVED_TEXTURE + 1], sums[n, SUM_OBSERVED_TEXTURE + 2])
        / count
    )
    in_model = wp.max(sums[n, SUM_RENDERED_SQUARED] / count - wp.dot(rendered, rendered), 0.0)
    in_image = wp.max(sums[n, SUM_OBSERVED_SQUARED] / count - wp.dot(observed, observed), 0.0)
    together = sums[n, SUM_PRODUCT] / count - wp.dot(rendered, observed)
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
    """Result rows (N, RESULT_COLUMNS) of poses whose views have the sums (N, ALL_SUMS). delta: last updates, mesh radii
    and rad.

    The features: visible, share of the model's pixels that agree in depth; violated, of those with depth that does not come
    from an occluder, the share seen behind the model, which should have hidden it; missing, without depth; residual, depth
    difference of the agreeing, in tolerances; color, colour difference of the agreeing, in [0, 1]; step, turn: size of the
    last update, square root; texture_agreement, texture_missing: see ``texture_agreement``; free_space_violation, square
    root of the share that whole areas seen through have of what violated is a share of; occupancy, share of whole areas
    before the model but inside of its sphere, where it has nothing, among those and what violated is a share of: the bottom
    of a mug in place of its opening.
    """
    n = wp.tid()
    pose = poses[n]
    for i in range(4):
        for j in range(4):
            rows[n, i * 4 + j] = pose[i, j]
    model = sums[n, SUM_MODEL]
    agree = sums[n, SUM_AGREE]
    violated = sums[n, SUM_VIOLATED]
    total = wp.max(model, 1.0)
    matched = wp.max(agree, 1.0)
    step = delta[n]
    texture = texture_agreement(sums, n)
    rows[n, MODEL_PIXELS] = model
    rows[n, ROW_VISIBLE] = agree / total
    rows[n, ROW_VIOLATED] = violated / wp.max(agree + violated, 1.0)
    rows[n, ROW_MISSING] = wp.max(model - agree - sums[n, SUM_OCCLUDED] - violated, 0.0) / total
    rows[n, ROW_RESIDUAL] = sums[n, SUM_RESIDUAL] / matched
    rows[n, ROW_COLOR] = sums[n, SUM_COLOR] / matched
    rows[n, ROW_STEP] = wp.sqrt(wp.min(step[0], 1.0))
    rows[n, ROW_TURN] = wp.sqrt(wp.min(step[1], 1.0))
    rows[n, ROW_TEXTURE_AGREEMENT] = texture[0]
    rows[n, ROW_TEXTURE_MISSING] = texture[1]
    rows[n, ROW_FREE_SPACE_VIOLATION] = wp.sqrt(sums[n, SUM_FREE_SPACE_VIOLATION] / wp.max(agree + violated, 1.0))
    rows[n, ROW_OCCUPANCY] = sums[n, SUM_OCCUPANCY] / wp.max(agree + violated + sums[n, SUM_OCCUPANCY], 1.0)
