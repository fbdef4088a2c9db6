"""What a real colour camera does to radiance: exposure, white balance, vignetting, blur, noise, 8 bits. Batched torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class ColorSensor:
    """exposure: (low, high) gain. balance: std of the channel gains. blur: (low, high) Gaussian sigma, px.

    noise: (low, high) standard deviation at white, of 1. vignette: largest darkening at the corners. A fixed camera
    has equal low and high.
    """

    exposure: tuple[float, float] = (0.8, 1.25)
    balance: float = 0.04
    blur: tuple[float, float] = (0.3, 0.9)
    noise: tuple[float, float] = (0.004, 0.02)
    vignette: float = 0.15


VIDEO_SENSOR = ColorSensor(exposure=(1.0, 1.0), balance=0.0, blur=(0.5, 0.5), noise=(0.008, 0.008), vignette=0.08)


def expose(rgb: Tensor, sensor: ColorSensor, generator: torch.Generator) -> Tensor:
    """(N, H, W, 3) uint8 from (N, H, W, 3) float32 radiance; ``generator`` lives on the same device."""
    n, h, w, _ = rgb.shape
    device = rgb.device

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand((n, 1, 1, 1), generator=generator, device=device)

    gain = between(*sensor.exposure)
    if sensor.balance > 0:
        gain = gain * (1 + sensor.balance * torch.randn((n, 1, 1, 3), generator=generator, device=device))
    y = torch.linspace(-1, 1, h, device=device)[:, None]
    x = torch.linspace(-1, 1, w, device=device)[None, :]
    falloff = ((x * x + y * y) / 2)[None, :, :, None]
    image = rgb * gain * (1 - between(0.0, sensor.vignette) * falloff)
    image = _blur(image, between(*sensor.blur).reshape(n))
    # Shot noise grows with the root of the signal; a floor stands for read noise.
    sigma = between(*sensor.noise) * (0.3 + 0.7 * image.clamp(0, 1).sqrt())
    image = image + sigma * torch.randn(image.shape, generator=generator, device=device)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _blur(image: Tensor, sigma: Tensor) -> Tensor:
    """Separable 5-tap Gaussian with one sigma an image, as one grouped convolution each way."""
    n, h, w, c = image.shape
    taps = torch.arange(-2, 3, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (taps / sigma[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None, None]
    planes = image.permute(0, 3, 1, 2).reshape(1, n * c, h, w)
    planes = F.conv2d(F.pad(planes, (2, 2, 0, 0), mode="replicate"), kernel, groups=n * c)
    planes = F.conv2d(F.pad(planes, (0, 0, 2, 2), mode="replicate"), kernel.transpose(2, 3), groups=n * c)
    return planes.reshape(n, c, h, w).permute(0, 2, 3, 1)
