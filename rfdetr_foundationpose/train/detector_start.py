"""What a detector's training starts from: shipped, published or own weights, with a class head for the user's objects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..detect import rfdetr_library as library
from ..detect.checkpoint import load_model

RANDOM = "random"
# These fields of rfdetr's ModelConfig say nothing of the network, or a training sets them itself.
_NOT_NETWORK = {"pretrain_weights", "device", "num_classes", "group_detr", "class_names", "model_name"}
_NOT_NETWORK |= {"segmentation_head"}  # the variant has it or has it not
_QUERIES = ("refpoint_embed.weight", "query_feat.weight")
_POSITIONS = "embeddings.position_embeddings"


@dataclass(frozen=True)
class Start:
    """Weights to go on from. config: fields of the variant's ModelConfig that differ from its defaults.
    state: tensors of the network. classes: row of the class head -> name. description: for people."""

    variant: str
    config: dict[str, Any]
    state: Mapping[str, Tensor]
    classes: Mapping[int, str]
    description: str


def load_start(start: str, variant: str) -> Start | None:
    """``start``: "default" (the shipped weights), "published", a checkpoint's path, or "random", which gives None.

    variant: for "published", and for files that do not say which variant they are. Raises DetectorError.
    """
    if start == RANDOM:
        return None
    loaded = load_model(start, variant, torch.device("cpu"))
    found: Any = loaded.model.model_config
    names = {cls: name for name, cls in library.VARIANTS.items()}
    kind = names.get(type(loaded.model).__name__, variant)
    config = _differing(kind, found.model_dump())
    return Start(kind, config, library.network(loaded.model).state_dict(), loaded.class_names, loaded.description)


def has_masks(variant: str) -> bool:
    """Whether a variant finds masks."""
    return bool(getattr(library.default_config(variant), "segmentation_head", False))


def with_masks(variant: str, config: Mapping[str, Any], masks: bool) -> tuple[str, dict[str, Any]]:
    """The same network with or without a head for masks: variant, and the ModelConfig fields that differ from its defaults."""
    if has_masks(variant) == masks:
        return variant, dict(config)
    other = (library.WITH_MASKS if masks else library.WITHOUT_MASKS)[variant]
    return other, _differing(other, {**library.default_config(variant).model_dump(), **config})


def _differing(variant: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    default = library.default_config(variant)
    return {k: v for k, v in fields.items() if k not in _NOT_NETWORK and v != getattr(default, k, None)}


@torch.no_grad()
def take_over(network: nn.Module, start: Start, names: Sequence[str]) -> list[str]:
    """Copy what fits into a network for the classes ``names``; returns the classes that the start knew already.

    Rows of the class head move to where their class is now. A new class starts as the mean of the known ones, which
    already tells things from background. Query groups beyond the start's are copies with a little noise, learned
    positions are resampled to the network's resolution. A head for masks that the start lacks stays as it is.
    """
    own = network.state_dict()
    row_of = {name: row for row, name in start.classes.items()}
    for name, tensor in own.items():
        group = _group(name)
        source = start.state.get(name.replace(f".{group}.", ".0.", 1) if group else name)
        if source is None:
            continue
        source = source.to(tensor)
        if "class_embed" in name:
            source = _class_rows(source, tensor.shape[0], names, row_of)
        elif name in _QUERIES and source.shape[1:] == tensor.shape[1:] and tensor.shape[0] % source.shape[0] == 0:
            copies = source.repeat(tensor.shape[0] // source.shape[0], *[1] * (source.dim() - 1))
            copies[source.shape[0] :] += _little_noise(copies[source.shape[0] :])
            source = copies
        elif name.endswith(_POSITIONS) and source.shape != tensor.shape:
            source = _resampled(source, tensor.shape[1] - 1)
        if source.shape == tensor.shape:
            tensor.copy_(source + _little_noise(source) if group not in ("", "0") else source)
    return [name for name in names if name in row_of]


def _class_rows(source: Tensor, count: int, names: Sequence[str], row_of: Mapping[str, int]) -> Tensor:
    """(count, ...) rows of a class head; the last one is rfdetr's row of no class."""
    known = [row for row in row_of.values() if row < len(source)]
    average = source[known].mean(0) if known else source.mean(0)
    rows = average.expand(count, *source.shape[1:]).clone()
    rows[-1] = source[-1]
    for row, name in enumerate(names):
        if name in row_of:
            rows[row] = source[row_of[name]]
        elif source.dim() > 1:
            rows[row] += 0.1 * source.std() * torch.randn_like(rows[row])
    return rows


def _resampled(positions: Tensor, count: int) -> Tensor:
    """(1, 1 + S * S, C) learned positions -> (1, 1 + count, C)."""
    old, new = math.isqrt(positions.shape[1] - 1), math.isqrt(count)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).reshape(1, new * new, -1)], 1)


def _little_noise(tensor: Tensor) -> Tensor:
    """What sets copies of a query group apart: equal groups would learn the same for ever."""
    return torch.randn_like(tensor) * (0.05 * tensor.std() if tensor.numel() > 1 else 0.0)


def _group(name: str) -> str:
    """The number of the query group that a parameter of the two-stage heads belongs to, or ""."""
    parts = name.split(".")
    return parts[2] if len(parts) > 3 and parts[1].startswith("enc_out") else ""
