"""Warp kernels that render meshes by ray casting; the same source runs on CPU and CUDA.

Image coordinates: ``u = fx X / Z + cx`` (OpenCV: integer at pixel centres of the observed image).
``cameras`` holds fx, fy, cx, cy of each view, or of all views in one entry.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": False})

TILE_ROWS = wp.constant(4)
TILE_COLUMNS = wp.constant(8)
"""One GPU warp casts rays for so many rows and columns of pixels: neighbours walk the same branches of the tree."""


@wp.struct
class BankData:
    """The arrays of a MeshBank. mesh: empty where it was built without trees for casting rays."""

    mesh: wp.array(dtype=wp.uint64)
    vertex: wp.array(dtype=wp.vec3f)
    face_count: wp.array(dtype=wp.int32)
    first_face: wp.array(dtype=wp.int32)
    first_texel: wp.array(dtype=wp.int32)
    texture_size: wp.array(dtype=wp.vec2i)
    corner_vertex: wp.array(dtype=wp.int32)
    corner_uv: wp.array(dtype=wp.vec2f)
    normal: wp.array(dtype=wp.vec3f)
    color: wp.array(dtype=wp.vec3f)
    texel: wp.array(dtype=wp.uint32)
    center: wp.array(dtype=wp.vec3f)
    radius: wp.array(dtype=wp.float32)


@wp.func
def read_texel(bank: BankData, mesh: int, x: int, y: int):
    size = bank.texture_size[mesh]
    x = ((x % size[0]) + size[0]) % size[0]
    y = ((y % size[1]) + size[1]) % size[1]
    packed = int(bank.texel[bank.first_texel[mesh] + y * size[0] + x])
    return wp.vec3f(float(packed & 255), float((packed >> 8) & 255), float((packed >> 16) & 255)) / 255.0


@wp.func
def sample_texture(bank: BankData, mesh: int, uv: wp.vec2f):
    """Bilinear, texel centres at half integers, v up, wrapped."""
    size = bank.texture_size[mesh]
    x = uv[0] * float(size[0]) - 0.5
    y = (1.0 - uv[1]) * float(size[1]) - 0.5
    x0 = int(wp.floor(x))
    y0 = int(wp.floor(y))
    a = x - float(x0)
    b = y - float(y0)
    top = read_texel(bank, mesh, x0, y0) * (1.0 - a) + read_texel(bank, mesh, x0 + 1, y0) * a
    bottom = read_texel(bank, mesh, x0, y0 + 1) * (1.0 - a) + read_texel(bank, mesh, x0 + 1, y0 + 1) * a
    return top * (1.0 - b) + bottom * b


@wp.func
def bank_color(bank: BankData, mesh: int, face: int, bu: float, bv: float):
    """Colour in [0, 1] at barycentric (bu, bv, 1 - bu - bv) of a face, from texture or vertex colours."""
    corner = (bank.first_face[mesh] + face) * 3
    bw = 1.0 - bu - bv
    if bank.texture_size[mesh][0] > 0:
        uv = bank.corner_uv[corner] * bu + bank.corner_uv[corner + 1] * bv + bank.corner_uv[corner + 2] * bw
        return sample_texture(bank, mesh, uv)
    return (
        bank.color[bank.corner_vertex[corner]] * bu
        + bank.color[bank.corner_vertex[corner + 1]] * bv
        + bank.color[bank.corner_vertex[corner + 2]] * bw
    )


@wp.func
def bank_normal(bank: BankData, mesh: int, face: int, bu: float, bv: float):
    """Interpolated unit vertex normal, mesh frame."""
    corner = (bank.first_face[mesh] + face) * 3
    return wp.normalize(
        bank.normal[bank.corner_vertex[corner]] * bu
        + bank.normal[bank.corner_vertex[corner + 1]] * bv
        + bank.normal[bank.corner_vertex[corner + 2]] * (1.0 - bu - bv)
    )


@wp.func
def facing(bank: BankData, vertex: int, R: wp.mat33f):
    """clip(n . (0, 0, -1), 0, 1) of a vertex normal turned into the camera frame."""
    return wp.clamp(-(R * bank.normal[vertex])[2], 0.0, 1.0)


@wp.func
def shaded(bank: BankData, mesh: int, face: int, bu: float, bv: float, R: wp.mat33f):
    """Colour in [0, 1] as the headlight of the official renderer shows it."""
    corner = (bank.first_face[mesh] + face) * 3
    diffuse = (
        facing(bank, bank.corner_vertex[corner], R) * bu
        + facing(bank, bank.corner_vertex[corner + 1], R) * bv
        + facing(bank, bank.corner_vertex[corner + 2], R) * (1.0 - bu - bv)
    )
    color = bank_color(bank, mesh, face, bu, bv) * (0.8 + 0.5 * diffuse)
    return wp.vec3f(wp.min(color[0], 1.0), wp.min(color[1], 1.0), wp.min(color[2], 1.0))


@wp.func
def pose_rotation(T: wp.mat44f):
    return wp.mat33f(T[0, 0], T[0, 1], T[0, 2], T[1, 0], T[1, 1], T[1, 2], T[2, 0], T[2, 1], T[2, 2])


@wp.func
def pose_translation(T: wp.mat44f):
    return wp.vec3f(T[0, 3], T[1, 3], T[2, 3])


@wp.func
def back_project(camera: wp.vec4f, u: float, v: float):
    """Point at depth 1 of an image coordinate; camera: fx, fy, cx, cy."""
    return wp.vec3f((u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1.0)


@wp.func
def unravel(i: int, rows: int, columns: int):
    """Image, row and column of the i-th pixel of several images. Warp's own tid of three dimensions divides in 64 bits, which
    takes a GPU as long as the rest of a small kernel."""
    across = i // columns
    n = across // rows
    return wp.vec3i(n, across - n * rows, i - across * columns)


@wp.func
def pixel_ray(at: wp.vec2f, window: wp.vec4f, camera: wp.vec4f, size: wp.vec2f):
    """Point at depth 1 of a pixel. at, size: column and row. window: left, top, right, bottom in image coordinates; pixel i of
    C columns lies at left + (i + 0.5)(right - left) / C."""
    u = window[0] + (at[0] + 0.5) * (window[2] - window[0]) / size[0]
    v = window[1] + (at[1] + 0.5) * (window[3] - window[1]) / size[1]
    return back_project(camera, u, v)


@wp.func
def tile_pixel(tile_y: int, tile_x: int, lane: int):
    """Row and column of a lane of a launch over ``tiles``."""
    return wp.vec2i(tile_y * TILE_ROWS + lane // TILE_COLUMNS, tile_x * TILE_COLUMNS + lane % TILE_COLUMNS)


@wp.func
def cast_view(
    bank: BankData,
    mesh: int,
    T: wp.mat44f,
    window: wp.vec4f,
    camera: wp.vec4f,
    near: float,
    at: wp.vec2f,
    size: wp.vec2f,
):
    """Colour in [0, 1], camera-frame point (0 in the background), and face with two barycentrics of what a pixel sees; at,
    window and size as for ``pixel_ray``."""
    ray = pixel_ray(at, window, camera, size)
    length = wp.length(ray)
    R = pose_rotation(T)
    origin = wp.transpose(R) * (-pose_translation(T))
    direction = wp.transpose(R) * (ray / length)
    skip = near * length
    rgb = wp.vec3f(0.0, 0.0, 0.0)
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    face = int(-1)
    bu = float(0.0)
    bv = float(0.0)
    # Most rays of a crop miss the object, and its bounding sphere says so sooner than the tree.
    to = bank.center[mesh] - origin
    along = wp.dot(to, direction)
    reach = bank.radius[mesh] * 1.001
    if wp.length_sq(to) - along * along <= reach * reach:
        hit = wp.mesh_query_ray(bank.mesh[mesh], origin + direction * skip, direction, 1.0e6)
        if hit.result:
            face = hit.face
            bu = hit.u
            bv = hit.v
            xyz = ray * ((hit.t + skip) / length)
            rgb = shaded(bank, mesh, face, bu, bv, R)
    return rgb, xyz, face, bu, bv


@wp.func
def store_input(
    out: wp.array4d(dtype=Any),
    n: int,
    y: int,
    x: int,
    rgb: wp.vec3f,
    xyz: wp.vec3f,
    t: wp.vec3f,
    scale: float,
    min_z: float,
):
    """One pixel of a network input: RGB, then xyz relative to t in mesh radii (1 / scale), 0 where invalid or far off."""
    for c in range(3):
        out[n, y, x, c] = out.dtype(rgb[c])
        value = (xyz[c] - t[c]) * scale
        if xyz[2] < min_z or wp.abs(value) >= 2.0:
            value = 0.0
        out[n, y, x, c + 3] = out.dtype(value)


@wp.kernel
def render_views(
    bank: BankData,
    mesh_index: wp.array(dtype=wp.int32),
    poses: wp.array(dtype=wp.mat44f),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    near: float,
    out_rgb: wp.array4d(dtype=wp.float32),
    out_xyz: wp.array4d(dtype=wp.float32),
    out_normal: wp.array4d(dtype=wp.float32),
):
    """Launched over ``tiles``. out_normal may have zero views when normals are not wanted."""
    n, tile_y, tile_x, lane = wp.tid()
    at = tile_pixel(tile_y, tile_x, lane)
    y = at[0]
    x = at[1]
    if y >= out_xyz.shape[1] or x >= out_xyz.shape[2]:
        return
    mesh = mesh_index[n]
    rgb, xyz, face, bu, bv = cast_view(
        bank,
        mesh,
        poses[n],
        windows[n],
        cameras[n % cameras.shape[0]],
        near,
        wp.vec2f(float(x), float(y)),
        wp.vec2f(float(out_xyz.shape[2]), float(out_xyz.shape[1])),
    )
    for c in range(3):
        out_rgb[n, y, x, c] = rgb[c]
        out_xyz[n, y, x, c] = xyz[c]
    if out_normal.shape[0] > 0:
        normal = wp.vec3f(0.0, 0.0, 0.0)
        if xyz[2] > 0.0:
            normal = pose_rotation(poses[n]) * bank_normal(bank, mesh, face, bu, bv)
        for c in range(3):
            out_normal[n, y, x, c] = normal[c]


@wp.kernel
def render_inputs(
    bank: BankData,
    mesh_index: wp.array(dtype=wp.int32),
    poses: wp.array(dtype=wp.mat44f),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    near: float,
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    out: wp.array4d(dtype=Any),
):
    """Network inputs (N, R, C, 6) of rendered views, without an image in between; launched over ``tiles``."""
    n, tile_y, tile_x, lane = wp.tid()
    at = tile_pixel(tile_y, tile_x, lane)
    y = at[0]
    x = at[1]
    if y >= out.shape[1] or x >= out.shape[2]:
        return
    rgb, xyz, _face, _bu, _bv = cast_view(
        bank,
        mesh_index[n],
        poses[n],
        windows[n],
        cameras[n % cameras.shape[0]],
        near,
        wp.vec2f(float(x), float(y)),
        wp.vec2f(float(out.shape[2]), float(out.shape[1])),
    )
    store_input(out, n, y, x, rgb, xyz, pose_translation(poses[n]), 2.0 / diameters[n], min_z)


def tiles(views: int, rows: int, columns: int) -> tuple[int, int, int, int]:
    """Launch dimensions of the rendering kernels."""
    return views, -(-rows // TILE_ROWS), -(-columns // TILE_COLUMNS), TILE_ROWS * TILE_COLUMNS


# Every overload that is used is declared, so that Warp compiles the module once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(render_inputs, {"out": wp.array4d(dtype=_dtype)})
