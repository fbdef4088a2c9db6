"""Warp kernels of the detector's training."""

# Warp compiles this source: float(...) declares a mutable, and its types are not Python's.
# mypy: ignore-errors

from __future__ import annotations

import warp as wp

wp.set_module_options({"enable_backward": False})


@wp.kernel
def assign_rows(
    cost: wp.array3d(dtype=wp.float32),
    u: wp.array2d(dtype=wp.float64),
    v: wp.array2d(dtype=wp.float64),
    shortest: wp.array2d(dtype=wp.float64),
    row_of: wp.array2d(dtype=wp.int32),
    way: wp.array2d(dtype=wp.int32),
    used: wp.array2d(dtype=wp.int32),
    out_column: wp.array2d(dtype=wp.int64),
):
    """One problem a thread: the optimal columns of T rows by shortest augmenting paths.

    cost: (T, Q, N). Work space, zero at first: u (T + 1, N), the others (Q + 1, N); problems lie side by side so that
    threads read side by side. out_column: (N, T). Column 0 is the virtual one where each path starts; row_of holds
    row + 1, 0 for a free column. All loops are bounded, so that no value of cost can hang the device.
    """
    n = wp.tid()
    columns = cost.shape[1]
    for row in range(1, cost.shape[0] + 1):
        row_of[0, n] = row
        for j in range(columns + 1):
            shortest[j, n] = wp.float64(1.0e300)
            used[j, n] = 0
        current = int(0)
        for _ in range(row):
            here = row_of[current, n]
            if here == 0:
                break
            used[current, n] = 1
            delta = wp.float64(1.0e300)
            following = int(0)
            for j in range(1, columns + 1):
                if used[j, n] == 0:
                    reduced = wp.float64(cost[here - 1, j - 1, n]) - u[here, n] - v[j, n]
                    best = shortest[j, n]
                    if reduced < best:
                        best = reduced
                        shortest[j, n] = reduced
                        way[j, n] = current
                    if best < delta:
                        delta = best
                        following = j
            for j in range(columns + 1):
                if used[j, n] != 0:
                    owner = row_of[j, n]
                    u[owner, n] = u[owner, n] + delta
                    v[j, n] = v[j, n] - delta
                else:
                    shortest[j, n] = shortest[j, n] - delta
            current = following
        for _ in range(row):
            if current == 0:
                break
            before = way[current, n]
            row_of[current, n] = row_of[before, n]
            current = before
    for j in range(1, columns + 1):
        if row_of[j, n] > 0:
            out_column[n, row_of[j, n] - 1] = wp.int64(j - 1)


@wp.kernel
def crop_scenes(
    rgb: wp.array4d(dtype=wp.uint8),
    instance: wp.array3d(dtype=wp.int8),
    label: wp.array2d(dtype=wp.int64),
    rows: wp.array(dtype=wp.int64),
    window: wp.array(dtype=wp.vec4f),
    grey: float,
    out_image: wp.array4d(dtype=wp.float32),
    out_id: wp.array3d(dtype=wp.int8),
    out_kind: wp.array3d(dtype=wp.int16),
):
    """Crops of the scenes ``rows``: colour bilinear, instance and its class nearest; outside is grey and nothing (-1).

    rgb: (S, H, W, 3). instance: (S, H, W). label: (S, T). window: (B) centre x, y and width, height in shares of the
    image. out_image: (B, 3, R, R) in [0, 255]. out_id, out_kind: (B, R, R).
    """
    b, y, x = wp.tid()
    scene = int(rows[b])
    height = rgb.shape[1]
    width = rgb.shape[2]
    size = float(out_id.shape[1])
    w = window[b]
    # In the order of torch's grid_sample, so that a pixel's nearest neighbour is the same one.
    grid_x = (w[0] + w[2] * ((float(x) + 0.5) / size - 0.5)) * 2.0 - 1.0
    grid_y = (w[1] + w[3] * ((float(y) + 0.5) / size - 0.5)) * 2.0 - 1.0
    at_x = ((grid_x + 1.0) * float(width) - 1.0) / 2.0
    at_y = ((grid_y + 1.0) * float(height) - 1.0) / 2.0

    color = wp.vec3f(0.0, 0.0, 0.0)
    left = int(wp.floor(at_x))
    top = int(wp.floor(at_y))
    for j in range(2):
        for i in range(2):
            px = left + i
            py = top + j
            if px >= 0 and px < width and py >= 0 and py < height:
                share = (1.0 - wp.abs(at_x - float(px))) * (1.0 - wp.abs(at_y - float(py)))
                color += share * wp.vec3f(
                    float(rgb[scene, py, px, 0]) - grey,
                    float(rgb[scene, py, px, 1]) - grey,
                    float(rgb[scene, py, px, 2]) - grey,
                )
    for c in range(3):
        out_image[b, c, y, x] = color[c] + grey

    near_x = int(wp.rint(at_x))
    near_y = int(wp.rint(at_y))
    found = int(-1)
    kind = int(-1)
    if near_x >= 0 and near_x < width and near_y >= 0 and near_y < height:
        found = int(instance[scene, near_y, near_x])
        if found >= 0 and found < label.shape[1]:
            kind = int(label[scene, found])
    out_id[b, y, x] = wp.int8(found)
    out_kind[b, y, x] = wp.int16(kind)


@wp.kernel
def color_crops(
    image: wp.array4d(dtype=wp.float32),
    noise: wp.array4d(dtype=wp.float32),
    look: wp.array2d(dtype=wp.float32),
    mean: wp.array(dtype=wp.float32),
    std: wp.array(dtype=wp.float32),
):
    """Saturation, contrast, gain, noise and normalization of image (B, 3, R, R), in place.

    look: (B, 7) saturation, contrast, mean of the image, noise, gain of each channel. noise: of unit variance.
    """
    b, y, x = wp.tid()
    color = wp.vec3f(image[b, 0, y, x], image[b, 1, y, x], image[b, 2, y, x])
    grey = (color[0] + color[1] + color[2]) / 3.0
    middle = look[b, 2]
    for c in range(3):
        value = grey + (color[c] - grey) * look[b, 0]
        value = (middle + (value - middle) * look[b, 1]) * look[b, 4 + c] + noise[b, c, y, x] * look[b, 3]
        image[b, c, y, x] = (wp.clamp(value, 0.0, 255.0) / 255.0 - mean[c]) / std[c]
