"""Warp kernels of the fusion of depth images into a volume, of views into the colours of a surface, and of its texture."""

from __future__ import annotations

import warp as wp


@wp.kernel
def integrate(
    depth: wp.array2d(dtype=wp.float32),
    camera: wp.vec4f,
    T_cam_volume: wp.mat44f,
    origin: wp.vec3f,
    voxel: wp.float32,
    band: wp.float32,
    distance: wp.array3d(dtype=wp.float32),
    weight: wp.array3d(dtype=wp.float32),
):
    """Truncated signed distances along the ray (Curless and Levoy 1996), averaged with a weight of 1 / z^2.

    The weight falls off behind the surface, or views of the outside of a thin wall would thicken it on the inside.

    distance: in units of ``band`` (m), 1 in front of the surface, -1 behind. Negative depth is that of what is not the
    object: it only tells that nothing is before it.
    """
    i, j, k = wp.tid()
    p = origin + voxel * wp.vec3f(wp.float32(i), wp.float32(j), wp.float32(k))
    q = wp.transform_point(T_cam_volume, p)
    if q[2] < 0.05:
        return
    u = wp.int32(wp.round(q[0] / q[2] * camera[0] + camera[2]))
    v = wp.int32(wp.round(q[1] / q[2] * camera[1] + camera[3]))
    if u < 0 or v < 0 or v >= depth.shape[0] or u >= depth.shape[1]:
        return
    d = wp.abs(depth[v, u])
    if d == 0.0:
        return
    # Along the ray, not the axis: a voxel beside the middle of the image is farther away than its z.
    along = wp.length(q) / q[2]
    signed = (d - q[2]) * along / band
    if signed < -1.0:
        return
    if depth[v, u] < 0.0:
        if signed * band < voxel:
            return
        signed = 1.0
    w = 0.25 / (d * d)
    behind = -signed * band
    if behind > voxel:
        w = w * wp.max((band - behind) / (band - voxel), 0.02)
    before = weight[i, j, k]
    distance[i, j, k] = (distance[i, j, k] * before + wp.min(signed, 1.0) * w) / (before + w)
    weight[i, j, k] = before + w


@wp.kernel
def colour(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    pure: wp.array2d(dtype=wp.uint8),
    gain: wp.vec3f,
    camera: wp.vec4f,
    T_cam_volume: wp.mat44f,
    points: wp.array(dtype=wp.vec3f),
    normals: wp.array(dtype=wp.vec3f),
    tolerance: wp.float32,
    total: wp.array(dtype=wp.vec3f),
    weight: wp.array(dtype=wp.float32),
    views: wp.array(dtype=wp.int32),
):
    """Adds the colour of each surface point in one view, times ``gain``, where it is seen; views near the normal count most.

    pure: 0 for pixels that are mixed of two things, which count a thousandth.
    """
    i = wp.tid()
    q = wp.transform_point(T_cam_volume, points[i])
    if q[2] < 0.05:
        return
    x = q[0] / q[2] * camera[0] + camera[2]
    y = q[1] / q[2] * camera[1] + camera[3]
    u = wp.int32(wp.floor(x))
    v = wp.int32(wp.floor(y))
    if u < 1 or v < 1 or v >= depth.shape[0] - 2 or u >= depth.shape[1] - 2:
        return
    row = wp.int32(wp.round(y))
    column = wp.int32(wp.round(x))
    d = depth[row, column]
    if d <= 0.0 or wp.abs(d - q[2]) > tolerance:
        return
    n = wp.transform_vector(T_cam_volume, normals[i])
    cosine = -wp.dot(n, q) / wp.length(q)
    if cosine < 0.2:
        return
    a = x - wp.float32(u)
    b = y - wp.float32(v)
    c = wp.vec3f(0.0, 0.0, 0.0)
    for dv in range(2):
        for du in range(2):
            share = wp.abs(1.0 - wp.float32(du) - a) * wp.abs(1.0 - wp.float32(dv) - b)
            c += share * wp.vec3f(
                wp.float32(rgb[v + dv, u + du, 0]),
                wp.float32(rgb[v + dv, u + du, 1]),
                wp.float32(rgb[v + dv, u + du, 2]),
            )
    w = wp.pow(cosine, 4.0) / (q[2] * q[2])
    if pure[row, column] == wp.uint8(0):
        w = 0.001 * w
    total[i] = total[i] + w * wp.cw_mul(gain, c)
    weight[i] = weight[i] + w
    views[i] = views[i] + 1


@wp.kernel
def nearest_face(
    charts: wp.uint64,
    farthest: wp.float32,
    face: wp.array2d(dtype=wp.int32),
    share: wp.array2d(dtype=wp.vec3f),
):
    """Which face of flat charts, in texels, is nearest to each texel's middle, and the shares of its corners there."""
    row, column = wp.tid()
    p = wp.vec3f(wp.float32(column) + 0.5, wp.float32(row) + 0.5, 0.0)
    found = wp.mesh_query_point_no_sign(charts, p, farthest)
    face[row, column] = found.face
    share[row, column] = wp.vec3f(found.u, found.v, 1.0 - found.u - found.v)
