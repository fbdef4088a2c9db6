"""Which parts of RF-DETR stay in FP32 when the rest runs in FP16."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

_DONE = "_decoder_stays_float32"


def keep_float32(net: nn.Module) -> None:
    """Let everything after the image encoder (rfdetr's LWDETR) stay in the precision it has, whatever dtype the network
    is moved to later, also in copies. Parts of other names, which other versions of rfdetr may have, are cast.

    In FP16 a box coordinate steps by half a pixel of a 1280 pixel image, and the proposals are ranked by scores in
    which ties change places: their order decides which query looks at which of them. The encoder does nearly all of the
    arithmetic, so this costs microseconds. docs/accuracy.md has the figures.
    """
    if getattr(net, _DONE, False):
        return
    setattr(net, _DONE, True)
    transformer = getattr(net, "transformer", None)
    projector = getattr(_encoder(net), "projector", None)
    heads = [getattr(net, name, None) for name in ("refpoint_embed", "query_feat", "bbox_embed", "class_embed")]
    for module in (transformer, projector, *heads):
        if isinstance(module, nn.Module):
            _pin(module)
    # Features cross the border as lists; mask heads, where the pixels are, are cast back.
    for module in (transformer, projector, getattr(net, "segmentation_head", None)):
        if isinstance(module, nn.Module):
            module.register_forward_pre_hook(_to_own_dtype)


def _encoder(net: nn.Module) -> nn.Module | None:
    backbone = getattr(net, "backbone", None)
    return backbone[0] if isinstance(backbone, nn.Sequential) else None


def _pin(module: nn.Module) -> None:
    """Moves to another device go through, changes of floating dtype do not. A bound method follows a deep copy."""
    module._apply = types.MethodType(_apply_without_cast, module)  # type: ignore[assignment]


def _apply_without_cast(self: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    def move(tensor: Tensor) -> Tensor:
        moved = fn(tensor)
        cast = tensor.is_floating_point() and moved.dtype != tensor.dtype
        return tensor.to(moved.device) if cast else moved

    return type(self)._apply(self, move, recurse)


def _to_own_dtype(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    dtype = next(module.parameters()).dtype

    def convert(value: Any) -> Any:
        if isinstance(value, list):
            return [convert(v) for v in value]
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(convert(value) for value in inputs)
