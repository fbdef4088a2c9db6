"""One tracking step for k objects as a fixed-shape device program: what a CUDA graph replays on every frame."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..accel.base import Step, runner_for
from ..accel.graph import GraphedProgram, GraphPool
from .agreement_columns import RESULT_COLUMNS
from .alignment import Alignment
from .observation import Observation
from .renderer import Renderer
from .runners import Networks
from .views import CropSettings, ViewSet

START_COLUMNS = 16 + 1 + 1
"""A start row holds a pose (4, 4), the object's index and its diameter."""
SMALL_STEP = (0.1, math.radians(5))
"""A step of the refiner that is smaller, in radii and rad, is the last on a CPU where alignment follows."""


class TrackProgram:
    """Static buffers and the step over them: (crop, render, refine) x iterations, alignment, then the comparison with the
    image at the final pose.

    An observation and start (k, START_COLUMNS) float32 are inputs; result (k, RESULT_COLUMNS) float32 holds the rows that
    agreement_columns names. networks: of which it runs ``track_refiner``. size: (H, W) of the image. iterations: of the refiner, at most;
    with 0 poses begin where they were and are only aligned. align: whether poses are aligned with the image after the refiner.
    """

    def __init__(
        self,
        renderer: Renderer,
        networks: Networks,
        k: int,
        size: tuple[int, int],
        iterations: int,
        device: torch.device,
        align: bool = False,
    ) -> None:
        refiner = networks.track_refiner
        paired = iterations > 0
        crops = CropSettings(dtype=refiner.dtype, paired=paired, textured=True, official_crops=networks.official_crops)
        self.views = ViewSet(renderer, k, device, crops)
        self._alignment = Alignment(renderer, k, device) if align else None
        # Alignment does the rest of a small step. On a GPU the host would have to wait for its size.
        self._may_stop = align and device.type == "cpu"
        self._small = torch.tensor(SMALL_STEP, device=device)
        self.k = k
        self.iterations = iterations
        self.size = size
        self._static = Observation.blank(size, device)
        self._observation = self._static
        self._camera = self._static.camera
        pinned = device.type == "cuda"
        self._host_start = torch.zeros(k, START_COLUMNS, pin_memory=pinned)
        self._host_start[:, :16] = torch.eye(4).flatten()
        self._host_start[:, (11, 17)] = 1.0
        self.start = self._host_start.to(device)
        self._host_result = torch.zeros(k, RESULT_COLUMNS, pin_memory=pinned)
        self._start_rows, self._result_rows = self._host_start.numpy(), self._host_result.numpy()
        self.result = torch.zeros(k, RESULT_COLUMNS, device=device)
        self._refiner = runner_for(Step.TRACKING, refiner)
        if iterations > 0:
            self._refiner.prepare(k)
        self.graph = GraphedProgram(
            self.run,
            device,
            name=f"track {k}" if iterations > 0 else f"align {k}",
            pool=refiner.pool or GraphPool("track", device),
            capture=renderer.capturable and refiner.capturable,
        )

    def __call__(self, observation: Observation, start: NDArray[np.float32]) -> NDArray[np.float64]:
        """Result rows (k, RESULT_COLUMNS) of start rows (k, START_COLUMNS); waits once, for the read-back."""
        with torch.inference_mode():
            self._take(observation)
            # The read-back below ends after this copy, so the pinned rows are free again by the next call.
            self._start_rows[:] = start
            self.start.copy_(self._host_start, non_blocking=True)
            self._host_result.copy_(self.graph(), non_blocking=True)
            if self.result.is_cuda:
                torch.cuda.current_stream(self.result.device).synchronize()
            return self._result_rows.astype(np.float64)

    def _take(self, observation: Observation) -> None:
        """Into the static buffers, where there is a graph that reads them."""
        if not self.graph.will_capture:
            self._observation = observation
            return
        own = self._observation = self._static
        own.copy_images(observation)
        if observation.camera is not self._camera:
            own.camera.copy_(observation.camera)
            self._camera = observation.camera

    def run(self) -> Tensor:
        """Enqueue the step; waits for nothing."""
        views, k = self.views, self.k
        views.poses.view(k, 16).copy_(self.start[:, :16])
        views.model.copy_(self.start[:, 16])
        views.diameters.copy_(self.start[:, 17])
        for _ in range(self.iterations):
            trans, rot = self._refiner(*views.pairs(k, self._observation, "refiner"))
            views.update(k, trans, rot)
            if self._may_stop and bool((views.delta[:k] < self._small).all()):
                break
        if self._alignment is not None:
            self._alignment(views, k, self._observation)
        views.report(k, self._observation, self.result)
        return self.result
