"""What cameras do to the observed side of training pairs: depth and colour, one setting a scene."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


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


class Sensors:
    """Applies effects to crops; ``owner`` maps (n,) crops to their (scenes) settings."""

    def __init__(self, generator: torch.Generator, effects: SensorEffects) -> None:
        self.generator = generator
        self.device = generator.device
        self.effects = effects

    def depth(self, z: Tensor, cosine: Tensor, seen: Tensor, owner: Tensor, scenes: int) -> Tensor:
        """(n, r, r) m, 0 where missing: depth as a camera and the depth filter leave it. seen: 1 on the target."""
        e = self.effects
        n, r, _ = z.shape
        true = z

        def each(low: float, high: float) -> Tensor:
            return self._uniform(scenes, 1, 1, low=low, high=high)[owner]

        def happens(chance: float) -> Tensor:
            return each(0, 1) < chance

        z = self._resampled(z, happens(e.shift), happens(e.coarse), owner, scenes)
        if e.fatten > 0:
            grown = -F.max_pool2d(-torch.where(z > 0, z, 99.0)[:, None], 5, 1, 2)[:, 0]
            z = torch.where(happens(e.fatten) & (z > 0) & (z - grown > 0.01), grown, z)
        nearest = -F.max_pool2d(-z[:, None], 3, 1, 1)[:, 0]
        farthest = F.max_pool2d(z[:, None], 3, 1, 1)[:, 0]
        edge = farthest - nearest > torch.where(happens(0.5), 0.02, 0.01)
        if e.flying > 0:
            between = torch.lerp(nearest, farthest, self._uniform(n, r, r))
            z = torch.where(edge & happens(e.flying) & (nearest > 0) & (self._uniform(n, r, r) < 0.7), between, z)

        sigma = torch.exp(each(-1.5, 1.0)) * (0.0006 + 0.0016 * z * z)
        noise = self._smooth(n, r, r // 4) + 0.3 * self._normal(n, r, r)
        waves = self._smooth(n, r, 8) * (0.002 + 0.003 * z) * each(0.3, 1.2) * happens(e.waves)
        bias = (0.002 * self._normal(scenes, 1, 1)[owner] + 0.004 * self._normal(scenes, 1, 1)[owner] * z) * happens(
            e.bias
        )
        noisy = z + sigma * noise + waves + bias
        noisy = torch.where(happens(0.5), torch.round(noisy * 1000) / 1000, noisy)

        lost = edge & (self._uniform(n, r, r) < each(0, 0.8))
        lost |= cosine < each(0, 0.25)
        if e.shadow > 0:
            # The shadow of what stands in front, on the side away from the projector.
            band = F.max_pool1d(F.pad(-z, (0, 6), value=-99.0).flatten(0, 1)[:, None], 7, 1)[:, 0].reshape(n, r, r)
            lost |= (z + band > 0.03) & (band > -98.0) & happens(e.shadow)
        lost |= self._smooth_uniform(n, r, 10) < each(-0.3, 0.25)
        lost |= self._uniform(n, r, r) < each(-0.05, 0.05)
        if e.missing > 0:
            which = torch.where(each(0, 1) < 0.6, seen, 1 - seen) > 0.5
            lost |= which & happens(e.missing) & (self._smooth_uniform(n, r, 12) < each(0.4, 1.1))
        return noisy * (~lost & (z > 0) & (true > 0))

    def color(self, rgb: Tensor, owner: Tensor, scenes: int) -> Tensor:
        """(n, r, r, 3) in [0, 1]: exposure, white balance, saturation, blur and noise."""

        def each(low: float, high: float) -> Tensor:
            return self._uniform(scenes, 1, 1, 1, low=low, high=high)[owner]

        x = rgb.permute(0, 3, 1, 2)
        blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        x = torch.lerp(x, blurred, each(-0.5, 1.2).clamp(0, 1))
        if self.effects.motion > 0:
            x = self._moved(x, owner, scenes)
        gain = 0.25 * self._normal(scenes, 1, 1, 1) + 0.1 * self._normal(scenes, 3, 1, 1)
        x = x * torch.exp(gain)[owner] + 0.05 * self._normal(scenes, 1, 1, 1)[owner]
        grey = x.mean(1, keepdim=True)
        x = torch.lerp(grey, x, each(0.4, 1.4))
        x = x + each(0, 0.03) * self._normal(*x.shape)
        return x.clamp(0, 1).permute(0, 2, 3, 1)

    def _uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device) * (high - low) + low

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device)

    def _smooth(self, n: int, r: int, cells: int) -> Tensor:
        return F.interpolate(self._normal(n, 1, cells, cells), (r, r), mode="bilinear")[:, 0]

    def _smooth_uniform(self, n: int, r: int, cells: int) -> Tensor:
        return F.interpolate(self._uniform(n, 1, cells, cells), (r, r), mode="bilinear")[:, 0]

    def _resampled(self, z: Tensor, shifted: Tensor, coarse: Tensor, owner: Tensor, scenes: int) -> Tensor:
        """Depth beside its colour, and of a coarser grid."""
        n, r, _ = z.shape
        at = torch.arange(r, device=self.device, dtype=torch.float32)
        offset = torch.where(shifted, self._uniform(scenes, 2, 1, low=-3.5, high=3.5)[owner], 0.0).round()
        grid = torch.where(coarse[..., 0], self._uniform(scenes, 1, low=1.0, high=4.0)[owner], 1.0)
        phase = torch.where(coarse[..., 0], self._uniform(scenes, 1)[owner], 0.0)
        rows, columns = (
            (((at + offset[:, k]) / grid + phase).floor() - phase) * grid + (grid - 1) / 2 for k in range(2)
        )
        rows, columns = (x.round().clamp(0, r - 1).long() for x in (rows, columns))
        return z.flatten(1).gather(1, (rows[:, :, None] * r + columns[:, None]).flatten(1)).reshape(n, r, r)

    def _moved(self, x: Tensor, owner: Tensor, scenes: int) -> Tensor:
        """Blur along one direction of up to 8 crop pixels."""
        angle = self._uniform(scenes, high=math.pi)
        length = self._uniform(scenes, low=0.5, high=4.0) * (self._uniform(scenes) < self.effects.motion)
        step = (torch.stack([angle.cos(), angle.sin()], -1) * length[:, None])[owner]
        r = x.shape[-1]
        at = torch.arange(r, device=self.device, dtype=torch.float32)
        total = torch.zeros_like(x)
        for k in (-1.0, -0.5, 0.0, 0.5, 1.0):
            columns, rows = ((at + k * step[:, i : i + 1]).round().clamp(0, r - 1).long() for i in range(2))
            index = (rows[:, :, None] * r + columns[:, None]).flatten(1)
            total += x.flatten(2).gather(2, index[:, None].expand(-1, 3, -1)).reshape(x.shape)
        return total / 5
