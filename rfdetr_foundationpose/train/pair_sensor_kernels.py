"""Warp kernels of the sensors of training pairs: settings of each scene's camera, and network inputs of what it would see.

Random numbers are counted: each comes from a seed of the batch and the index of its scene or pixel, so that a pixel can ask for
what its neighbours draw.
"""

from __future__ import annotations

import warp as wp

from ..pose.render_kernels import back_project, pose_translation, store_input, unravel
from ..pose.warp_kernels import observed_coordinate

# Exact division: quotients decide between neighbouring pixels.
wp.set_module_options({"enable_backward": False, "fast_math": False})

NOISE_CELLS = wp.constant(40)
WAVE_CELLS = wp.constant(8)
HOLE_CELLS = wp.constant(10)
MISSING_CELLS = wp.constant(12)
"""Fields that vary smoothly are interpolated between so many nodes a side."""
NORMAL_NODES = 40 * 40 + 8 * 8
UNIFORM_NODES = 10 * 10 + 12 * 12
"""So many nodes, of either distribution, has a crop; those of noise and of holes come first."""
FIRST_WAVE = wp.constant(40 * 40)
FIRST_MISSING = wp.constant(10 * 10)
BLUR_TAPS = wp.constant(5)
SHADOW = wp.constant(6)
"""Widest shadow of what stands in front, in crop pixels."""


@wp.struct
class Chances:
    """The probabilities of SensorEffects."""

    shift: float
    coarse: float
    fatten: float
    flying: float
    shadow: float
    bias: float
    waves: float
    missing: float
    motion: float


@wp.struct
class Setting:
    """What the camera of one scene does; every field has four bytes or a multiple.

    offset: rows and columns by which depth lies beside colour. grid, phase: cells of depth, in crop pixels. edge: two depths
    differ by more than this at an edge, m. fatten, flying, round_mm, shadow: 1 where it happens. sigma: factor of the noise.
    waves: their strength. bias: of depth, m, and a share of it. lost_edge, lost_speckle: shares of pixels that are lost;
    lost_cosine: flatter than this nothing is seen; lost_hole: holes where a smooth field is below. missing: 1 the target, 2 what
    is around it, 0 neither, where a smooth field is below missing_level.
    blur: share of a mean over 3 x 3; motion: columns and rows of the longest way; gain, lift: colour times gain plus lift;
    saturation; grain: sigma of colour.
    """

    offset: wp.vec2f
    grid: float
    phase: float
    edge: float
    fatten: wp.int32
    flying: wp.int32
    round_mm: wp.int32
    shadow: wp.int32
    sigma: float
    waves: float
    bias: wp.vec2f
    lost_edge: float
    lost_cosine: float
    lost_hole: float
    lost_speckle: float
    missing: wp.int32
    missing_level: float
    blur: float
    motion: wp.vec2f
    gain: wp.vec3f
    lift: float
    saturation: float
    grain: float


@wp.kernel
def draw_settings(seeds: wp.array(dtype=wp.int32), chances: Chances, out: wp.array(dtype=Setting)):
    """Launched over scenes; the first of the seeds counts here."""
    s = wp.tid()
    state = wp.rand_init(seeds[0], s)
    setting = Setting()
    setting.grid = float(1.0)
    shifted = wp.randf(state) < chances.shift
    rows = wp.rint(wp.randf(state, -3.5, 3.5))
    columns = wp.rint(wp.randf(state, -3.5, 3.5))
    if shifted:
        setting.offset = wp.vec2f(rows, columns)
    coarse = wp.randf(state) < chances.coarse
    grid = wp.randf(state, 1.0, 4.0)
    phase = wp.randf(state)
    if coarse:
        setting.grid = grid
        setting.phase = phase
    setting.fatten = wp.where(wp.randf(state) < chances.fatten, 1, 0)
    setting.edge = wp.where(wp.randf(state) < 0.5, 0.02, 0.01)
    setting.flying = wp.where(wp.randf(state) < chances.flying, 1, 0)
    setting.sigma = wp.exp(wp.randf(state, -1.5, 1.0))
    waves = wp.randf(state, 0.3, 1.2)
    setting.waves = wp.where(wp.randf(state) < chances.waves, waves, 0.0)
    bias = wp.vec2f(0.002 * wp.randn(state), 0.004 * wp.randn(state))
    if wp.randf(state) < chances.bias:
        setting.bias = bias
    setting.round_mm = wp.where(wp.randf(state) < 0.5, 1, 0)
    setting.lost_edge = wp.randf(state, 0.0, 0.8)
    setting.lost_cosine = wp.randf(state, 0.0, 0.25)
    setting.shadow = wp.where(wp.randf(state) < chances.shadow, 1, 0)
    setting.lost_hole = wp.randf(state, -0.3, 0.25)
    setting.lost_speckle = wp.randf(state, -0.05, 0.05)
    which = wp.where(wp.randf(state) < 0.6, 1, 2)
    setting.missing = wp.where(wp.randf(state) < chances.missing, which, 0)
    setting.missing_level = wp.randf(state, 0.4, 1.1)

    setting.blur = wp.clamp(wp.randf(state, -0.5, 1.2), 0.0, 1.0)
    angle = wp.randf(state, 0.0, wp.pi)
    length = wp.randf(state, 0.5, 4.0)
    if wp.randf(state) < chances.motion:
        setting.motion = wp.vec2f(wp.cos(angle), wp.sin(angle)) * length
    exposure = 0.25 * wp.randn(state)
    gain = wp.vec3f(0.0, 0.0, 0.0)
    for c in range(3):
        gain[c] = wp.exp(exposure + 0.1 * wp.randn(state))
    setting.gain = gain
    setting.lift = 0.05 * wp.randn(state)
    setting.saturation = wp.randf(state, 0.4, 1.4)
    setting.grain = wp.randf(state, 0.0, 0.03)
    out[s] = setting


@wp.func
def cell_middle(i: int, offset: float, grid: float, phase: float, size: int):
    """The row or column whose depth stands for that of crop row or column i."""
    cell = wp.floor((float(i) + offset) / grid + phase) - phase
    return wp.clamp(int(wp.rint(cell * grid + (grid - 1.0) / 2.0)), 0, size - 1)


@wp.func
def sampled(z: wp.array3d(dtype=wp.float32), setting: Setting, n: int, y: int, x: int):
    """Depth beside its colour, and of a coarser grid."""
    row = cell_middle(y, setting.offset[0], setting.grid, setting.phase, z.shape[1])
    column = cell_middle(x, setting.offset[1], setting.grid, setting.phase, z.shape[2])
    return z[n, row, column]


@wp.kernel
def measure_depth(
    z: wp.array3d(dtype=wp.float32),
    owner: wp.array(dtype=wp.int32),
    settings: wp.array(dtype=Setting),
    out: wp.array3d(dtype=wp.float32),
):
    """Depth m as a sensor's grid has it, things in front grown over their edges; launched over all pixels."""
    place = unravel(wp.tid(), z.shape[1], z.shape[2])
    n = place[0]
    y = place[1]
    x = place[2]
    setting = settings[owner[n]]
    d = sampled(z, setting, n, y, x)
    if setting.fatten == 1 and d > 0.0:
        grown = float(99.0)
        for j in range(wp.max(y - 2, 0), wp.min(y + 3, z.shape[1])):
            for i in range(wp.max(x - 2, 0), wp.min(x + 3, z.shape[2])):
                near = sampled(z, setting, n, j, i)
                if near > 0.0:
                    grown = wp.min(grown, near)
        if d - grown > 0.01:
            d = grown
    out[n, y, x] = d


@wp.func
def depth_range(z: wp.array3d(dtype=wp.float32), n: int, y: int, x: int):
    """Nearest and farthest depth of 3 x 3 pixels, 0 where one is missing."""
    nearest = float(99.0)
    farthest = float(0.0)
    for j in range(wp.max(y - 1, 0), wp.min(y + 2, z.shape[1])):
        for i in range(wp.max(x - 1, 0), wp.min(x + 2, z.shape[2])):
            d = z[n, j, i]
            nearest = wp.min(nearest, d)
            farthest = wp.max(farthest, d)
    return wp.vec2f(nearest, farthest)


@wp.func
def is_edge(around: wp.vec2f, setting: Setting):
    return around[1] - around[0] > setting.edge


@wp.func
def flown(d: float, around: wp.vec2f, setting: Setting, share: float, chance: float):
    """Depth of a pixel, between two surfaces where it sees both. share, chance: its first two random numbers."""
    if setting.flying == 1 and is_edge(around, setting) and around[0] > 0.0 and chance < 0.7:
        return wp.lerp(around[0], around[1], share)
    return d


@wp.func
def in_shadow(z: wp.array3d(dtype=wp.float32), setting: Setting, seed: int, i: int, d: float, n: int, y: int, x: int):
    """Whether something stands in front within SHADOW columns to the right of a pixel of depth d, the i-th of all."""
    front = float(d)
    for k in range(1, wp.min(SHADOW + 1, z.shape[2] - x)):
        other = z[n, y, x + k]
        if setting.flying == 1:
            state = wp.rand_init(seed, i + k)
            share = wp.randf(state)
            other = flown(other, depth_range(z, n, y, x + k), setting, share, wp.randf(state))
        front = wp.min(front, other)
    return d - front > 0.03


@wp.func
def smooth_field(nodes: wp.array2d(dtype=wp.float32), n: int, first: int, cells: int, at: wp.vec2f):
    """Bilinear between cells x cells nodes, which begin at ``first``. at: column and row, as shares of the crop's size."""
    u = wp.max(at[0] * float(cells) - 0.5, 0.0)
    v = wp.max(at[1] * float(cells) - 0.5, 0.0)
    i = int(u)
    j = int(v)
    right = wp.min(i + 1, cells - 1)
    upper = first + j * cells
    lower = first + wp.min(j + 1, cells - 1) * cells
    a = u - float(i)
    return wp.lerp(
        wp.lerp(nodes[n, upper + i], nodes[n, upper + right], a),
        wp.lerp(nodes[n, lower + i], nodes[n, lower + right], a),
        v - float(j),
    )


@wp.func
def two_normals(first: float, second: float):
    """Box and Muller's two normal numbers of two uniform ones."""
    radius = wp.sqrt(-2.0 * wp.log(1.0 - first))
    angle = 2.0 * wp.pi * second
    return wp.vec2f(radius * wp.cos(angle), radius * wp.sin(angle))


@wp.func
def blurred(rgb: wp.array3d(dtype=wp.vec3f), setting: Setting, n: int, y: int, x: int):
    color = rgb[n, y, x]
    if setting.blur > 0.0:
        total = wp.vec3f(0.0, 0.0, 0.0)
        count = float(0.0)
        for j in range(wp.max(y - 1, 0), wp.min(y + 2, rgb.shape[1])):
            for i in range(wp.max(x - 1, 0), wp.min(x + 2, rgb.shape[2])):
                total += rgb[n, j, i]
                count += 1.0
        color = color * (1.0 - setting.blur) + total * (setting.blur / count)
    return color


@wp.func
def seen_color(rgb: wp.array3d(dtype=wp.vec3f), setting: Setting, n: int, y: int, x: int, grain: wp.vec3f):
    """Blur, blur along the motion, exposure and white balance, saturation, noise."""
    motion = setting.motion
    color = wp.vec3f(0.0, 0.0, 0.0)
    if motion[0] == 0.0 and motion[1] == 0.0:
        color = blurred(rgb, setting, n, y, x)
    else:
        for k in range(BLUR_TAPS):
            share = (float(k) - 2.0) / 2.0
            column = wp.clamp(int(wp.rint(float(x) + share * motion[0])), 0, rgb.shape[2] - 1)
            row = wp.clamp(int(wp.rint(float(y) + share * motion[1])), 0, rgb.shape[1] - 1)
            color += blurred(rgb, setting, n, row, column) / float(BLUR_TAPS)
    color = wp.cw_mul(color, setting.gain) + wp.vec3f(setting.lift, setting.lift, setting.lift)
    grey = (color[0] + color[1] + color[2]) / 3.0
    color = wp.vec3f(grey, grey, grey) * (1.0 - setting.saturation) + color * setting.saturation
    color = color + grain * setting.grain
    for c in range(3):
        color[c] = wp.clamp(color[c], 0.0, 1.0)
    return color


@wp.kernel
def sense(
    seeds: wp.array(dtype=wp.int32),
    settings: wp.array(dtype=Setting),
    owner: wp.array(dtype=wp.int32),
    rgb: wp.array3d(dtype=wp.vec3f),
    z: wp.array3d(dtype=wp.float32),
    measured: wp.array3d(dtype=wp.float32),
    cosine: wp.array3d(dtype=wp.float32),
    target: wp.array3d(dtype=wp.float32),
    normal_nodes: wp.array2d(dtype=wp.float32),
    uniform_nodes: wp.array2d(dtype=wp.float32),
    windows: wp.array(dtype=wp.vec4f),
    cameras: wp.array(dtype=wp.vec4f),
    sizes: wp.array(dtype=wp.vec2f),
    poses: wp.array(dtype=wp.mat44f),
    diameters: wp.array(dtype=wp.float32),
    min_z: float,
    out: wp.array4d(dtype=wp.float32),
):
    """Network inputs (N, R, R, 6) of crops as a camera and the depth filter leave them; launched over all pixels.

    z, measured: depth m that is there and that ``measure_depth`` leaves. cameras, sizes: of the scenes.
    """
    at = wp.tid()
    place = unravel(at, z.shape[1], z.shape[2])
    n = place[0]
    y = place[1]
    x = place[2]
    s = owner[n]
    setting = settings[s]
    crop = float(z.shape[1])
    state = wp.rand_init(seeds[1], at)
    share = wp.randf(state)
    chance = wp.randf(state)
    at_edge = wp.randf(state)
    speckle = wp.randf(state)
    u1 = wp.randf(state)
    u2 = wp.randf(state)
    u3 = wp.randf(state)
    u4 = wp.randf(state)
    white = two_normals(u1, u2)
    more = two_normals(u3, u4)

    depth = float(0.0)
    if measured[n, y, x] > 0.0 and z[n, y, x] > 0.0:
        around = depth_range(measured, n, y, x)
        d = flown(measured[n, y, x], around, setting, share, chance)
        middle = wp.vec2f((float(x) + 0.5) / crop, (float(y) + 0.5) / crop)
        lost = is_edge(around, setting) and at_edge < setting.lost_edge
        lost = lost or cosine[n, y, x] < setting.lost_cosine or speckle < setting.lost_speckle
        if not lost and setting.lost_hole > 0.0:
            lost = smooth_field(uniform_nodes, n, 0, HOLE_CELLS, middle) < setting.lost_hole
        on_target = target[n, y, x] > 0.5
        if not lost and ((setting.missing == 1 and on_target) or (setting.missing == 2 and not on_target)):
            lost = smooth_field(uniform_nodes, n, FIRST_MISSING, MISSING_CELLS, middle) < setting.missing_level
        if not lost and setting.shadow == 1:
            lost = in_shadow(measured, setting, seeds[1], at, d, n, y, x)
        if not lost:
            noise = smooth_field(normal_nodes, n, 0, NOISE_CELLS, middle) + 0.3 * white[0]
            depth = d + setting.sigma * (0.0006 + 0.0016 * d * d) * noise + setting.bias[0] + setting.bias[1] * d
            if setting.waves > 0.0:
                waves = smooth_field(normal_nodes, n, FIRST_WAVE, WAVE_CELLS, middle)
                depth += waves * (0.002 + 0.003 * d) * setting.waves
            if setting.round_mm == 1:
                depth = wp.rint(depth * 1000.0) / 1000.0

    color = seen_color(rgb, setting, n, y, x, wp.vec3f(white[1], more[0], more[1]))
    window = windows[n]
    u = wp.rint(observed_coordinate(x, window[0], window[2], crop, sizes[s][0]))
    v = wp.rint(observed_coordinate(y, window[1], window[3], crop, sizes[s][1]))
    point = back_project(cameras[s], u, v) * depth
    store_input(out, n, y, x, color, point, pose_translation(poses[n]), 2.0 / diameters[n], min_z)
