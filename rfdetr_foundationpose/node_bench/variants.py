"""What ``bench node`` can take away from the node, one thing at a time, to see what it buys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """The node without one of its means. said: what runs instead. settings: that make it so; the rest is in traced_node.py."""

    said: str
    settings: Mapping[str, str | bool] = field(default_factory=dict)


VARIANTS: dict[str, Variant] = {
    "half-precision": Variant(
        "FP32 without inference-only forms of the networks, hence without graphs too",
        {"pose.backend": "eager", "detector.backend": "eager"},
    ),
    "cuda-graphs": Variant(
        "FP16, but every kernel is launched by the host", {"pose.backend": "half", "detector.backend": "half"}
    ),
    "fixed-shape-detector": Variant("RF-DETR in FP16 as PyTorch runs it, not traced", {"detector.backend": "half"}),
    "warm-up": Variant("the first frames compile, capture and search"),
    "no-empty-cache": Variant("torch.cuda.empty_cache() after every frame"),
    "keep-latest": Variant("a queue of ten frames, each of which is processed"),
    "early-upload": Variant("no image is uploaded before both of a frame are there"),
    "debug-off-path": Variant("the debug image is drawn and published before the next frame is taken"),
}
"""Each maps the name of what is taken away to what runs instead."""
