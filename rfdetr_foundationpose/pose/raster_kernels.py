"""Warp kernels that render views by rasterization: the images that ray casting gives (render_kernels.py), faster for meshes of
up to some ten thousand faces (``renderer.MOST_FACES``).

Two kernels: ``rasterize`` goes over faces and leaves in every pixel the key of the nearest one, ``shade_inputs`` goes over
pixels and colours what the keys name. A key is 64 bits, the depth in the upper half and the index of the face in the lower, so
that the smallest key is the nearest face and one atomic minimum decides.
"""

from __future__ import annotations

from typing import Any

import warp as wp

from .render_kernels import BankData, pixel_ray, pose_rotation, pose_translation, shaded, store_input, unravel

wp.set_module_options({"enable_backward": False, "fast_math": False})

NOTHING = 0x7FFFFFFFFFFFFFFF
_NOTHING = wp.constant(wp.int64(NOTHING))
"""A pixel that no face covers has this key, the largest there is."""
OVERLAP = wp.constant(1.0e-4)
"""Faces are enlarged beyond their edges by this share of their size, so that rounding leaves no gap between neighbours."""
SLACK = wp.constant(0.125)
"""So many pixels around the projection of a face are tested too: a hundred times what rounding moves an edge by."""
FAR = wp.constant(1.0e4)
"""A face with a corner so many columns or rows from the window is tested over its whole bounding box: floats are too coarse
there to say where an edge crosses a row."""
STEEP = wp.constant(20.0)
"""A face whose farthest depth is more than so many times its nearest is tested so too: it all but touches the camera, and
rounding of barycentric coordinates moves its edges by pixels."""


# The bits of positive floats, read as integers, are ordered as the floats are.
@wp.func_native("""
    union { float depth; int bits; } both;
    both.depth = z;
    return ((wp::int64)both.bits << 32) | (wp::int64)face;
""")
def depth_key(z: float, face: int) -> wp.int64: ...


@wp.struct
class Corners:
    """The three corners of a face in the camera frame, m."""

    a: wp.vec3f
    b: wp.vec3f
    c: wp.vec3f


@wp.func
def camera_corners(bank: BankData, mesh: int, face: int, T: wp.mat44f):
    corner = (bank.first_face[mesh] + face) * 3
    R = pose_rotation(T)
    t = pose_translation(T)
    corners = Corners()
    corners.a = R * bank.vertex[bank.corner_vertex[corner]] + t
    corners.b = R * bank.vertex[bank.corner_vertex[corner + 1]] + t
    corners.c = R * bank.vertex[bank.corner_vertex[corner + 2]] + t
    return corners


@wp.struct
class RayFactors:
    """What ``intersect`` multiplies a ray from the camera's centre by: b and c for the coordinates of these corners, all for
    the sum of three."""

    b: wp.vec3f
    c: wp.vec3f
    all: wp.vec3f
    depth: float


@wp.func
def ray_factors(corners: Corners):
    """The products of Moeller and Trumbore's intersection (1997) that hold no ray: the same for all pixels of a face."""
    to_b = corners.b - corners.a
    to_c = corners.c - corners.a
    factors = RayFactors()
    factors.b = wp.cross(corners.a, to_c)
    factors.c = wp.cross(to_b, corners.a)
    factors.all = wp.cross(to_c, to_b)
    factors.depth = wp.dot(to_c, factors.c)
    return factors


@wp.func
def intersect(factors: RayFactors, ray: wp.vec3f):
    """Barycentric coordinates of the second and the third corner where a ray meets the plane of a face, and the depth there;
    the ray is given by its point at depth 1. All three are infinite or NaN where ray and plane are parallel."""
    total = wp.dot(factors.all, ray)
    return wp.vec3f(wp.dot(factors.b, ray) / total, wp.dot(factors.c, ray) / total, factors.depth / total)


@wp.func
def project(p: wp.vec3f, window: wp.vec4f, camera: wp.vec4f, size: wp.vec2f):
    """Column and row, with fractions, where a point in front of the camera is seen."""
    u = camera[0] * p[0] / p[2] + camera[2]
    v = camera[1] * p[1] / p[2] + camera[3]
    return wp.vec2f(
        (u - window[0]) / (window[2] - window[0]) * size[0] - 0.5,
        (v - window[1]) / (window[3] - window[1]) * size[1] - 0.5,
    )


@wp.func
def expand(corner: wp.vec3f, middle: wp.vec3f):
    """A corner moved away from the middle of its face by OVERLAP and a tenth more: no point beyond passes the test of
    ``rasterize``, rounding included. middle: the sum of the three corners. Next to the camera it moves by many pixels."""
    return corner + 1.1 * OVERLAP * (3.0 * corner - middle)


@wp.func
def clamp_to_int(x: float, most: int):
    """``x`` without its fraction, clamped to 0 .. ``most``; 0 where it is NaN. It is clamped as a float, since one that does
    not fit an int becomes any number, and loops are bounded by this."""
    if not (x > 0.0):
        return 0
    if x >= float(most):
        return most
    return int(x)


@wp.func
def first_pixel(x: float, most: int):
    """The first of ``most`` pixels to test for a face that begins at ``x``."""
    return clamp_to_int(wp.ceil(x - SLACK), most)


@wp.func
def end_pixel(x: float, most: int):
    """The pixel after the last to test for a face that ends at ``x``."""
    return clamp_to_int(wp.floor(x + SLACK) + 1.0, most)


@wp.struct
class Edge:
    """An edge of a projected face. top: column and row of its upper end; bottom: row of its lower end; slope: columns a row."""

    top: wp.vec2f
    bottom: float
    slope: float


@wp.func
def make_edge(p: wp.vec2f, q: wp.vec2f):
    top = p
    bottom = q
    if q[1] < p[1]:
        top = q
        bottom = p
    edge = Edge()
    edge.top = top
    edge.bottom = bottom[1]
    # Rows that differ do so by 2^-26 or more (``project`` subtracts 0.5), so that the bound changes the slope only of edges
    # along a row. ``widen`` finds p alone of such an edge; it finds q as the beginning of the next edge of the face.
    edge.slope = (bottom[0] - top[0]) / wp.max(bottom[1] - top[1], 1.0e-9)
    return edge


@wp.func
def widen(span: wp.vec2f, edge: Edge, row: float):
    """``span``, a first and a last column, made to hold also the part of an edge that lies within SLACK of a row."""
    start = wp.max(row - SLACK, edge.top[1])
    end = wp.min(row + SLACK, edge.bottom)
    if start > end:
        return span
    p = edge.top[0] + (start - edge.top[1]) * edge.slope
    q = edge.top[0] + (end - edge.top[1]) * edge.slope
    return wp.vec2f(wp.min(span[0], wp.min(p, q)), wp.max(span[1], wp.max(p, q)))


@wp.kernel
def rasterize(
    bank: BankData,
    mesh_index: wp.array(dtype=wp.int32),
    poses: wp.array(dtype=wp.mat44f),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    near: float,
    lanes: int,
    keys: wp.array3d(dtype=wp.int64),
):
    """Put the key of the nearest face into every pixel that one covers. Launched over views, faces of the largest mesh, and
    ``lanes`` threads a face, which take its rows by turns."""
    n, face, lane = wp.tid()
    mesh = mesh_index[n]
    if face >= bank.face_count[mesh]:
        return
    corners = camera_corners(bank, mesh, face, poses[n])
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
    window = windows[n]
    camera = cameras[n % cameras.shape[0]]
    rows = keys.shape[1]
    columns = keys.shape[2]
    size = wp.vec2f(float(columns), float(rows))
    a = wp.vec2f(0.0, 0.0)
    b = size
    c = size
    if nearest > near:  # else it has no projection, and the whole window is tested
        a = project(expanded_a, window, camera, size)
        b = project(expanded_b, window, camera, size)
        c = project(expanded_c, window, camera, size)
    low = wp.min(a, wp.min(b, c))
    high = wp.max(a, wp.max(b, c))
    x0 = first_pixel(low[0], columns)
    x1 = end_pixel(high[0], columns)
    if x0 >= x1:
        return
    # Comparisons with NaN are false, so that a face with one is tested over its whole bounding box.
    by_edges = nearest > near and farthest < STEEP * nearest
    by_edges = by_edges and low[0] > -FAR and low[1] > -FAR and high[0] < FAR and high[1] < FAR
    ab = make_edge(a, b)
    bc = make_edge(b, c)
    ca = make_edge(c, a)
    factors = ray_factors(corners)
    for y in range(first_pixel(low[1], rows) + lane, end_pixel(high[1], rows), lanes):
        start = x0
        end = x1
        if by_edges:
            # The part of a triangle between two rows is convex, so that its first and last columns lie on edges.
            span = wp.vec2f(size[0], -1.0)
            span = widen(span, ab, float(y))
            span = widen(span, bc, float(y))
            span = widen(span, ca, float(y))
            start = first_pixel(span[0], columns)
            end = end_pixel(span[1], columns)
        for x in range(start, end):
            at = intersect(factors, pixel_ray(wp.vec2f(float(x), float(y)), window, camera, size))
            if at[0] >= -OVERLAP and at[1] >= -OVERLAP and at[0] + at[1] <= 1.0 + OVERLAP and at[2] >= near:
                wp.atomic_min(keys, n, y, x, depth_key(at[2], face))


@wp.kernel
def shade_inputs(
    bank: BankData,
    mesh_index: wp.array(dtype=wp.int32),
    poses: wp.array(dtype=wp.mat44f),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    keys: wp.array3d(dtype=wp.int64),
    out: wp.array4d(dtype=Any),
):
    """Network inputs (N, R, C, 6) of the faces that ``rasterize`` found. Launched over all pixels. Clears the keys for the next
    rasterization."""
    place = unravel(wp.tid(), out.shape[1], out.shape[2])
    n = place[0]
    y = place[1]
    x = place[2]
    key = keys[n, y, x]
    T = poses[n]
    rgb = wp.vec3f(0.0, 0.0, 0.0)
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    if key != _NOTHING:
        keys[n, y, x] = _NOTHING
        face = int(key & wp.int64(0xFFFFFFFF))
        mesh = mesh_index[n]
        size = wp.vec2f(float(out.shape[2]), float(out.shape[1]))
        ray = pixel_ray(wp.vec2f(float(x), float(y)), windows[n], cameras[n % cameras.shape[0]], size)
        at = intersect(ray_factors(camera_corners(bank, mesh, face, T)), ray)
        xyz = ray * at[2]
        rgb = shaded(bank, mesh, face, 1.0 - at[0] - at[1], at[0], pose_rotation(T))
    store_input(out, n, y, x, rgb, xyz, pose_translation(T), 2.0 / diameters[n], min_z)


# Every overload that is used is declared, so that Warp compiles the module once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(shade_inputs, {"out": wp.array4d(dtype=_dtype)})
