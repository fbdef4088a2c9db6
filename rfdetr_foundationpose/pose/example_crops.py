"""What the networks really see: crops of a shipped object in a rendered frame, for all hypotheses of a registration.

Random numbers do not show what reduced precision does to a scorer: its attention leaves FP16's range on real crops alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ..accel.base import EXAMPLES_OF_A_FRAME
from ..objects import load_objects
from ..resources import default_objects_file
from .depth import DepthFilter
from .example_scene import ExampleScene
from .hypotheses import hypothesis_rotations
from .mesh import ObjectModel, load_object
from .networks import CROP_SIZE
from .observation import Observation
from .renderer import WarpRenderer
from .views import CropSettings, ViewSet

SIZE = (480, 640)
NOISE = 0.002
"""Depth gets noise of so many metres, standard deviation."""


@dataclass(frozen=True)
class Crops:
    """rendered, observed: (N, 6, R, R) float32 on the CPU. name: of the scene, for people."""

    name: str
    rendered: Tensor
    observed: Tensor

    def first(self, count: int) -> Crops:
        """Of fewer hypotheses, or repeated for more."""
        which = torch.arange(count) % len(self.rendered)
        return Crops(self.name, self.rendered[which], self.observed[which])


@cache
def _models() -> list[ObjectModel]:
    return [load_object(spec) for spec in load_objects(default_objects_file())]


def hypothesis_crops(
    scene: int, role: str, every: int = 1, device: torch.device | str = "cpu", size: int = CROP_SIZE
) -> Crops:
    """Of all 252 hypotheses of an object, at its true place and in all rotations, or of every n-th. scene: 0, 1, ...: object and
    view. device: that renders them. size: rows and columns of the crops."""
    models = _models()
    item = models[scene % len(models)]
    frame = ExampleScene([item], SIZE, device, seed=scene).frame(scene)
    depth = frame.frame.depth.astype(np.float32) * np.float32(frame.frame.depth_scale)
    rng = np.random.default_rng(scene)
    depth[depth > 0] += rng.normal(0, NOISE, int((depth > 0).sum())).astype(np.float32)
    camera = frame.frame.camera
    observation = Observation(
        torch.from_numpy(frame.frame.rgb).to(device),
        DepthFilter(device, 0.1, 4.0)(torch.from_numpy(depth).to(device)),
        torch.tensor([[camera.fx, camera.fy, camera.cx, camera.cy]], dtype=torch.float32, device=device),
    )
    rotations = torch.tensor(hypothesis_rotations(np.eye(4)[None])[::every], dtype=torch.float32)
    views = ViewSet(WarpRenderer([item], device), len(rotations), device, CropSettings(size, compared=0))
    views.poses[:, :3, :3] = rotations
    views.poses[:, :3, 3] = torch.tensor(item.to_centered(frame.truths[item.name])[:3, 3], dtype=torch.float32)
    views.diameters.fill_(item.diameter)
    rendered, observed = views.pairs(len(rotations), observation, role)
    return Crops(f"{item.name}, view {scene}", rendered.clone().cpu(), observed.clone().cpu())


@cache
def example_pairs(role: str, device: torch.device | str = "cpu", size: int = CROP_SIZE) -> tuple[Tensor, Tensor]:
    """Rendered and observed crops (48, 6, size, size) of four scenes, some hypotheses of each, for ``RunnerContext.examples``, on the
    CPU. Kept, 59 MB, until ``example_pairs.cache_clear()``.

    device: that renders them; on the one that poses are estimated on, no kernels are compiled for another one.
    """
    chosen = [hypothesis_crops(scene, role, 252 // EXAMPLES_OF_A_FRAME, device, size) for scene in range(4)]
    return torch.cat([c.rendered for c in chosen]), torch.cat([c.observed for c in chosen])
