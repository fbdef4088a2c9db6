"""Warp kernels of the detector's training."""

# Warp compiles this source: float(...) declares a mutable, and its types are not Python's.
# ruff: noqa: RUF046
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
