"""One tracking step for k objects as a fixed-shape device program: what a CUDA graph replays on every frame."""

from __future__ import annotations

import torch
from torch import Tensor

from ..accel.base import Runner
from ..accel.graph import GraphedProgram
from .networks import CROP_SIZE
from .renderer import Renderer
from .views import AGREEMENT, ViewSet

RESULT_COLUMNS = 16 + 2 + len(AGREEMENT)


class TrackProgram:
    """Static buffers and the step over them: (crop, render, refine) x iterations, then agreement at the final pose.

    rgb (H, W, 3) uint8, depth (H, W) float32 filtered m, camera (1, 4), start (k, 4, 4) float32, model (k,) int32 and
    diameters (k,) are inputs; result (k, 24) float32 holds pose, last update and agreement counts, for one read-back.
    """

    def __init__(
        self, renderer: Renderer, refiner: Runner, k: int, size: tuple[int, int], iterations: int, device: torch.device
    ) -> None:
        self.views = ViewSet(renderer, k, device, CROP_SIZE)
        self.k = k
        self.iterations = iterations
        self.rgb = torch.zeros(*size, 3, dtype=torch.uint8, device=device)
        self.depth = torch.zeros(*size, device=device)
        self.camera = torch.ones(1, 4, device=device)
        self.start = torch.eye(4, device=device).repeat(k, 1, 1)
        self.start[:, 2, 3] = 1.0
        self.result = torch.zeros(k, RESULT_COLUMNS, device=device)
        self._refiner = refiner
        refiner.prepare(k)
        self.graph = GraphedProgram(
            self.run,
            device,
            name=f"track {k}",
            capture=renderer.capturable and refiner.capturable and refiner.name != "reference",
        )

    def run(self) -> Tensor:
        """Enqueue the step; waits for nothing."""
        views, k = self.views, self.k
        views.poses.copy_(self.start)
        for _ in range(self.iterations):
            views.look(k, self.rgb, self.depth, self.camera, "refiner")
            trans, rot = self._refiner(*views.pairs(k, "refiner"))
            views.update(k, trans, rot)
        views.look(k, self.rgb, self.depth, self.camera, "refiner")
        self.result[:, :16] = views.poses.view(k, 16)
        self.result[:, 16:18] = views.delta
        self.result[:, 18:] = views.agree(k)
        return self.result
