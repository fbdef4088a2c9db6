"""Frames for checks and measurements of speed: objects that move before a tilted, patterned wall, rendered with our kernels.

Deliberately plain, so that neither a recording nor the scene generator is needed; accuracy is measured elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..types import CameraIntrinsics, Frame
from .mesh import ObjectModel
from .renderer import Views, WarpRenderer

# The camera takes this many frames a second.
RATE = 30.0
# The objects stand at this distance (m) from the camera, the wall behind them at WALL.
DISTANCE = 0.85
WALL = 1.3


@dataclass(frozen=True)
class ExampleFrame:
    """truths: object name -> (4, 4) pose of the mesh as loaded; ``frame.masks`` has the visible part of each object."""

    frame: Frame
    truths: dict[str, NDArray[np.float64]]


class ExampleScene:
    """frame(i) of an endless motion of up to 3 cm and 25 degrees about each object's place, below 30 cm/s and 60 deg/s."""

    def __init__(
        self, objects: Sequence[ObjectModel], size: tuple[int, int], device: torch.device | str, seed: int = 0
    ) -> None:
        """size: (height, width). Raises ValueError for more than four objects, which would hide one another."""
        if not 1 <= len(objects) <= 4:
            raise ValueError(f"an example scene shows 1 to 4 objects, {len(objects)} were given")
        self.objects = list(objects)
        self.device = torch.device(device)
        height, width = size
        self.camera = CameraIntrinsics(0.95 * width, 0.95 * width, (width - 1) / 2, (height - 1) / 2, width, height)
        self._renderer = WarpRenderer(objects, device)
        rng = np.random.default_rng(seed)
        self._rng_seed = seed
        self._start = Rotation.random(len(objects), random_state=seed).as_matrix()
        self._axes = rng.normal(size=(len(objects), 3))
        self._axes /= np.linalg.norm(self._axes, axis=1, keepdims=True)
        self._phase = rng.uniform(0, 2 * np.pi, (len(objects), 3))
        columns = min(len(objects), 2)
        grid = [
            ((i % columns) - (columns - 1) / 2, (i // columns) - (len(objects) > 2) / 2) for i in range(len(objects))
        ]
        self._places = np.array([[0.32 * x, 0.22 * y, DISTANCE] for x, y in grid])
        self._wall, self._wall_depth = self._background(rng)

    def poses(self, index: int) -> NDArray[np.float64]:
        """(k, 4, 4) camera from mesh centre."""
        t = index / RATE
        T = np.tile(np.eye(4), (len(self.objects), 1, 1))
        for i in range(len(self.objects)):
            sway = np.sin(2 * np.pi * np.array([0.41, 0.31, 0.23]) * t + self._phase[i])
            angle = np.deg2rad(25) * np.sin(2 * np.pi * 0.2 * t + self._phase[i, 0])
            T[i, :3, :3] = Rotation.from_rotvec(angle * self._axes[i]).as_matrix() @ self._start[i]
            T[i, :3, 3] = self._places[i] + 0.03 * sway
        return T

    def frame(self, index: int) -> ExampleFrame:
        """RGB uint8, depth uint16 millimetres with 1 mm of noise and 1 % holes."""
        T = self.poses(index)
        rgb, depth = self._wall.copy(), self._wall_depth.copy()
        owner = np.full(depth.shape, -1)
        colors, points = self._render(T)
        for i in range(len(T)):
            z = points[i, :, :, 2]
            shown = (z > 0) & (z < depth)
            rgb[shown], depth[shown], owner[shown] = colors[i][shown], z[shown], i
        rng = np.random.default_rng((self._rng_seed, index))
        noisy = depth + rng.normal(0, 0.001, depth.shape)
        noisy[rng.random(depth.shape) < 0.01] = 0
        frame = Frame(
            stamp_ns=round(index * 1e9 / RATE),
            frame_id="camera_color_optical_frame",
            rgb=(rgb * 255).clip(0, 255).astype(np.uint8),
            depth=(noisy * 1000).round().clip(0, 65535).astype(np.uint16),
            depth_scale=0.001,
            camera=self.camera,
            masks={m.name: owner == i for i, m in enumerate(self.objects)},
        )
        return ExampleFrame(frame, {m.name: m.from_centered(T[i]) for i, m in enumerate(self.objects)})

    def _render(self, T: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Every object alone in the whole image: colour and camera-frame points, (k, H, W, 3)."""
        c = self.camera
        half = 0.5  # the renderer's pixel i is at left + i + 0.5; the observed image has integers at pixel centres
        window = torch.tensor([[-half, -half, c.width - half, c.height - half]], device=self.device)
        views = Views(
            torch.tensor(T, dtype=torch.float32, device=self.device),
            torch.arange(len(T), dtype=torch.int32, device=self.device),
            window.repeat(len(T), 1),
            torch.tensor([[c.fx, c.fy, c.cx, c.cy]], dtype=torch.float32, device=self.device),
        )
        image = self._renderer.render(views, (c.height, c.width))
        return image.rgb.cpu().numpy(), image.xyz.cpu().numpy()

    def _background(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """A wall that leans away upwards, with blocks of colour at two scales."""
        c = self.camera
        v, u = np.meshgrid(np.arange(c.height), np.arange(c.width), indexing="ij")
        depth = WALL / (1 + 0.25 * (v - c.cy) / c.fy)
        picture = np.zeros((c.height, c.width, 3))
        for block in (max(c.width // 12, 1), max(c.width // 60, 1)):
            colors = rng.uniform(0.1, 0.5, (c.height // block + 1, c.width // block + 1, 3))
            picture += colors[v // block, u // block]
        return np.asarray(picture, np.float32), np.asarray(depth, np.float64)
