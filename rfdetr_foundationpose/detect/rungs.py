"""How the detector's network is run, from the slowest and plainest to the fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import rfdetr_library as library

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

# reference: rfdetr's own predict(). The others run our hot path around the network.
RUNGS = ("reference", "eager", "half", "traced", "compile", "cuda_graph")


@dataclass(frozen=True)
class Network:
    """forward: (1, 3, R, R) normalized image in ``dtype`` -> (boxes (1, Q, 4) cxcywh in [0, 1], logits (1, Q, C + 1)),
    for segmentation variants also mask logits (1, Q, R/4, R/4).

    rung: what really runs. graph: the whole hot path around it is captured in a CUDA graph.
    """

    forward: Callable[[Tensor], tuple[Tensor, ...]]
    dtype: torch.dtype
    rung: str
    graph: bool


def choose(rung: str, device: torch.device, log: Callable[[str], None]) -> str:
    """The rung that can run for the one that was asked for; a change is said."""
    if rung == "auto":
        # On a CPU tracing takes seconds and gains nothing, FP16 is slower, and BF16, where it is faster, rounds
        # normalized boxes to steps of several pixels.
        return "cuda_graph" if device.type == "cuda" else "eager"
    if rung in ("tensorrt", "onnxruntime"):
        instead = "cuda_graph" if device.type == "cuda" else "eager"
        log(f"detector: rung {rung} is not offered for RF-DETR, running {instead}")
        return instead
    if device.type != "cuda" and rung in ("half", "cuda_graph"):
        instead = {"half": "eager", "cuda_graph": "traced"}[rung]
        log(f"detector: rung {rung} needs a CUDA device, running {instead} in FP32 on the {device.type}")
        return instead
    return rung


def build(
    model: RFDETR, rung: str, device: torch.device, log: Callable[[str], None], *, half_on_cpu: bool = False
) -> Network:
    """The network of a model at a rung of RUNGS, or one below it when building fails, which is said.

    Half precision is used from "half" upward on CUDA; everything is FP32 on the CPU, unless ``half_on_cpu`` asks for
    FP16 there too: slow, but it shows what FP16 does to the numbers.
    """
    rung = rung if half_on_cpu and rung == "half" else choose(rung, device, log)
    half = rung not in ("reference", "eager") and (device.type == "cuda" or half_on_cpu)
    dtype = torch.float16 if half else torch.float32
    compiled = rung in ("traced", "compile", "cuda_graph")
    if device.type == "cuda":
        _keep_constants_on_device(model, device)
    if rung != "reference":
        backend = "inductor" if rung == "compile" else "torchscript"
        try:
            library.optimize(model, compile=compiled, dtype=dtype, backend=backend)
        except Exception as error:
            if not compiled:
                raise
            log(f"detector: rung {rung} failed ({str(error).splitlines()[0]}), running half or eager instead")
            return build(model, "half" if device.type == "cuda" else "eager", device, log)
    forward: Any = model.model.inference_model if rung != "reference" else _reference_forward(model)
    return Network(forward, dtype, rung, rung == "cuda_graph")


def _reference_forward(model: RFDETR) -> Callable[[Tensor], tuple[Tensor, ...]]:
    net = library.network(model).to(model.model.device).eval()

    def forward(image: Tensor) -> tuple[Tensor, ...]:
        out = net(image)
        masks = (out["pred_masks"],) if "pred_masks" in out else ()
        return (out["pred_boxes"], out["pred_logits"], *masks)

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
