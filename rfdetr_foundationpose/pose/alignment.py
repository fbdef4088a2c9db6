"""Alignment of poses with the image: what is left of the networks' error is smaller than what depth and texture tell.

Point-to-plane distances (Chen and Medioni 1992, with projective association) and differences of locally normalized brightness
are minimized together by Gauss-Newton, held by a prior about the networks' poses.
"""

from __future__ import annotations

from functools import partial

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch, parts_of, side_by_side
from . import alignment_kernels as kernels
from . import alignment_view_kernels as view_kernels
from .constants import CROP_RATIO, MIN_Z
from .observation import Observation
from .renderer import Renderer, Views
from .views import ViewSet
from .window_kernels import crop_windows

SIZE = 80
"""Rows and columns of what is rendered and compared."""
ITERATIONS = 3


class Alignment:
    """Buffers to align up to ``capacity`` poses of a ``ViewSet`` with an image; nothing waits for the device."""

    def __init__(self, renderer: Renderer, capacity: int, device: torch.device) -> None:
        self._renderer = renderer
        self._device = device
        empty = partial(torch.zeros, device=device)
        self._scratch = renderer.scratch(capacity, SIZE)
        self._windows, self._unused = empty(capacity, 4), empty(capacity, 4)
        self._rendered = empty(capacity, SIZE, SIZE, 6)
        self._depth, self._brightness, self._visible = (empty(capacity, SIZE, SIZE) for _ in range(3))
        self._normals = empty(capacity, SIZE, SIZE, 3)
        self._smoothed, self._contrast = (empty(capacity, SIZE, SIZE, 2) for _ in range(2))
        self._rows = empty(capacity, SIZE, SIZE, 5)
        self._partial = empty(capacity, kernels.SUMS, SIZE * kernels.LANES)
        self._sums = empty(capacity, kernels.SUMS)
        self._starts = torch.eye(4, device=device).repeat(capacity, 1, 1)
        self._scales = empty(capacity)

    def __call__(self, views: ViewSet, n: int, observation: Observation) -> None:
        """Move the first n poses of ``views``, in place. One of which too little is seen stays where it is."""
        self._launch(
            crop_windows,
            n,
            wp.from_torch(views.poses[:n], dtype=wp.mat44f),
            wp.from_torch(views.diameters[:n]),
            wp.from_torch(observation.camera, dtype=wp.vec4f),
            CROP_RATIO["refiner"],
            float(SIZE),
            wp.from_torch(self._windows[:n], dtype=wp.vec4f),
            wp.from_torch(self._unused[:n], dtype=wp.vec4f),
        )
        observation.need(self._windows[:n])
        scratch = self._scratch
        parts = parts_of(n, self._device, None if scratch is None else len(scratch))
        share = 0 if scratch is None else len(scratch) // len(parts)

        def work(part: slice, i: int) -> None:
            own = None if scratch is None else scratch[i * share : (i + 1) * share]
            self._align(views, part, observation, own)

        side_by_side(work, parts)

    def _align(self, views: ViewSet, part: slice, observation: Observation, scratch: Tensor | None) -> None:
        count = part.stop - part.start
        grid = (count, SIZE, SIZE)
        diameters, cameras = views.diameters[part], wp.from_torch(observation.camera, dtype=wp.vec4f)
        starts = self._starts[part]
        starts.copy_(views.poses[part])
        self._scales[part] = kernels.FIRST_SIGMA
        rendering = Views(starts, views.model[part], self._windows[part], observation.camera)
        self._renderer.render_inputs(rendering, diameters, MIN_Z["refiner"], self._rendered[part], scratch)

        windows = wp.from_torch(self._windows[part], dtype=wp.vec4f)
        first, poses = (wp.from_torch(T, dtype=wp.mat44f) for T in (starts, views.poses[part]))
        sizes, scales = wp.from_torch(diameters), wp.from_torch(self._scales[part])
        rendered, depth, brightness, visible, rows, partial_sums = (
            wp.from_torch(buffer[part])
            for buffer in (self._rendered, self._depth, self._brightness, self._visible, self._rows, self._partial)
        )
        normals = wp.from_torch(self._normals[part], dtype=wp.vec3f)
        smoothed, contrast = (wp.from_torch(b[part], dtype=wp.vec2f) for b in (self._smoothed, self._contrast))
        images = wp.from_torch(observation.rgb), wp.from_torch(observation.depth)
        self._launch(view_kernels.observe, grid, *images, windows, depth, brightness)
        self._launch(view_kernels.describe_surface, grid, rendered, depth, brightness, first, sizes, normals, visible)
        self._launch(view_kernels.smooth, grid, rendered, brightness, visible, smoothed)
        self._launch(view_kernels.blur_rows, grid, smoothed, visible, rows)
        self._launch(view_kernels.normalize_contrast, grid, smoothed, visible, rows, contrast)
        surface = rendered, normals, visible, depth, contrast
        for _ in range(ITERATIONS):
            self._launch(
                kernels.gather,
                (count, SIZE, kernels.LANES),
                *(*surface, cameras, windows, first, poses, sizes, scales, partial_sums),
            )
            sums = torch.sum(self._partial[part], 2, out=self._sums[part])
            self._launch(kernels.step, count, wp.from_torch(sums), first, sizes, scales, poses)

    def _launch(self, kernel: wp.Kernel, dim: int | tuple[int, ...], *inputs: object) -> None:
        launch(kernel, dim, inputs, self._device)
