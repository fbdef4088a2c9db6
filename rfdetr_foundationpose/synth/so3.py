"""Rotation vectors, batched in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def exp(v: Tensor) -> Tensor:
    """(..., 3) rotation vectors (rad) -> (..., 3, 3) rotation matrices (Rodrigues).

    torch.linalg.matrix_exp waits for a GPU six times a call, to sort the matrices by their norms.
    """
    K = hat(v)
    turn = v.norm(dim=-1)[..., None, None] / math.pi
    # sin(a) / a and (1 - cos(a)) / a^2, which sinc(x) = sin(pi x) / (pi x) gives down to 0.
    first, second = torch.sinc(turn), 0.5 * torch.sinc(turn / 2).square()
    return torch.eye(3, dtype=v.dtype, device=v.device) + first * K + second * (K @ K)


def hat(v: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) cross-product matrices."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)


def log(R: Tensor) -> Tensor:
    """(..., 3, 3) rotation matrices -> (..., 3) rotation vectors, angle in [0, pi). Not meant for angles near pi."""
    skew = torch.stack([R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]], -1)
    sine = skew.norm(dim=-1, keepdim=True)
    angle = torch.atan2(sine, (R.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)[..., None])
    return torch.where(sine > 1e-7, skew / sine.clamp(min=1e-7) * angle, skew / 2)


def random_rotations(n: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """(n, 3, 3), uniform over SO(3)."""
    q = torch.randn(n, 4, generator=generator, device=device)
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, -1).reshape(n, 3, 3)
