"""Warp kernels that align poses: sums of the normal equations over the pixels of their views, and the step.

What they compare is made by alignment_view_kernels, which says where a view's pixels lie.
"""

from __future__ import annotations

import math

import warp as wp

from .alignment_view_kernels import offset, pixel_size, reach_of
from .render_kernels import back_project, pose_rotation, pose_translation
from .warp_kernels import turned

wp.set_module_options({"enable_backward": False, "fast_math": False})

vec6 = wp.types.vector(length=6, dtype=wp.float32)
mat66 = wp.types.matrix(shape=(6, 6), dtype=wp.float32)

LANES = wp.constant(8)
"""So many threads share a row of pixels."""
DEPTH_SIGMA = wp.constant(0.002)
"""A depth camera's errors are of this size, m, or as large as what is left."""
FIRST_SIGMA = 0.004
"""... and taken for this at first."""
BRIGHTNESS_SIGMA = wp.constant(0.5)
"""Brightness differs by so much of the local contrast where a pose is right."""
SAMPLES = wp.constant(60.0)
"""All pixels of a view together count as so many independent measurements of depth, and so many of brightness."""
FEWEST = wp.constant(40.0)
"""With fewer pixels than this nothing is aligned."""
TURN_SIGMA = wp.constant(math.radians(3.0))
"""The networks' rotations are off by so much, rad ..."""
SHIFT_SIGMA = wp.constant(0.015)
"""... and their translations by this part of the diameter."""

# Sums over the pixels of a view, (N, SUMS): a matrix (6, 6), a right side (6,) and pixels, each of depth and of brightness.
DEPTH_MATRIX = wp.constant(0)
DEPTH_RIGHT = wp.constant(36)
DEPTH_PIXELS = wp.constant(42)
DEPTH_DISTANCE = wp.constant(43)
BRIGHTNESS_MATRIX = wp.constant(44)
BRIGHTNESS_RIGHT = wp.constant(80)
BRIGHTNESS_PIXELS = wp.constant(86)
SUMS = 87


@wp.func
def observed_at(contrast: wp.array3d(dtype=wp.vec2f), n: int, x: float, y: float):
    """Contrast of the image at a place between pixels."""
    i = int(wp.floor(x))
    j = int(wp.floor(y))
    a = x - float(i)
    b = y - float(j)
    above = contrast[n, j, i][1] * (1.0 - a) + contrast[n, j, i + 1][1] * a
    below = contrast[n, j + 1, i][1] * (1.0 - a) + contrast[n, j + 1, i + 1][1] * a
    return above * (1.0 - b) + below * b


@wp.func
def all_visible(visible: wp.array3d(dtype=wp.float32), n: int, y: int, x: int):
    """Whether a pixel and its eight neighbours, which the caller knows to be in the view, are."""
    least = float(1.0)
    for j in range(-1, 2):
        for i in range(-1, 2):
            least = wp.min(least, visible[n, y + j, x + i])
    return least > 0.0


@wp.func
def robust(error: float, sigma: float):
    """Weight of an error (Geman and McClure)."""
    ratio = error / (2.0 * sigma)
    doubt = 1.0 + ratio * ratio
    return 1.0 / (doubt * doubt)


@wp.func
def about(arm: wp.vec3f, direction: wp.vec3f):
    """Derivative of a movement along ``direction`` by rotation about the pose's centre, then by translation."""
    turn = wp.cross(arm, direction)
    return vec6(turn[0], turn[1], turn[2], direction[0], direction[1], direction[2])


@wp.kernel
def gather(
    rendered: wp.array4d(dtype=wp.float32),
    normals: wp.array3d(dtype=wp.vec3f),
    visible: wp.array3d(dtype=wp.float32),
    observed_depth: wp.array3d(dtype=wp.float32),
    contrast: wp.array3d(dtype=wp.vec2f),
    cameras: wp.array(dtype=wp.vec4f),
    windows: wp.array(dtype=wp.vec4f),
    starts: wp.array(dtype=wp.mat44f),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    scales: wp.array(dtype=wp.float32),
    out: wp.array3d(dtype=wp.float32),
):
    """(N, SUMS, R * LANES) partial sums at ``poses`` of what was rendered at ``starts``. scales: of the depth's errors, m."""
    n, y, lane = wp.tid()
    size = rendered.shape[1]
    camera = cameras[n % cameras.shape[0]]
    window = windows[n]
    pixel = pixel_size(window, size)
    radius = diameters[n] * 0.5
    reach = reach_of(diameters[n])
    center = pose_translation(poses[n])
    turn = pose_rotation(poses[n]) * wp.transpose(pose_rotation(starts[n]))
    depth_matrix = mat66(0.0)
    depth_right = vec6(0.0)
    depth_count = float(0.0)
    distance = float(0.0)
    bright_matrix = mat66(0.0)
    bright_right = vec6(0.0)
    bright_count = float(0.0)
    for x in range(lane, size, LANES):
        normal = normals[n, y, x]
        if wp.length_sq(normal) == 0.0:
            continue
        arm = turn * offset(rendered, n, y, x, radius)
        point = center + arm
        u = camera[0] * point[0] / point[2] + camera[2]
        v = camera[1] * point[1] / point[2] + camera[3]
        column = (u - window[0]) / pixel[0] - 0.5
        row = (v - window[1]) / pixel[1] - 0.5
        # A pixel's margin for differences; what is no number is outside as well.
        inside = column >= 1.0 and row >= 1.0 and column < float(size - 2) and row < float(size - 2)
        if not inside:
            continue
        i = int(wp.rint(column))
        j = int(wp.rint(row))
        z = observed_depth[n, j, i]
        near = z > 0.0 and wp.abs(z - point[2]) < reach
        if near:
            direction = turn * normal
            at = wp.vec2f(window[0] + (float(i) + 0.5) * pixel[0], window[1] + (float(j) + 0.5) * pixel[1])
            ray = back_project(camera, at[0], at[1])
            error = wp.dot(ray * z - point, direction)
            J = about(arm, direction)
            weight = robust(error, scales[n])
            depth_matrix += weight * wp.outer(J, J)
            depth_right += weight * error * J
            depth_count += 1.0
            distance += wp.abs(error)
        if (near or z == 0.0) and all_visible(visible, n, y, x):
            right = observed_at(contrast, n, column + 1.0, row) - observed_at(contrast, n, column - 1.0, row)
            down = observed_at(contrast, n, column, row + 1.0) - observed_at(contrast, n, column, row - 1.0)
            right += contrast[n, y, x + 1][0] - contrast[n, y, x - 1][0]
            down += contrast[n, y + 1, x][0] - contrast[n, y - 1, x][0]
            du = 0.25 * right * camera[0] / (pixel[0] * point[2])
            dv = 0.25 * down * camera[1] / (pixel[1] * point[2])
            direction = wp.vec3f(du, dv, -(du * point[0] + dv * point[1]) / point[2])
            error = contrast[n, y, x][0] - observed_at(contrast, n, column, row)
            J = about(arm, direction)
            weight = robust(error, BRIGHTNESS_SIGMA)
            bright_matrix += weight * wp.outer(J, J)
            bright_right += weight * error * J
            bright_count += 1.0
    place = y * LANES + lane
    for a in range(6):
        for b in range(6):
            out[n, DEPTH_MATRIX + 6 * a + b, place] = depth_matrix[a, b]
            out[n, BRIGHTNESS_MATRIX + 6 * a + b, place] = bright_matrix[a, b]
        out[n, DEPTH_RIGHT + a, place] = depth_right[a]
        out[n, BRIGHTNESS_RIGHT + a, place] = bright_right[a]
    out[n, DEPTH_PIXELS, place] = depth_count
    out[n, DEPTH_DISTANCE, place] = distance
    out[n, BRIGHTNESS_PIXELS, place] = bright_count


@wp.func
def solve(A: mat66, b: vec6):
    """x of A x = b, A symmetric and positive definite (Cholesky)."""
    L = mat66(0.0)
    x = vec6(0.0)
    for i in range(6):
        for j in range(i + 1):
            total = A[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            if i == j:
                L[i, i] = wp.sqrt(wp.max(total, 1.0e-12))
            else:
                L[i, j] = total / L[j, j]
    for i in range(6):
        total = b[i]
        for k in range(i):
            total -= L[i, k] * x[k]
        x[i] = total / L[i, i]
    for back in range(6):
        i = 5 - back
        total = x[i]
        for k in range(i + 1, 6):
            total -= L[k, i] * x[k]
        x[i] = total / L[i, i]
    return x


@wp.func
def rotation_vector(R: wp.mat33f):
    """Axis times angle of a rotation of less than a half turn, rad."""
    twice = wp.vec3f(R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1])
    sine = wp.length(twice) * 0.5
    angle = wp.atan2(sine, (R[0, 0] + R[1, 1] + R[2, 2] - 1.0) * 0.5)
    return twice * wp.where(sine > 1.0e-7, angle / (2.0 * wp.max(sine, 1.0e-7)), 0.5)


@wp.kernel
def step(
    sums: wp.array2d(dtype=wp.float32),
    starts: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    scales: wp.array(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
):
    """A Gauss-Newton step of each pose, held by how far the networks are off; ``scales`` becomes what the depth's errors are."""
    n = wp.tid()
    pixels = sums[n, DEPTH_PIXELS]
    if not (pixels >= FEWEST):
        return
    start = pose_rotation(starts[n])
    R = pose_rotation(poses[n])
    t = pose_translation(poses[n])
    back = rotation_vector(start * wp.transpose(R))
    shift = pose_translation(starts[n]) - t
    A = mat66(0.0)
    b = vec6(0.0)
    depth = SAMPLES / (pixels * scales[n] * scales[n])
    bright = SAMPLES / (wp.max(sums[n, BRIGHTNESS_PIXELS], FEWEST) * BRIGHTNESS_SIGMA * BRIGHTNESS_SIGMA)
    for i in range(6):
        for j in range(6):
            A[i, j] = depth * sums[n, DEPTH_MATRIX + 6 * i + j] + bright * sums[n, BRIGHTNESS_MATRIX + 6 * i + j]
        b[i] = depth * sums[n, DEPTH_RIGHT + i] + bright * sums[n, BRIGHTNESS_RIGHT + i]
    turn_weight = 1.0 / (TURN_SIGMA * TURN_SIGMA)
    sigma = SHIFT_SIGMA * diameters[n]
    shift_weight = 1.0 / (sigma * sigma)
    for i in range(3):
        A[i, i] = A[i, i] + turn_weight
        A[i + 3, i + 3] = A[i + 3, i + 3] + shift_weight
        b[i] = b[i] + turn_weight * back[i]
        b[i + 3] = b[i + 3] + shift_weight * shift[i]
    x = solve(A, b)
    scales[n] = wp.max(1.25 * sums[n, DEPTH_DISTANCE] / pixels, DEPTH_SIGMA)
    w = wp.vec3f(x[0], x[1], x[2])
    moved = t + wp.vec3f(x[3], x[4], x[5])
    if wp.length(w) + wp.length(moved) < 1.0e6:  # not where a number is none
        poses[n] = turned(poses[n], w, moved)
