"""Warp kernel of the observed side of training pairs: a small random scene seen directly through a crop window."""

from __future__ import annotations

import warp as wp
from torch import Tensor

from ..pose.raster_kernels import NOTHING as NO_KEY
from ..pose.raster_kernels import camera_corners, intersect, ray_factors
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

NOTHING, PLANE, CAPSULE, BOX, MESH = (wp.constant(i) for i in range(5))
"""What a ray has met."""
FACES = wp.constant(1 << 24)
"""No mesh has so many faces: a number of instance and face in one is the face plus so much for each instance before."""
_NO_KEY = wp.constant(wp.int64(NO_KEY))


@wp.func_native("""
    union { float depth; int bits; } both;
    both.bits = (int)(key >> 32);
    return both.depth;
""")
def key_depth(key: wp.int64) -> float: ...


@wp.struct
class SceneData:
    """S scenes. mesh/pose: (S, M) instances, mesh -1 is none, instance 0 is the target.
    tint: (S, M) RGB and how much of it replaces the instance's own colour.
    plane: (S, P) backgrounds n . X = d, d 0 is none; color: two RGB colours a plane, mixed by noise.
    box/box_half: (S, B) poses and half sizes of plain boxes, half 0 is none. capsule: (S, C, 2) ends, none from the
    first radius 0 on. box_ball: bounding spheres of boxes, centre and radius in the camera frame, nearest first and then
    those of none, whose radius is -1; box_order: (S, B) which box each is of.
    light: unit direction towards the light; level: ambient, diffuse, specular."""

    mesh: wp.array2d(dtype=wp.int32)
    pose: wp.array2d(dtype=wp.mat44f)
    tint: wp.array2d(dtype=wp.vec4f)
    plane: wp.array2d(dtype=wp.vec4f)
    color: wp.array3d(dtype=wp.vec3f)
    box: wp.array2d(dtype=wp.mat44f)
    box_half: wp.array2d(dtype=wp.vec3f)
    box_ball: wp.array2d(dtype=wp.vec4f)
    box_order: wp.array2d(dtype=wp.int32)
    box_color: wp.array2d(dtype=wp.vec3f)
    capsule: wp.array3d(dtype=wp.vec3f)
    capsule_radius: wp.array2d(dtype=wp.float32)
    hand_color: wp.array(dtype=wp.vec3f)
    light: wp.array(dtype=wp.vec3f)
    level: wp.array(dtype=wp.vec3f)
    camera: wp.array(dtype=wp.vec4f)
    size: wp.array(dtype=wp.vec2f)
    seed: wp.array(dtype=wp.int32)


def scene_data(tensors: dict[str, Tensor]) -> SceneData:
    """The struct of contiguous tensors by its fields' names; it lives in their memory."""
    data = SceneData()
    for name, declared in SceneData.vars.items():
        setattr(data, name, wp.from_torch(tensors[name], dtype=declared.type.dtype))
    return data


@wp.func
def may_hit(ball: wp.vec4f, view: wp.vec3f, best: float):
    """Whether a ray from the camera's centre enters a sphere before the distance ``best``."""
    center = wp.vec3f(ball[0], ball[1], ball[2])
    along = wp.dot(center, view)
    depth_sq = ball[3] * ball[3] - (wp.length_sq(center) - along * along)
    if depth_sq < 0.0 or along < -ball[3]:
        return False
    return along - wp.sqrt(depth_sq) < best


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
    keys: wp.array3d(dtype=wp.int64),
    out_rgb: wp.array3d(dtype=wp.vec3f),
    out_z: wp.array3d(dtype=wp.float32),
    out_cosine: wp.array3d(dtype=wp.float32),
    out_target: wp.array3d(dtype=wp.float32),
):
    """Per crop pixel: colour, depth, cosine of incidence, and 1 where the target is seen.

    keys: of the objects, from ``rasterize_scenes``, which finds them cleared the next time. Launched over ``tiles``. Rays go through the
    source pixel that the crop would read, so the crop's coarseness is that of a real image.
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

    # What is nearest is found before it is coloured, and what is cheap to ask before what is not.
    best = float(1.0e6)
    kind = int(NOTHING)
    which = int(0)
    for p in range(scene.plane.shape[1]):
        plane = scene.plane[s, p]
        slope = wp.dot(wp.vec3f(plane[0], plane[1], plane[2]), view)
        if plane[3] != 0.0 and wp.abs(slope) > 1.0e-4:
            distance = plane[3] / slope
            if distance > 0.05 and distance < best:
                best = distance
                kind = PLANE
                which = p
    for c in range(scene.capsule_radius.shape[1]):
        radius = scene.capsule_radius[s, c]
        if radius <= 0.0:
            break
        at_distance = hit_capsule(view, scene.capsule[s, c, 0], scene.capsule[s, c, 1], radius)
        if at_distance > 0.05 and at_distance < best:
            best = at_distance
            kind = CAPSULE
            which = c
    side = wp.vec3f(0.0, 0.0, 0.0)
    for i in range(scene.box_ball.shape[1]):
        ball = scene.box_ball[s, i]
        if ball[3] < 0.0:
            break
        if may_hit(ball, view, best):
            b = scene.box_order[s, i]
            R = pose_rotation(scene.box[s, b])
            origin = wp.transpose(R) * (-pose_translation(scene.box[s, b]))
            entered = hit_box(origin, wp.transpose(R) * view, scene.box_half[s, b])
            if entered[3] > 0.0 and entered[3] < best:
                best = entered[3]
                kind = BOX
                which = b
                side = wp.vec3f(entered[0], entered[1], entered[2])
    key = keys[n, y, x]
    if key != _NO_KEY:
        keys[n, y, x] = _NO_KEY
        distance = key_depth(key) * length
        if distance < best:
            best = distance
            kind = MESH

    inside = u >= 0.0 and v >= 0.0 and u < extent[0] and v < extent[1]
    if kind == NOTHING or best >= 1.0e5 or not inside:
        out_rgb[n, y, x] = wp.vec3f(0.0, 0.0, 0.0)
        out_z[n, y, x] = 0.0
        out_cosine[n, y, x] = 0.0
        out_target[n, y, x] = 0.0
        return
    point = view * best
    color = wp.vec3f(0.0, 0.0, 0.0)
    normal = wp.vec3f(0.0, 0.0, -1.0)
    target = float(0.0)
    if kind == MESH:
        index = int(key & wp.int64(0xFFFFFFFF))
        which = index // FACES
        face = index - which * FACES
        mesh = scene.mesh[s, which]
        tint = scene.tint[s, which]
        corners = intersect(ray_factors(camera_corners(bank, mesh, face, scene.pose[s, which])), ray)
        bv = corners[0]
        bu = 1.0 - corners[0] - corners[1]
        color = bank_color(bank, mesh, face, bu, bv)
        color = color * (1.0 - tint[3]) + wp.vec3f(tint[0], tint[1], tint[2]) * tint[3]
        normal = pose_rotation(scene.pose[s, which]) * bank_normal(bank, mesh, face, bu, bv)
        target = wp.where(which == 0, 1.0, 0.0)
    elif kind == BOX:
        state = wp.rand_init(scene.seed[s], 16 + which)
        color = scene.box_color[s, which] * (0.85 + 0.3 * wp.noise(state, point * 40.0))
        normal = pose_rotation(scene.box[s, which]) * side
    elif kind == CAPSULE:
        start = scene.capsule[s, which, 0]
        axis = scene.capsule[s, which, 1] - start
        share = wp.dot(point - start, axis) / wp.max(wp.dot(axis, axis), 1.0e-12)
        color = scene.hand_color[s]
        normal = wp.normalize(point - start - axis * wp.clamp(share, 0.0, 1.0))
    else:
        plane = scene.plane[s, which]
        state = wp.rand_init(scene.seed[s], which)
        grain = (
            wp.noise(state, point * 6.0) + 0.5 * wp.noise(state, point * 25.0) + 0.25 * wp.noise(state, point * 110.0)
        )
        mix = wp.clamp(0.5 + grain, 0.0, 1.0)
        color = scene.color[s, which, 0] * mix + scene.color[s, which, 1] * (1.0 - mix)
        normal = wp.vec3f(plane[0], plane[1], plane[2])
    facing_view = -wp.dot(normal, view)
    if facing_view < 0.0:
        normal = -normal
        facing_view = -facing_view
    light = scene.light[s]
    level = scene.level[s]
    diffuse = wp.max(wp.dot(normal, light), 0.0)
    shaded = color * (level[0] + level[1] * diffuse)
    if level[2] > 0.0:
        gloss = level[2] * wp.pow(wp.max(wp.dot(normal, wp.normalize(light - view)), 0.0), 40.0)
        shaded = shaded + wp.vec3f(gloss, gloss, gloss)
    for c in range(3):
        shaded[c] = wp.clamp(shaded[c], 0.0, 1.0)
    out_rgb[n, y, x] = shaded
    out_z[n, y, x] = best / length
    out_cosine[n, y, x] = facing_view
    out_target[n, y, x] = target
