"""RefineNet and ScoreNet of FoundationPose (CVPR 2024), with the official release's key names and shapes at width 1.

Inputs are (N, 6, R, R): RGB in [0, 1], then normalized xyz; channels-last memory is preferred.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from ..accel.network import PositionEmbedding, RefinerNetwork, ScorerNetwork, TokenMeanLayer

CROP_SIZE = 160
"""Rows and columns of refiner's and scorer's crops (FoundationPose, section 3.3)."""
FIRST_PASS_CROP = 80
"""Rows and columns of the crops of a first pass: a quarter of the work a hypothesis."""


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


def sinusoidal(channels: int, tokens: int) -> PositionEmbedding:
    """Sinusoidal positions of a flattened token grid."""
    position = torch.arange(tokens, dtype=torch.float32)[:, None]
    frequency = torch.exp(torch.arange(0, channels, 2, dtype=torch.float32) * (-math.log(10000.0) / channels))
    pe = torch.zeros(1, tokens, channels)
    pe[0, :, 0::2] = torch.sin(position * frequency)
    pe[0, :, 1::2] = torch.cos(position * frequency)
    return PositionEmbedding(pe)


def channels_at(width: float) -> tuple[int, int, int, int]:
    """Channel counts of the four levels; width 1 is the official 64, 128, 256, 512. Attention needs multiples of 32."""
    c = max(8, 8 * round(64 * width / 8))
    return c, 2 * c, 4 * c, 8 * c


def make_encoders(width: float) -> tuple[nn.Sequential, nn.Sequential, int]:
    c1, c2, c3, c4 = channels_at(width)
    single = nn.Sequential(ConvBNReLU(6, c1, 7, 2), ConvBNReLU(c1, c2, 3, 2), residual(c2), residual(c2))
    pair = nn.Sequential(residual(c3), residual(c3), ConvBNReLU(c3, c4, 3, 2), residual(c4), residual(c4))
    return single, pair, c4


class UpdateHead(nn.Sequential):
    """(N, tokens, channels) -> (N, 3). The official code averages after the linear layer, which gives the same for more work."""

    def __init__(self, channels: int) -> None:
        layer = TokenMeanLayer(channels, nhead=4, dim_feedforward=channels, dropout=0.1, batch_first=True)
        super().__init__(layer, nn.Linear(channels, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        layer, linear = self
        return linear(layer.mean(tokens))  # type: ignore[no-any-return,operator]


class RefineNet(RefinerNetwork):
    """Pose update of each hypothesis. forward(rendered, observed) -> trans (N, 3) in mesh radii, rot (N, 3) before tanh."""

    def __init__(self, width: float = 1.0, crop_size: int = CROP_SIZE) -> None:
        super().__init__()
        self.width, self.crop_size = width, crop_size
        self.encodeA, self.encodeAB, channels = make_encoders(width)
        self.pos_embed = sinusoidal(channels, (crop_size // 8) ** 2)
        self.trans_head = UpdateHead(channels)
        self.rot_head = UpdateHead(channels)

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        return self.encodeA, self.encodeAB

    @property
    def heads(self) -> tuple[nn.Sequential, nn.Sequential]:
        return self.trans_head, self.rot_head

    def forward(self, rendered: Tensor, observed: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.tokens(rendered, observed)
        return self.trans_head(tokens), self.rot_head(tokens)


class ScoreNet(ScorerNetwork):
    """Ranks hypotheses of one observation. forward(rendered, observed) -> logits (N,); the highest is the best."""

    def __init__(self, width: float = 1.0, crop_size: int = CROP_SIZE) -> None:
        super().__init__()
        self.width, self.crop_size = width, crop_size
        self.encoderA, self.encoderAB, channels = make_encoders(width)
        self.pos_embed = sinusoidal(channels, (crop_size // 8) ** 2)
        self.att = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.att_cross = nn.MultiheadAttention(channels, 4, batch_first=True)
        self.linear = nn.Linear(channels, 1)

    @property
    def ranking(self) -> tuple[nn.Module, nn.Module]:
        return self.att_cross, self.linear

    @property
    def encoders(self) -> tuple[nn.Module, nn.Module]:
        return self.encoderA, self.encoderAB

    def encode(self, rendered: Tensor, observed: Tensor) -> Tensor:
        tokens = self.tokens(rendered, observed)
        return self.att(tokens, tokens, tokens, need_weights=False)[0].mean(dim=1)  # type: ignore[no-any-return]

    def rank(self, embeddings: Tensor) -> Tensor:
        groups = embeddings if embeddings.dim() == 3 else embeddings[None]
        crossed = self.att_cross(groups, groups, groups, need_weights=False)[0]
        logits = self.linear(crossed).squeeze(-1)
        return logits if embeddings.dim() == 3 else logits[0]  # type: ignore[no-any-return]

    def forward(self, rendered: Tensor, observed: Tensor) -> Tensor:
        return self.rank(self.encode(rendered, observed))
