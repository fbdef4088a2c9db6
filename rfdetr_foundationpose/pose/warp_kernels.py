"""Warp kernels of the pose stage; the same source runs on CPU and CUDA.

Image coordinates: ``u = fx X / Z + cx`` (OpenCV: integer at pixel centres of the observed image).
``cameras`` holds fx, fy, cx, cy of each view, or of all views in one entry.
"""

from __future__ import annotations

from typing import Any

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": False})


@wp.struct
class BankData:
    """The arrays of a MeshBank."""

    mesh: wp.array(dtype=wp.uint64)
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
def rotation_of(T: wp.mat44f):
    return wp.mat33f(T[0, 0], T[0, 1], T[0, 2], T[1, 0], T[1, 1], T[1, 2], T[2, 0], T[2, 1], T[2, 2])


@wp.func
def translation_of(T: wp.mat44f):
    return wp.vec3f(T[0, 3], T[1, 3], T[2, 3])


@wp.func
def back_project(camera: wp.vec4f, u: float, v: float):
    """Point at depth 1 of an image coordinate; camera: fx, fy, cx, cy."""
    return wp.vec3f((u - camera[2]) / camera[0], (v - camera[3]) / camera[1], 1.0)


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
    """One ray a pixel. windows: left, top, right, bottom in image coordinates; pixel i is at l + (i + 0.5)(r - l)/size.

    out_normal may have zero views when normals are not wanted.
    """
    n, y, x = wp.tid()
    size_y = float(out_xyz.shape[1])
    size_x = float(out_xyz.shape[2])
    w = windows[n]
    u = w[0] + (float(x) + 0.5) * (w[2] - w[0]) / size_x
    v = w[1] + (float(y) + 0.5) * (w[3] - w[1]) / size_y
    ray = back_project(cameras[n % cameras.shape[0]], u, v)
    length = wp.length(ray)

    mesh = mesh_index[n]
    R = rotation_of(poses[n])
    t = translation_of(poses[n])
    origin = wp.transpose(R) * (-t)
    direction = wp.transpose(R) * (ray / length)

    rgb = wp.vec3f(0.0, 0.0, 0.0)
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    normal = wp.vec3f(0.0, 0.0, 0.0)
    skip = near * length
    hit = wp.mesh_query_ray(bank.mesh[mesh], origin + direction * skip, direction, 1.0e6)
    if hit.result:
        xyz = ray * ((hit.t + skip) / length)
        corner = (bank.first_face[mesh] + hit.face) * 3
        bw = 1.0 - hit.u - hit.v
        diffuse = (
            facing(bank, bank.corner_vertex[corner], R) * hit.u
            + facing(bank, bank.corner_vertex[corner + 1], R) * hit.v
            + facing(bank, bank.corner_vertex[corner + 2], R) * bw
        )
        color = bank_color(bank, mesh, hit.face, hit.u, hit.v) * (0.8 + 0.5 * diffuse)
        rgb = wp.vec3f(wp.min(color[0], 1.0), wp.min(color[1], 1.0), wp.min(color[2], 1.0))
        if out_normal.shape[0] > 0:
            normal = R * bank_normal(bank, mesh, hit.face, hit.u, hit.v)
    for c in range(3):
        out_rgb[n, y, x, c] = rgb[c]
        out_xyz[n, y, x, c] = xyz[c]
    if out_normal.shape[0] > 0:
        for c in range(3):
            out_normal[n, y, x, c] = normal[c]


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
def read_rgb(rgb: wp.array3d(dtype=wp.uint8), x: int, y: int):
    if x < 0 or y < 0 or x >= rgb.shape[1] or y >= rgb.shape[0]:
        return wp.vec3f(0.0, 0.0, 0.0)
    return wp.vec3f(float(rgb[y, x, 0]), float(rgb[y, x, 1]), float(rgb[y, x, 2])) / 255.0


@wp.kernel
def crop_observed(
    rgb: wp.array3d(dtype=wp.uint8),
    depth: wp.array2d(dtype=wp.float32),
    cameras: wp.array(dtype=wp.vec4f),
    windows: wp.array(dtype=wp.vec4f),
    out_rgb: wp.array4d(dtype=wp.float32),
    out_xyz: wp.array4d(dtype=wp.float32),
):
    """RGB bilinear, back-projected depth nearest, zeros outside the image."""
    n, y, x = wp.tid()
    w = windows[n]
    size = float(out_rgb.shape[1])
    u = observed_coordinate(x, w[0], w[2], size, float(rgb.shape[1]))
    v = observed_coordinate(y, w[1], w[3], size, float(rgb.shape[0]))
    x0 = int(wp.floor(u))
    y0 = int(wp.floor(v))
    a = u - float(x0)
    b = v - float(y0)
    color = (read_rgb(rgb, x0, y0) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0) * a) * (1.0 - b) + (
        read_rgb(rgb, x0, y0 + 1) * (1.0 - a) + read_rgb(rgb, x0 + 1, y0 + 1) * a
    ) * b
    xi = int(wp.rint(u))
    yi = int(wp.rint(v))
    xyz = wp.vec3f(0.0, 0.0, 0.0)
    if xi >= 0 and yi >= 0 and xi < depth.shape[1] and yi < depth.shape[0]:
        z = depth[yi, xi]
        if z >= 0.001:
            xyz = back_project(cameras[n % cameras.shape[0]], float(xi), float(yi)) * z
    for c in range(3):
        out_rgb[n, y, x, c] = color[c]
        out_xyz[n, y, x, c] = xyz[c]


@wp.kernel
def pack_input(
    rgb: wp.array4d(dtype=wp.float32),
    xyz: wp.array4d(dtype=wp.float32),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    out: wp.array4d(dtype=Any),
):
    """Network input (N, R, R, 6): RGB, then xyz relative to the hypothesis in mesh radii, 0 where invalid or far off."""
    n, y, x = wp.tid()
    t = translation_of(poses[n])
    scale = 2.0 / diameters[n]
    valid = xyz[n, y, x, 2] >= min_z
    for c in range(3):
        out[n, y, x, c] = out.dtype(rgb[n, y, x, c])
        value = (xyz[n, y, x, c] - t[c]) * scale
        if not valid or wp.abs(value) >= 2.0:
            value = 0.0
        out[n, y, x, c + 3] = out.dtype(value)


@wp.kernel
def update_poses(
    trans: wp.array2d(dtype=Any),
    rot: wp.array2d(dtype=Any),
    diameters: wp.array(dtype=wp.float32),
    rot_normalizer: float,
    poses: wp.array(dtype=wp.mat44f),
    delta: wp.array(dtype=wp.vec2f),
):
    """t += trans * radius; R = exp(tanh(rot) * rot_normalizer)^T R, in place. delta: |dt| in radii, |dR| in rad."""
    n = wp.tid()
    dt = wp.vec3f(float(trans[n, 0]), float(trans[n, 1]), float(trans[n, 2])) * (diameters[n] * 0.5)
    w = -rot_normalizer * wp.vec3f(wp.tanh(float(rot[n, 0])), wp.tanh(float(rot[n, 1])), wp.tanh(float(rot[n, 2])))
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


@wp.kernel
def agreement(
    rendered_rgb: wp.array4d(dtype=wp.float32),
    rendered_xyz: wp.array4d(dtype=wp.float32),
    observed_rgb: wp.array4d(dtype=wp.float32),
    observed_xyz: wp.array4d(dtype=wp.float32),
    diameters: wp.array(dtype=wp.float32),
    min_tolerance: float,
    counts: wp.array2d(dtype=wp.float32),
):
    """Adds per view: model pixels, agreeing, occluded (observed nearer), violated (observed farther), depth residual
    of the agreeing in tolerances, colour difference of the agreeing. The rest of the model pixels has no depth."""
    n, y, x = wp.tid()
    zr = rendered_xyz[n, y, x, 2]
    if zr < 0.001:
        return
    wp.atomic_add(counts, n, 0, 1.0)
    zo = observed_xyz[n, y, x, 2]
    if zo < 0.001:
        return
    tolerance = wp.max(min_tolerance, 0.05 * diameters[n])
    dz = zo - zr
    if wp.abs(dz) <= tolerance:
        difference = float(0.0)
        for c in range(3):
            difference += wp.abs(rendered_rgb[n, y, x, c] - observed_rgb[n, y, x, c])
        wp.atomic_add(counts, n, 1, 1.0)
        wp.atomic_add(counts, n, 4, wp.abs(dz) / tolerance)
        wp.atomic_add(counts, n, 5, difference / 3.0)
    elif dz < 0.0:
        wp.atomic_add(counts, n, 2, 1.0)
    else:
        wp.atomic_add(counts, n, 3, 1.0)


# Every instance that is used, so that the module is compiled once.
for _dtype in (wp.float32, wp.float16):
    wp.overload(pack_input, {"out": wp.array4d(dtype=_dtype)})
    wp.overload(update_poses, {"trans": wp.array2d(dtype=_dtype), "rot": wp.array2d(dtype=_dtype)})
