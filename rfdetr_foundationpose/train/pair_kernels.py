"""Warp kernel of the observed side of training pairs: a small random scene seen directly through a crop window."""

from __future__ import annotations

import warp as wp

from ..pose.render_kernels import (
    BankData,
    back_project,
    bank_color,
    bank_normal,
    pose_rotation,
    pose_translation,
    tile_pixel,
)
from ..pose.warp_kernels import observed_coordinate

wp.set_module_options({"enable_backward": False, "fast_math": True})


@wp.struct
class SceneData:
    """S scenes. mesh/pose: (S, M) instances, mesh -1 is none, instance 0 is the target.
    tint: (S, M) RGB and how much of it replaces the instance's own colour.
    plane: (S, P) backgrounds n . X = d, d 0 is none; color: two RGB colours a plane, mixed by noise.
    box/box_half: (S, B) poses and half sizes of plain boxes, half 0 is none. capsule: (S, C, 2) ends, radius 0 is none.
    light: unit direction towards the light; level: ambient, diffuse, specular."""

    mesh: wp.array2d(dtype=wp.int32)
    pose: wp.array2d(dtype=wp.mat44f)
    tint: wp.array2d(dtype=wp.vec4f)
    plane: wp.array2d(dtype=wp.vec4f)
    color: wp.array3d(dtype=wp.vec3f)
    box: wp.array2d(dtype=wp.mat44f)
    box_half: wp.array2d(dtype=wp.vec3f)
    box_color: wp.array2d(dtype=wp.vec3f)
    capsule: wp.array3d(dtype=wp.vec3f)
    capsule_radius: wp.array2d(dtype=wp.float32)
    hand_color: wp.array(dtype=wp.vec3f)
    light: wp.array(dtype=wp.vec3f)
    level: wp.array(dtype=wp.vec3f)
    camera: wp.array(dtype=wp.vec4f)
    size: wp.array(dtype=wp.vec2f)
    seed: wp.array(dtype=wp.int32)


@wp.func
def hits_sphere(origin: wp.vec3f, direction: wp.vec3f, center: wp.vec3f, radius: float):
    to = center - origin
    along = wp.dot(to, direction)
    return along > -radius and wp.length_sq(to) - along * along <= radius * radius


@wp.func
def hit_box(origin: wp.vec3f, direction: wp.vec3f, half: wp.vec3f):
    """Distance at which a ray enters a box about the origin, and the face's normal; -1 where it does not."""
    enter = float(-1.0e9)
    leave = float(1.0e9)
    normal = wp.vec3f(0.0, 0.0, 0.0)
    for i in range(3):
        slope = direction[i]
        if wp.abs(slope) < 1.0e-9:
            slope = float(1.0e-9)
        sign = wp.where(slope > 0.0, 1.0, -1.0)
        near = (-sign * half[i] - origin[i]) / slope
        far = (sign * half[i] - origin[i]) / slope
        if near > enter:
            enter = near
            normal = wp.vec3f(0.0, 0.0, 0.0)
            normal[i] = -sign
        leave = wp.min(leave, far)
    if enter > leave or enter < 0.0:
        enter = -1.0
    return wp.vec4f(normal[0], normal[1], normal[2], enter)


@wp.func
def hit_capsule(direction: wp.vec3f, a: wp.vec3f, b: wp.vec3f, radius: float):
    """Distance at which a unit ray from the origin enters a capsule, -1 where it does not."""
    ba = b - a
    baba = wp.dot(ba, ba)
    bard = wp.dot(ba, direction)
    baoa = -wp.dot(ba, a)
    rdoa = -wp.dot(direction, a)
    oaoa = wp.dot(a, a)
    qa = baba - bard * bard
    qb = baba * rdoa - baoa * bard
    qc = baba * oaoa - baoa * baoa - radius * radius * baba
    h = qb * qb - qa * qc
    if h < 0.0:
        return -1.0
    t = (-qb - wp.sqrt(h)) / wp.max(qa, 1.0e-12)
    y = baoa + t * bard
    if y > 0.0 and y < baba:
        return t
    to = -b
    if y <= 0.0:
        to = -a
    qb = wp.dot(direction, to)
    qc = wp.dot(to, to) - radius * radius
    h = qb * qb - qc
    if h <= 0.0:
        return -1.0
    return -qb - wp.sqrt(h)


@wp.kernel
def render_observed(
    bank: BankData,
    scene: SceneData,
    view_scene: wp.array(dtype=wp.int32),
    windows: wp.array(dtype=wp.vec4f),
    out_rgb: wp.array3d(dtype=wp.vec3f),
    out_z: wp.array3d(dtype=wp.float32),
    out_cosine: wp.array3d(dtype=wp.float32),
    out_target: wp.array3d(dtype=wp.float32),
):
    """Per crop pixel: colour, depth, cosine of incidence, and 1 where the target is seen.

    Launched over ``tiles``. Rays go through the source pixel that the crop would read, so the crop's coarseness is that of a real image.
    """
    n, tile_y, tile_x, lane = wp.tid()
    at = tile_pixel(tile_y, tile_x, lane)
    y = at[0]
    x = at[1]
    if y >= out_z.shape[1] or x >= out_z.shape[2]:
        return
    s = view_scene[n]
    w = windows[n]
    crop = float(out_z.shape[1])
    extent = scene.size[s]
    u = wp.rint(observed_coordinate(x, w[0], w[2], crop, extent[0]))
    v = wp.rint(observed_coordinate(y, w[1], w[3], crop, extent[1]))
    ray = back_project(scene.camera[s], u, v)
    length = wp.length(ray)
    view = ray / length

    best = float(1.0e6)
    color = wp.vec3f(0.0, 0.0, 0.0)
    normal = wp.vec3f(0.0, 0.0, -1.0)
    target = float(0.0)
    for m in range(scene.mesh.shape[1]):
        mesh = scene.mesh[s, m]
        if mesh >= 0:
            R = pose_rotation(scene.pose[s, m])
            t = pose_translation(scene.pose[s, m])
            origin = wp.transpose(R) * (-t)
            direction = wp.transpose(R) * view
            if hits_sphere(origin, direction, bank.center[mesh], bank.radius[mesh]):
                hit = wp.mesh_query_ray(bank.mesh[mesh], origin, direction, best)
                if hit.result and hit.t < best:
                    best = hit.t
                    tint = scene.tint[s, m]
                    color = bank_color(bank, mesh, hit.face, hit.u, hit.v)
                    color = color * (1.0 - tint[3]) + wp.vec3f(tint[0], tint[1], tint[2]) * tint[3]
                    normal = R * bank_normal(bank, mesh, hit.face, hit.u, hit.v)
                    target = wp.where(m == 0, 1.0, 0.0)
    for b in range(scene.box.shape[1]):
        half = scene.box_half[s, b]
        if half[0] > 0.0:
            R = pose_rotation(scene.box[s, b])
            origin = wp.transpose(R) * (-pose_translation(scene.box[s, b]))
            entered = hit_box(origin, wp.transpose(R) * view, half)
            if entered[3] > 0.0 and entered[3] < best:
                best = entered[3]
                state = wp.rand_init(scene.seed[s], 16 + b)
                color = scene.box_color[s, b] * (0.85 + 0.3 * wp.noise(state, view * best * 40.0))
                normal = R * wp.vec3f(entered[0], entered[1], entered[2])
                target = 0.0
    for c in range(scene.capsule_radius.shape[1]):
        radius = scene.capsule_radius[s, c]
        if radius > 0.0:
            start = scene.capsule[s, c, 0]
            end = scene.capsule[s, c, 1]
            at_distance = hit_capsule(view, start, end, radius)
            if at_distance > 0.05 and at_distance < best:
                best = at_distance
                point = view * best
                axis = end - start
                along = wp.dot(point - start, axis) / wp.max(wp.dot(axis, axis), 1.0e-12)
                nearest = start + axis * wp.clamp(along, 0.0, 1.0)
                color = scene.hand_color[s]
                normal = wp.normalize(point - nearest)
                target = 0.0
    for p in range(scene.plane.shape[1]):
        plane = scene.plane[s, p]
        n_p = wp.vec3f(plane[0], plane[1], plane[2])
        slope = wp.dot(n_p, view)
        if plane[3] != 0.0 and wp.abs(slope) > 1.0e-4:
            distance = plane[3] / slope
            if distance > 0.05 and distance < best:
                best = distance
                point = view * distance
                state = wp.rand_init(scene.seed[s], p)
                grain = (
                    wp.noise(state, point * 6.0)
                    + 0.5 * wp.noise(state, point * 25.0)
                    + 0.25 * wp.noise(state, point * 110.0)
                )
                mix = wp.clamp(0.5 + grain, 0.0, 1.0)
                color = scene.color[s, p, 0] * mix + scene.color[s, p, 1] * (1.0 - mix)
                normal = n_p
                target = 0.0

    inside = u >= 0.0 and v >= 0.0 and u < extent[0] and v < extent[1]
    if best >= 1.0e5 or not inside:
        out_rgb[n, y, x] = wp.vec3f(0.0, 0.0, 0.0)
        out_z[n, y, x] = 0.0
        out_cosine[n, y, x] = 0.0
        out_target[n, y, x] = 0.0
        return
    facing_view = -wp.dot(normal, view)
    if facing_view < 0.0:
        normal = -normal
        facing_view = -facing_view
    light = scene.light[s]
    level = scene.level[s]
    diffuse = wp.max(wp.dot(normal, light), 0.0)
    half_way = wp.normalize(light - view)
    gloss = wp.max(wp.dot(normal, half_way), 0.0)
    gloss = wp.pow(gloss, 40.0)
    shaded = color * (level[0] + level[1] * diffuse) + wp.vec3f(1.0, 1.0, 1.0) * (level[2] * gloss)
    for c in range(3):
        shaded[c] = wp.clamp(shaded[c], 0.0, 1.0)
    out_rgb[n, y, x] = shaded
    out_z[n, y, x] = best / length
    out_cosine[n, y, x] = facing_view
    out_target[n, y, x] = target
