"""What a real depth camera does to depth: noise, holes, ragged edges, quantization. Batched, on the tensor's device.

Axial noise follows Nguyen, Izadi and Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and
Tracking", 3DIMPVT 2012: sigma = 0.0012 + 0.0019 (z - 0.4)^2 metres, here scaled by ``DepthNoise.scale``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EDGE_STEP = 0.015


@dataclass(frozen=True)
class DepthNoise:
    """scale: of the axial noise (1: Kinect; 0.7: a current stereo or time-of-flight camera).

    correlated: share of the noise variance that varies over patches of ~4 px instead of per pixel.
    grazing_cosine: surfaces at a smaller incidence cosine begin to lose pixels. edge_loss: probability that a pixel
    beside a depth step is lost. edge_jitter: px by which edges are torn. dropout: share of pixels lost in small blobs.
    quantum: depth step in metres. max_range: farther pixels are lost, metres.
    """

    scale: float = 0.7
    correlated: float = 0.5
    grazing_cosine: float = 0.2
    edge_loss: float = 0.5
    edge_jitter: float = 0.6
    dropout: float = 0.003
    quantum: float = 0.001
    max_range: float = 6.0

    def sigma(self, z: Tensor) -> Tensor:
        """Axial standard deviation (m) at depth z (m)."""
        return self.scale * (0.0012 + 0.0019 * (z - 0.4) ** 2)


def add_depth_noise(depth: Tensor, cosine: Tensor, noise: DepthNoise, generator: torch.Generator) -> Tensor:
    """(N, H, W) float32 m, 0 where missing, from perfect depth and incidence cosine of the same shape.

    ``generator`` must live on the tensors' device; the same state gives the same result.
    """
    n, h, w = depth.shape
    device = depth.device

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, device=device)

    coarse = (n, 1, max(h // 4, 1), max(w // 4, 1))
    y = torch.arange(h, device=device, dtype=torch.float32)[:, None] + noise.edge_jitter * normal(n, h, w)
    x = torch.arange(w, device=device, dtype=torch.float32)[None, :] + noise.edge_jitter * normal(n, h, w)
    index = y.round().clamp(0, h - 1).long() * w + x.round().clamp(0, w - 1).long()
    moved = depth.reshape(n, -1).gather(1, index.reshape(n, -1)).reshape(n, h, w)
    # Only edges are torn: inside a surface, the lateral shift would add slope-dependent noise to every pixel.
    step = 0.02 * depth
    z = torch.where((moved - depth).abs() > step, moved, depth)

    smooth = F.interpolate(normal(*coarse), size=(h, w), mode="bicubic", align_corners=False)[:, 0]
    smooth = smooth / smooth.std(dim=(1, 2), keepdim=True).clamp(min=1e-6)
    mixed = smooth * noise.correlated**0.5 + normal(n, h, w) * (1 - noise.correlated) ** 0.5
    slant = 1 + 0.15 * (1 / cosine.clamp(min=0.05) - 1)
    noisy = z + mixed * noise.sigma(z) * slant

    lost = _edges(depth) & (uniform(n, h, w) < noise.edge_loss)
    lost |= cosine < noise.grazing_cosine * (0.35 + 0.65 * uniform(n, h, w))
    if noise.dropout > 0:
        blobs = F.interpolate(uniform(*coarse), size=(h, w), mode="bilinear", align_corners=False)[:, 0]
        lost |= blobs > _quantile(blobs, 1 - noise.dropout)
    lost |= (z <= 0) | (z > noise.max_range) | ~torch.isfinite(z)
    quantized = (noisy / noise.quantum).round() * noise.quantum
    return torch.where(lost | (quantized <= 0), torch.zeros_like(quantized), quantized)


def _edges(depth: Tensor) -> Tensor:
    """(N, H, W) bool: pixels beside a relative depth step of more than EDGE_STEP.

    Inverse depth is linear over the image of a plane, so its second difference is blind to slant.
    """
    inverse = 1 / depth.clamp(min=1e-3)
    padded = F.pad(inverse[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:] - 2 * inverse).abs()
    down = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] - 2 * inverse).abs()
    return torch.maximum(across, down) * depth > EDGE_STEP


def _quantile(values: Tensor, q: float) -> Tensor:
    """(N, 1, 1) q-quantile of each (H, W) image, from at most 4096 evenly spaced pixels."""
    flat = values.flatten(1)
    flat = flat[:, :: max(flat.shape[1] // 4096, 1)]
    return torch.quantile(flat, q, dim=1)[:, None, None]
