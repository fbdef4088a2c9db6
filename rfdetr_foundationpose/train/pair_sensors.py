"""What cameras do to the observed side of training pairs: depth and colour, one setting a scene."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import warp as wp
from torch import Tensor

from ..warp_setup import launch, warp_device
from . import pair_sensor_kernels as kernels


@dataclass(frozen=True)
class SensorEffects:
    """Probabilities, each of its effect in a scene; 0 switches it off.

    shift: depth lies 1 to 4 pixels beside colour. coarse: depth has a half to a quarter of the crop's resolution. fatten:
    things in front grow over their edges (stereo). flying: pixels between two depths at edges (time of flight). shadow: depth
    missing on one side of what stands in front (structured light). bias: the scale of depth is off by up to about 1 %.
    waves: errors that vary smoothly over the surface (multipath, disparity). missing: the target or its surroundings lose most
    of their depth (gloss, glass). motion: colour blurred along a direction.
    """

    shift: float = 0.4
    coarse: float = 0.3
    fatten: float = 0.35
    flying: float = 0.3
    shadow: float = 0.3
    bias: float = 0.35
    waves: float = 0.3
    missing: float = 0.12
    motion: float = 0.2


STEADY = SensorEffects(0, 0, 0, 0, 0, 0.3, 0, 0, 0)
"""This sensor has noise, holes, lost edges and millimetres alone."""


@dataclass(frozen=True)
class Sight:
    """What there is to see in n crops. rgb: (n, r, r, 3) in [0, 1]; z: (n, r, r) m, 0 where nothing is; cosine: (n, r, r) of
    incidence; target: (n, r, r) 1 where it is the target. float32, contiguous."""

    rgb: Tensor
    z: Tensor
    cosine: Tensor
    target: Tensor


@dataclass(frozen=True)
class Place:
    """Where n crops of s scenes are. scene: (n,) int32; windows: (n, 4) as crop_windows gives them; poses: (n, 4, 4) and
    diameters: (n,), m, of the hypotheses. cameras: (s, 4) fx, fy, cx, cy; sizes: (s, 2) width, height, pixels. float32,
    contiguous."""

    scene: Tensor
    windows: Tensor
    poses: Tensor
    diameters: Tensor
    cameras: Tensor
    sizes: Tensor


class Sensors:
    """One camera a scene, drawn anew with every call."""

    def __init__(self, generator: torch.Generator, effects: SensorEffects) -> None:
        self.generator = generator
        self.device = generator.device
        self.chances = kernels.Chances()
        for name, chance in asdict(effects).items():
            setattr(self.chances, name, chance)

    def observe(self, sight: Sight, place: Place, min_z: float, out: Tensor) -> None:
        """Network inputs into ``out`` (n, r, r, 6), of colour and depth as the cameras and the depth filter leave them.

        min_z: points nearer than this, m, count as none.
        """
        n, r, _ = sight.z.shape
        scene = wp.from_torch(place.scene)
        seeds = wp.from_torch(torch.randint(1 << 31, (2,), generator=self.generator, device=self.device).int())
        normal = torch.randn(n, kernels.NORMAL_NODES, generator=self.generator, device=self.device)
        uniform = torch.rand(n, kernels.UNIFORM_NODES, generator=self.generator, device=self.device)
        measured = torch.empty_like(sight.z)
        memory, settings = self._settings(len(place.cameras))
        launch(kernels.draw_settings, len(memory), [seeds, self.chances, settings], device=self.device)
        z = wp.from_torch(sight.z)
        launch(kernels.measure_depth, n * r * r, [z, scene, settings, wp.from_torch(measured)], device=self.device)
        launch(
            kernels.sense,
            n * r * r,
            [
                seeds,
                settings,
                scene,
                wp.from_torch(sight.rgb, dtype=wp.vec3f),
                z,
                *(wp.from_torch(x) for x in (measured, sight.cosine, sight.target, normal, uniform)),
                wp.from_torch(place.windows, dtype=wp.vec4f),
                wp.from_torch(place.cameras, dtype=wp.vec4f),
                wp.from_torch(place.sizes, dtype=wp.vec2f),
                wp.from_torch(place.poses, dtype=wp.mat44f),
                wp.from_torch(place.diameters),
                min_z,
                wp.from_torch(out),
            ],
            device=self.device,
        )

    def _settings(self, scenes: int) -> tuple[Tensor, wp.array]:
        """An array for the settings in memory of torch, which alone knows when its stream is done with it."""
        each = wp.types.type_size_in_bytes(kernels.Setting)
        memory = torch.empty(scenes, each // 4, device=self.device)
        array = wp.array(ptr=memory.data_ptr(), dtype=kernels.Setting, shape=(scenes,), device=warp_device(self.device))
        return memory, array
