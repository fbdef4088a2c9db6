"""What the reference schedule borrows from us: rasterization and the depth filter's kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..pose.depth import DepthFilter
from ..pose.mesh import ObjectModel
from ..pose.networks import CROP_SIZE
from ..pose.renderer import Views, WarpRenderer
from .reference import FilterDepth, Rasterize


def depth_filter(device: torch.device, min_depth: float, max_depth: float) -> FilterDepth:
    """Our filter, with the same limits as the estimator it is compared with."""
    return DepthFilter(device, min_depth, max_depth)


def rasterizer(model: ObjectModel, camera: Tensor, device: torch.device) -> Rasterize:
    """Crops of one object; camera (1, 4) float32 fx, fy, cx, cy on the device, read at every call."""
    renderer = WarpRenderer([model], device)

    def rasterize(poses: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        index = torch.zeros(len(poses), dtype=torch.int32, device=device)
        shape = (len(poses), CROP_SIZE, CROP_SIZE, 3)
        rgb, xyz = (torch.empty(shape, device=device) for _ in range(2))
        renderer.render_into(Views(poses.contiguous(), index, windows.contiguous(), camera), rgb, xyz)
        return rgb, xyz

    return rasterize
