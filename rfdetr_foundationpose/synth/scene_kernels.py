"""Warp kernels of whole scenes: instances on a table in a room, one light with hard shadows. World frame, z up, metres."""

# Warp compiles this source: float(...) declares a mutable, and its types are not Python's.
# ruff: noqa: SIM102, RUF059
# mypy: ignore-errors

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

wp.set_module_options({"enable_backward": False, "fast_math": True})

BACKGROUND = wp.constant(-1)
FAR = wp.constant(1.0e6)


@wp.struct
class SceneData:
    """S scenes of M instances (mesh -1: none). sphere: bounding sphere in the world, radius last (negative: none).

    pose: world <- mesh. view: world <- camera. camera: fx, fy, cx, cy. low/high corners of room and table boxes.
    surface: bank index whose texture covers table, x walls, y walls, floor and ceiling; tiling: repeats per metre.
    light: position. level: ambient, diffuse, specular, shadow strength.
    """

    mesh: wp.array2d(dtype=wp.int32)
    pose: wp.array2d(dtype=wp.mat44f)
    sphere: wp.array2d(dtype=wp.vec4f)
    gloss: wp.array2d(dtype=wp.float32)
    camera: wp.array(dtype=wp.vec4f)
    view: wp.array(dtype=wp.mat44f)
    room_low: wp.array(dtype=wp.vec3f)
    room_high: wp.array(dtype=wp.vec3f)
    table_low: wp.array(dtype=wp.vec3f)
    table_high: wp.array(dtype=wp.vec3f)
    surface: wp.array2d(dtype=wp.int32)
    tiling: wp.array2d(dtype=wp.float32)
    light: wp.array(dtype=wp.vec3f)
    tint: wp.array(dtype=wp.vec3f)
    level: wp.array(dtype=wp.vec4f)


@wp.struct
class Hit:
    """distance along the unit ray; instance index or -1; normal towards the viewer; colour; specular strength."""

    distance: float
    instance: int
    normal: wp.vec3f
    color: wp.vec3f
    gloss: float


@wp.func
def near_sphere(origin: wp.vec3f, direction: wp.vec3f, sphere: wp.vec4f, farthest: float):
    """Whether a unit ray meets the sphere before ``farthest``."""
    to = wp.vec3f(sphere[0], sphere[1], sphere[2]) - origin
    along = wp.dot(to, direction)
    radius = sphere[3]
    return along > -radius and along - radius < farthest and wp.dot(to, to) - along * along <= radius * radius


@wp.func
def slab_times(low: wp.vec3f, high: wp.vec3f, origin: wp.vec3f, direction: wp.vec3f):
    """Entry and exit distance of a box, and the axes of those faces."""
    enter = float(-1.0e9)
    leave = float(1.0e9)
    enter_axis = int(0)
    leave_axis = int(0)
    for i in range(3):
        d = direction[i]
        if wp.abs(d) < 1.0e-9:
            d = 1.0e-9
        a = (low[i] - origin[i]) / d
        b = (high[i] - origin[i]) / d
        first = wp.min(a, b)
        last = wp.max(a, b)
        if first > enter:
            enter = first
            enter_axis = i
        if last < leave:
            leave = last
            leave_axis = i
    return enter, leave, enter_axis, leave_axis


@wp.func
def axis_normal(axis: int, direction: wp.vec3f):
    n = wp.vec3f(0.0, 0.0, 0.0)
    n[axis] = wp.where(direction[axis] > 0.0, -1.0, 1.0)
    return n


@wp.func
def surface_uv(point: wp.vec3f, axis: int, tiling: float):
    if axis == 0:
        return wp.vec2f(point[1], point[2]) * tiling
    if axis == 1:
        return wp.vec2f(point[0], point[2]) * tiling
    return wp.vec2f(point[0], point[1]) * tiling


@wp.func
def surface_texel(bank: BankData, mesh: int, x: int, y: int):
    size = bank.texture_size[mesh]
    packed = int(bank.texel[bank.first_texel[mesh] + (y & (size[1] - 1)) * size[0] + (x & (size[0] - 1))])
    return wp.vec3f(float(packed & 255), float((packed >> 8) & 255), float((packed >> 16) & 255)) / 255.0


@wp.func
def surface_color(bank: BankData, mesh: int, uv: wp.vec2f):
    """Bilinear and wrapped like sample_texture, for sides that are powers of two: most pixels are background, and
    wrapping by division would cost them a third of their time on a CPU."""
    size = bank.texture_size[mesh]
    x = uv[0] * float(size[0]) - 0.5
    y = (1.0 - uv[1]) * float(size[1]) - 0.5
    x0 = int(wp.floor(x))
    y0 = int(wp.floor(y))
    a = x - float(x0)
    b = y - float(y0)
    top = surface_texel(bank, mesh, x0, y0) * (1.0 - a) + surface_texel(bank, mesh, x0 + 1, y0) * a
    bottom = surface_texel(bank, mesh, x0, y0 + 1) * (1.0 - a) + surface_texel(bank, mesh, x0 + 1, y0 + 1) * a
    return top * (1.0 - b) + bottom * b


@wp.func
def trace(bank: BankData, scene: SceneData, s: int, origin: wp.vec3f, direction: wp.vec3f):
    """The nearest thing along a ray; the room closes every ray."""
    enter, leave, enter_axis, leave_axis = slab_times(scene.room_low[s], scene.room_high[s], origin, direction)
    best = leave
    axis = leave_axis
    slot = 1 + leave_axis
    if leave_axis == 2 and direction[2] > 0.0:
        slot = 4
    enter, leave, enter_axis, leave_axis = slab_times(scene.table_low[s], scene.table_high[s], origin, direction)
    if enter > 0.0 and enter < leave and enter < best:
        best = enter
        axis = enter_axis
        slot = 0
    instance = int(BACKGROUND)
    face = int(0)
    bu = float(0.0)
    bv = float(0.0)
    for m in range(scene.mesh.shape[1]):
        if near_sphere(origin, direction, scene.sphere[s, m], best):
            R = pose_rotation(scene.pose[s, m])
            o = wp.transpose(R) * (origin - pose_translation(scene.pose[s, m]))
            d = wp.transpose(R) * direction
            hit = wp.mesh_query_ray(bank.mesh[scene.mesh[s, m]], o, d, best)
            if hit.result and hit.t < best:
                best = hit.t
                instance = m
                face = hit.face
                bu = hit.u
                bv = hit.v
    result = Hit()
    result.distance = best
    result.instance = instance
    if instance >= 0:
        mesh = scene.mesh[s, instance]
        result.color = bank_color(bank, mesh, face, bu, bv)
        result.normal = pose_rotation(scene.pose[s, instance]) * bank_normal(bank, mesh, face, bu, bv)
        result.gloss = scene.gloss[s, instance]
    else:
        point = origin + direction * best
        result.color = surface_color(bank, scene.surface[s, slot], surface_uv(point, axis, scene.tiling[s, slot]))
        result.normal = axis_normal(axis, direction)
        result.gloss = 0.15
    if wp.dot(result.normal, direction) > 0.0:
        result.normal = -result.normal
    return result


@wp.func
def shadowed(bank: BankData, scene: SceneData, s: int, point: wp.vec3f, direction: wp.vec3f, distance: float):
    enter, leave, enter_axis, leave_axis = slab_times(scene.table_low[s], scene.table_high[s], point, direction)
    if enter > 0.0 and enter < leave and enter < distance:
        return True
    for m in range(scene.mesh.shape[1]):
        if near_sphere(point, direction, scene.sphere[s, m], distance):
            R = pose_rotation(scene.pose[s, m])
            o = wp.transpose(R) * (point - pose_translation(scene.pose[s, m]))
            d = wp.transpose(R) * direction
            hit = wp.mesh_query_ray(bank.mesh[scene.mesh[s, m]], o, d, distance)
            if hit.result:
                return True
    return False


@wp.func
def shade(bank: BankData, scene: SceneData, s: int, origin: wp.vec3f, direction: wp.vec3f, hit: Hit):
    """Hemispheric ambient, Lambert and Blinn-Phong with one shadow ray."""
    point = origin + direction * hit.distance + hit.normal * 1.5e-3
    to_light = scene.light[s] - point
    distance = wp.length(to_light)
    to_light = to_light / distance
    level = scene.level[s]
    facing = wp.max(wp.dot(hit.normal, to_light), 0.0)
    lit = float(1.0)
    if facing > 0.0 and level[3] > 0.0:
        if shadowed(bank, scene, s, point, to_light, distance):
            lit = 1.0 - level[3]
    ambient = level[0] * (0.8 + 0.2 * hit.normal[2])
    half_way = wp.normalize(to_light - direction)
    power = wp.max(wp.dot(hit.normal, half_way), 0.0)
    power = power * power
    power = power * power
    power8 = power * power
    power = power8 * power8
    glint = power * power * power8 * level[2] * hit.gloss * lit
    color = hit.color * (ambient + level[1] * facing * lit) + wp.vec3f(glint, glint, glint)
    return wp.cw_mul(color, scene.tint[s])


@wp.kernel
def render_scenes(
    bank: BankData,
    scene: SceneData,
    samples: int,
    out_rgb: wp.array4d(dtype=wp.float32),
    out_depth: wp.array3d(dtype=wp.float32),
    out_instance: wp.array3d(dtype=wp.int32),
    out_cosine: wp.array3d(dtype=wp.float32),
    visible: wp.array2d(dtype=wp.int32),
    box: wp.array3d(dtype=wp.int32),
):
    """Depth, instance and incidence cosine at integer pixel centres; colour averaged over samples x samples rays.

    Launched over ``tiles``.
    """
    s, tile_y, tile_x, lane = wp.tid()
    at = tile_pixel(tile_y, tile_x, lane)
    y = at[0]
    x = at[1]
    if y >= out_depth.shape[1] or x >= out_depth.shape[2]:
        return
    R = pose_rotation(scene.view[s])
    origin = pose_translation(scene.view[s])
    ray = back_project(scene.camera[s], float(x), float(y))
    length = wp.length(ray)
    direction = R * (ray / length)
    hit = trace(bank, scene, s, origin, direction)
    color = wp.vec3f(0.0, 0.0, 0.0)
    if samples <= 1:
        color = shade(bank, scene, s, origin, direction, hit)
    else:
        n = float(samples)
        for j in range(samples):
            for i in range(samples):
                u = float(x) + (float(i) + 0.5) / n - 0.5
                v = float(y) + (float(j) + 0.5) / n - 0.5
                d = R * wp.normalize(back_project(scene.camera[s], u, v))
                color += shade(bank, scene, s, origin, d, trace(bank, scene, s, origin, d))
        color = color / (n * n)
    for c in range(3):
        out_rgb[s, y, x, c] = color[c]
    out_depth[s, y, x] = hit.distance / length
    out_instance[s, y, x] = hit.instance
    out_cosine[s, y, x] = -wp.dot(hit.normal, direction)
    if hit.instance >= 0:
        m = hit.instance
        wp.atomic_add(visible, s, m, 1)
        wp.atomic_min(box, s, m, 0, x)
        wp.atomic_min(box, s, m, 1, y)
        wp.atomic_max(box, s, m, 2, x + 1)
        wp.atomic_max(box, s, m, 3, y + 1)


@wp.kernel
def silhouette_areas(
    bank: BankData,
    scene: SceneData,
    grid: int,
    area: wp.array2d(dtype=wp.float32),
):
    """Adds to area[s, m] the pixels of the whole, unoccluded silhouette, also where it leaves the image.

    Sampled with grid x grid rays over the bounding sphere's square window.
    """
    s, m, k = wp.tid()
    mesh = scene.mesh[s, m]
    if mesh < 0:
        return
    R = pose_rotation(scene.view[s])
    R_object = pose_rotation(scene.pose[s, m])
    sphere = scene.sphere[s, m]
    in_camera = wp.transpose(R) * (wp.vec3f(sphere[0], sphere[1], sphere[2]) - pose_translation(scene.view[s]))
    radius = sphere[3]
    if in_camera[2] < radius * 1.02:
        return
    camera = scene.camera[s]
    # Half width at depth 1 that covers the sphere even far off the optical axis.
    span = in_camera[2] * in_camera[2] - radius * radius
    reach = 1.05 * radius * wp.length(in_camera) / span
    step = 2.0 * reach / float(grid)
    px = in_camera[0] / in_camera[2] + (float(k % grid) + 0.5) * step - reach
    py = in_camera[1] / in_camera[2] + (float(k / grid) + 0.5) * step - reach
    direction = R * wp.normalize(wp.vec3f(px, py, 1.0))
    o = wp.transpose(R_object) * (pose_translation(scene.view[s]) - pose_translation(scene.pose[s, m]))
    d = wp.transpose(R_object) * direction
    hit = wp.mesh_query_ray(bank.mesh[mesh], o, d, FAR)
    if hit.result:
        wp.atomic_add(area, s, m, step * step * camera[0] * camera[1])
