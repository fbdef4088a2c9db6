"""How the detector's network is run, from the slowest and plainest to the fastest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import rfdetr_library as library
from .precision import keep_float32

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

# reference: rfdetr's own predict(). The others run our hot path around the network.
BACKENDS = ("reference", "eager", "half", "traced", "compile", "cuda_graph")

# What is tried when a backend does not work, per device type.
NEXT = {
    "cuda": {
        "tensorrt": "cuda_graph",
        "onnxruntime": "cuda_graph",
        "compile": "cuda_graph",
        "fp8": "cuda_graph",
        "cuda_graph": "half",
        "traced": "half",
    },
    "cpu": {
        "tensorrt": "eager",
        "onnxruntime": "eager",
        "fp8": "eager",
        "cuda_graph": "traced",
        "compile": "eager",
        "traced": "eager",
        "half": "eager",
    },
}
_LONGEST_REASON = 400


@dataclass(frozen=True)
class Network:
    """forward: (1, 3, R, R) normalized image in ``dtype`` -> (boxes (1, Q, 4) cxcywh in [0, 1], logits (1, Q, C + 1)),
    for segmentation variants also mask logits (1, Q, R/4, R/4).

    backend: what really runs. graph: the whole hot path around it is captured in a CUDA graph. degraded: why it is not the
    backend that was asked for; empty when it is.
    """

    forward: Callable[[Tensor], tuple[Tensor, ...]]
    dtype: torch.dtype
    backend: str
    graph: bool
    degraded: str = ""


def build(
    model: RFDETR, backend: str, device: torch.device, log: Callable[[str], None], *, half_on_cpu: bool = False
) -> Network:
    """The network of a model at a backend of config.BACKENDS, or at the next one of NEXT that works here, which is said.

    From "half" upward the image encoder is FP16 on CUDA, and what follows it FP32 (see keep_float32); everything is
    FP32 on the CPU, unless ``half_on_cpu`` asks for FP16 there too: slow, but it shows what FP16 does to the numbers.
    Raises what building the last backend raised.
    """
    cuda = device.type == "cuda"
    if backend == "auto":
        # On a CPU tracing takes seconds and gains nothing, FP16 is slower, and BF16, where it is faster, rounds
        # features so coarsely that other proposals are looked at.
        backend = "cuda_graph" if cuda else "eager"
    if cuda:
        _keep_constants_on_device(model, device)
    reasons: list[str] = []
    while True:
        following = NEXT["cuda" if cuda else "cpu"].get(backend)
        reason = _unfit(backend, device, half_on_cpu)
        if not reason:
            half = backend not in ("reference", "eager") and (cuda or half_on_cpu)
            dtype = torch.float16 if half else torch.float32
            try:
                forward = _forward(model, backend, dtype, device)
            except Exception as error:  # tracers and compilers raise whatever their parts raised
                if following is None:
                    raise
                reason = explain(error)
            else:
                graph = cuda and backend in ("cuda_graph", "compile")
                return Network(forward, dtype, backend, graph, "; ".join(reasons))
        reasons.append(f"detector: backend {backend} {reason}")
        log(f"{reasons[-1]}; running {following} instead")
        assert following is not None
        backend = following


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
    if backend not in BACKENDS:
        return "is not offered for RF-DETR"
    if device.type != "cuda" and (backend == "cuda_graph" or (backend == "half" and not half_on_cpu)):
        return f"needs a CUDA device, this is {device.type}"
    return ""


def _forward(
    model: RFDETR, backend: str, dtype: torch.dtype, device: torch.device
) -> Callable[[Tensor], tuple[Tensor, ...]]:
    if backend == "reference":
        return _reference_forward(model)
    if dtype != torch.float32:
        keep_float32(library.network(model))
    library.optimize(model, compile=backend in ("traced", "cuda_graph"), dtype=dtype)
    forward: Any = model.model.inference_model
    if backend != "compile":
        return forward  # type: ignore[no-any-return]
    # Our own call instead of rfdetr's: that one records CUDA graphs of its own, which belong to the thread that made
    # them, while the node warms up in one thread and works in another; our graph holds the whole hot path.
    compiled = torch.compile(forward, dynamic=False)
    size = model.model.resolution
    with torch.inference_mode():  # as later: otherwise the first frame would compile once more
        compiled(torch.zeros((1, 3, size, size), dtype=dtype, device=device))
    return compiled  # type: ignore[no-any-return]


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
