"""How the detector's network is run, from the slowest and plainest to the fastest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..accel.base import EngineOptions
from ..backends import DETECTOR
from . import rfdetr_library as library

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

logger = logging.getLogger(__name__)

Forward = Callable[[Tensor], tuple[Tensor, ...]]
_LONGEST_REASON = 400
"""Reasons are cut to so many characters."""


@dataclass(frozen=True)
class Placement:
    """Where a network is to run, and in which precision. engines: for the backends that take such."""

    device: torch.device
    dtype: torch.dtype
    engines: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class Network:
    """forward: (1, 3, R, R) normalized image in ``dtype`` -> (boxes (1, Q, 4) cxcywh in [0, 1], logits (1, Q, C + 1)),
    for segmentation variants also mask logits (1, Q, R/4, R/4).

    backend: what really runs. graph: the whole predictor around it is captured in a CUDA graph. degraded: why it is not the
    backend that was asked for; empty when it is.
    """

    forward: Forward
    dtype: torch.dtype
    backend: str
    graph: bool
    degraded: str = ""


def build(
    model: RFDETR,
    backend: str,
    device: torch.device,
    *,
    engines: EngineOptions | None = None,
    half_on_cpu: bool = False,
) -> Network:
    """The network of a model at a backend, or at the next one of the fallback order that works here, which is said.

    From "half" upward the image encoder is FP16 on CUDA, and what follows it FP32 (see keep_float32); everything is
    FP32 on the CPU, unless ``half_on_cpu`` asks for FP16 there too: slow, but it shows what FP16 does to the numbers.
    Raises ValueError for an unknown backend, and what building the last backend raised.
    """
    cuda = device.type == "cuda"
    current = DETECTOR.auto(device.type) if backend == "auto" else DETECTOR.get(backend).name
    if cuda:
        _keep_constants_on_device(model, device)
    reasons: list[str] = []
    while True:
        following = DETECTOR.following(current, device.type)
        reason = _unfit(current, device, half_on_cpu)
        if not reason:
            half = current not in ("reference", "eager") and (cuda or half_on_cpu)
            place = Placement(device, torch.float16 if half else torch.float32, engines or EngineOptions())
            try:
                forward: Forward = DETECTOR.maker(current)(model, place)
            except Exception as error:  # tracers and compilers raise whatever their parts raised
                if following is None:
                    raise
                reason = explain(error)
            else:
                graph = cuda and DETECTOR.get(current).graph  # not around an engine: none of us has seen one captured
                return Network(forward, place.dtype, current, graph, "; ".join(reasons))
        assert following is not None
        reasons.append(f"detector: backend {current} {reason}")
        logger.warning("%s; running %s instead", reasons[-1], following)
        current = following


def explain(error: BaseException) -> str:
    """The reason in an error's text, on one line: torch.compile names its backend first, what that raised next, and
    ends with advice for developers."""
    lines = [line.strip() for line in str(error).splitlines()]
    advice = ("Set TORCHDYNAMO_VERBOSE", "Set TORCH_LOGS", "You can suppress", "The above exception", "from user code")
    kept: list[str] = []
    for line in lines:
        if line.startswith(advice):
            break
        if line:
            kept.append(line)
            if not line.endswith(":") and len(kept) > 1:
                break
        elif kept and not kept[-1].endswith(":"):
            break
    text = " ".join(kept) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else text[: _LONGEST_REASON - 3] + "..."


def _unfit(backend: str, device: torch.device, half_on_cpu: bool) -> str:
    """Why a backend cannot run on a device, before it is tried."""
    if device.type != "cuda" and (backend in ("cuda_graph", "tensorrt") or (backend == "half" and not half_on_cpu)):
        return f"needs a CUDA device, this is {device.type}"
    return ""


def reference(model: RFDETR, place: Placement) -> Forward:
    """The network as rfdetr's own predict() runs it."""
    net = library.network(model).to(model.model.device).eval()

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        out = net(image)
        masks = (out["pred_masks"],) if "pred_masks" in out else ()
        return (out["pred_boxes"], out["pred_logits"], *masks)

    return forward


def eager(model: RFDETR, place: Placement) -> Forward:
    """rfdetr's network for inference, as Python runs it."""
    return library.inference_form(model, trace=False, dtype=place.dtype)


def traced(model: RFDETR, place: Placement) -> Forward:
    """TorchScript of it."""
    return library.inference_form(model, trace=True, dtype=place.dtype)


def compiled(model: RFDETR, place: Placement) -> Forward:
    """torch.compile of it.

    Our own call instead of rfdetr's: that one records CUDA graphs of its own, which belong to the thread that made
    them, while the node warms up in one thread and works in another; our graph holds the whole predictor.
    """
    forward = torch.compile(library.inference_form(model, trace=False, dtype=place.dtype), dynamic=False)
    size = model.model.resolution
    with torch.inference_mode():  # as later: otherwise the first frame would compile once more
        forward(torch.zeros((1, 3, size, size), dtype=place.dtype, device=place.device))
    return forward


def _keep_constants_on_device(model: RFDETR, device: torch.device) -> None:
    """Let the transformer make its shape tensor once: made anew it is a host copy, which no CUDA graph can hold."""
    net = library.network(model)
    transformer = getattr(net, "transformer", None)
    enable = getattr(transformer, "enable_cuda_graph_capture", None)
    if enable is None:
        return
    enable()
    net.to(device).eval()
    size = model.model.resolution
    with torch.inference_mode():
        net(torch.zeros((1, 3, size, size), device=device))
