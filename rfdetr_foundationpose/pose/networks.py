"""RefineNet and ScoreNet of FoundationPose (CVPR 2024), with the official release's key names and shapes at width 1.

Inputs are (N, 6, R, R): RGB in [0, 1], then normalized xyz; channels-last memory is preferred.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

CROP_SIZE = 160


class ConvBNReLU(nn.Module):
    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(c_in, c_out, kernel, stride, padding=(kernel - 1) // 2),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def residual(channels: int) -> BasicBlock:
    """torchvision's basic block, with the convolution biases that the official checkpoints carry."""
    block = BasicBlock(channels, channels)
    block.conv1 = nn.Conv2d(channels, channels, 3, 1, 1)
    block.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
    return block


class PositionEmbedding(nn.Module):
    """Sinusoidal positions of a flattened token grid, added to (N, tokens, channels)."""

    pe: Tensor

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        position = torch.arange(tokens, dtype=torch.float32)[:, None]
        frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
        pe = torch.zeros(1, tokens, channels)
        pe[0, :, 0::2] = torch.sin(position * frequency)
        pe[0, :, 1::2] = torch.cos(position * frequency)
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe.to(x.dtype)


def channels_at(width: float) -> tuple[int, int, int, int]:
    """Channel counts of the four levels; width 1 is the official 64, 128, 256, 512. Attention needs multiples of 32."""
    c = max(8, 8 * round(64 * width / 8))
    return c, 2 * c, 4 * c, 8 * c


def make_encoders(width: float) -> tuple[nn.Sequential, nn.Sequential, int]:
    c1, c2, c3, c4 = channels_at(width)
    single = nn.Sequential(ConvBNReLU(6, c1, 7, 2), ConvBNReLU(c1, c2, 3, 2), residual(c2), residual(c2))
    pair = nn.Sequential(residual(c3), residual(c3), ConvBNReLU(c3, c4, 3, 2), residual(c4), residual(c4))
    return single, pair, c4


def encode_each(single: nn.Module, rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
    """Features of both sides. One observed crop for all hypotheses (N' = 1) is encoded once, and has one image of them."""
    n = rendered.shape[0]
    if observed.shape[0] != n:
        return single(rendered), single(observed)
    join = getattr(single, "join", torch.cat)  # a rewritten encoder may have a cheaper way
    both = single(join([rendered, observed]))
    return both[:n], both[n:]


def join_sides(a: Tensor, b: Tensor) -> Tensor:
    """(N, 2 C, H, W) of features (N, C, H, W) and (N or 1, C, H, W)."""
    n = a.shape[0]
    if b.shape[0] != n:
        # Copied first, since joining what is merely expanded takes a slow kernel.
        b = b.expand(n, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    return torch.cat([a, b], dim=1)


def encode_pair(single: nn.Module, pair: nn.Module, rendered: Tensor, observed: Tensor) -> Tensor:
    """(N, tokens, channels)."""
    join = getattr(pair, "join", join_sides)  # a rewritten encoder may have a cheaper way
    return pair(join(*encode_each(single, rendered, observed))).flatten(2).transpose(1, 2)  # type: ignore[no-any-return]


class UpdateHead(nn.Sequential):
    """(N, tokens, channels) -> (N, 3). The official code averages after the linear layer, which gives the same for more work."""

    def __init__(self, channels: int) -> None:
        layer = nn.TransformerEncoderLayer(channels, nhead=4, dim_feedforward=channels, dropout=0.1, batch_first=True)
        super().__init__(layer, nn.Linear(channels, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        layer, linear = self
        mean = getattr(layer, "mean", None)  # a rewritten layer may have a cheaper way
        return linear(layer(tokens).mean(dim=1) if mean is None else mean(tokens))  # type: ignore[no-any-return]


class RefineNet(nn.Module):
    """Pose update of each hypothesis. forward(rendered, observed) -> trans (N, 3) in mesh radii, rot (N, 3) before tanh."""

    def __init__(self, width: float = 1.0, crop_size: int = CROP_SIZE) -> None:
        super().__init__()
        self.width = width
        self.encodeA, self.encodeAB, channels = make_encoders(width)
        self.pos_embed = PositionEmbedding(channels, (crop_size // 8) ** 2)
        self.trans_head = UpdateHead(channels)
        self.rot_head = UpdateHead(channels)

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        """Of one crop, and of the features of two."""
        return self.encodeA, self.encodeAB

    @property
    def heads(self) -> tuple[nn.Module, nn.Module]:
        """What turns tokens into outputs."""
        return self.trans_head, self.rot_head

    def tokens(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, tokens, channels)."""
        return self.pos_embed(encode_pair(self.encodeA, self.encodeAB, rendered, observed))  # type: ignore[no-any-return]

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(rendered, observed)
        return self.trans_head(tokens), self.rot_head(tokens)


class ScoreNet(nn.Module):
    """Ranks hypotheses of one observation. forward(rendered, observed) -> logits (N,); the highest is the best."""

    def __init__(self, width: float = 1.0, crop_size: int = CROP_SIZE) -> None:
        super().__init__()
        self.width = width
        self.encoderA, self.encoderAB, channels = make_encoders(width)
        self.pos_embed = PositionEmbedding(channels, (crop_size // 8) ** 2)
        self.att = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.att_cross = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.linear = nn.Linear(channels, 1)

    @property
    def ranking(self) -> tuple[nn.Module, nn.Module]:
        """What ``rank`` is made of."""
        return self.att_cross, self.linear

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        """Of one crop, and of the features of two."""
        return self.encoderA, self.encoderAB

    def tokens(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """(N, tokens, channels)."""
        return self.pos_embed(encode_pair(self.encoderA, self.encoderAB, rendered, observed))  # type: ignore[no-any-return]

    def encode(self, rendered: Tensor, observed: Tensor) -> Tensor:
        """One vector a hypothesis, (N, channels)."""
        tokens = self.tokens(rendered, observed)
        return self.att(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1)  # type: ignore[no-any-return]

    def rank(self, vectors: Tensor) -> Tensor:
        """Logits (..., L) of groups of hypothesis vectors (..., L, channels)."""
        groups = vectors if vectors.dim() == 3 else vectors[None]
        crossed = self.att_cross(groups, groups, groups, need_weights=False)[0]
        logits = self.linear(crossed).squeeze(-1)
        return logits if vectors.dim() == 3 else logits[0]  # type: ignore[no-any-return]

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor:
        return self.rank(self.encode(rendered, observed))
