"""The one place that knows the rfdetr package: variants, construction, and its names across versions."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..device import matmul_precision
from ..errors import one_line
from .detector import DetectorError
from .mask_head import quicken_masks
from .precision import keep_float32

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

logger = logging.getLogger(__name__)

# Variant name -> class of the rfdetr package. Deprecated and licensed-apart variants are left out.
VARIANTS: dict[str, str] = {
    "nano": "RFDETRNano",
    "small": "RFDETRSmall",
    "medium": "RFDETRMedium",
    "large": "RFDETRLarge",
    "seg-nano": "RFDETRSegNano",
    "seg-small": "RFDETRSegSmall",
    "seg-medium": "RFDETRSegMedium",
    "seg-large": "RFDETRSegLarge",
    "seg-xlarge": "RFDETRSegXLarge",
    "seg-2xlarge": "RFDETRSeg2XLarge",
}


# Variants that find boxes -> those of the same make that find masks too.
WITH_MASKS: dict[str, str] = {"nano": "seg-nano", "small": "seg-small", "medium": "seg-medium", "large": "seg-large"}
WITHOUT_MASKS: dict[str, str] = {
    **{masks: boxes for boxes, masks in WITH_MASKS.items()},
    "seg-xlarge": "large",
    "seg-2xlarge": "large",
}

# What the name of a weights file says -> class, the more special names first.
CLASSES: dict[str, str] = {
    "seg-2xlarge": "RFDETRSeg2XLarge",
    "seg-xxlarge": "RFDETRSeg2XLarge",
    "seg-xlarge": "RFDETRSegXLarge",
    "seg-large": "RFDETRSegLarge",
    "seg-medium": "RFDETRSegMedium",
    "seg-small": "RFDETRSegSmall",
    "seg-nano": "RFDETRSegNano",
    "seg-preview": "RFDETRSegPreview",
    "2xlarge": "RFDETR2XLarge",
    "xxlarge": "RFDETR2XLarge",
    "xlarge": "RFDETRXLarge",
    "detr-large": "RFDETRLarge",
    "detr-medium": "RFDETRMedium",
    "detr-small": "RFDETRSmall",
    "detr-nano": "RFDETRNano",
    "detr-base": "RFDETRBase",
}
_EXPECTED = ("DINOv2", "dinov2", "pretrain_weights", "pretrained weights", "random")


def load_library() -> Any:
    """The rfdetr package, without its side effect of allowing TF32 in the whole process."""
    precision = matmul_precision()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # it compiles losses by torch.jit, which torch calls deprecated
            import rfdetr
            import rfdetr.detr
    except ImportError as error:
        raise DetectorError(f"RF-DETR cannot be imported ({error}); install it: pip install rfdetr") from error
    finally:
        torch.set_float32_matmul_precision(precision)
    return rfdetr


def variant_class(name: str) -> type[RFDETR]:
    """The rfdetr class of a variant. Raises DetectorError for an unknown name, or one the installed version lacks."""
    if name not in VARIANTS:
        raise DetectorError(f"RF-DETR variant {name!r} is unknown; use one of {', '.join(VARIANTS)}")
    return class_named(VARIANTS[name])


def class_named(symbol: str) -> type[RFDETR]:
    """A class of rfdetr. Raises DetectorError where the installed version lacks it."""
    package = load_library()
    if symbol in ("RFDETRXLarge", "RFDETR2XLarge"):
        raise DetectorError(
            f"{symbol} needs rfdetr_plus, whose licence is not open; train one of {', '.join(VARIANTS)}"
        )
    if not symbol.startswith("RFDETR"):
        raise DetectorError(f"RF-DETR variant {symbol!r} is unknown; use one of {', '.join(VARIANTS)}")
    found: type[RFDETR] | None = getattr(package, symbol, None)
    if found is None:
        with quiet():
            import rfdetr.variants

            found = getattr(rfdetr.variants, symbol, None)
    if found is None:
        raise DetectorError(f"the installed rfdetr has no {symbol}; upgrade it: pip install -U rfdetr")
    return found


def construct(variant: str, device: torch.device | str, **config: Any) -> RFDETR:
    """A model with random weights; ``config`` are fields of the variant's ModelConfig. Nothing is downloaded."""
    cls = variant_class(variant)
    with quiet():
        return cls(pretrain_weights=None, device=str(device), **config)


def construct_class(symbol: str, device: torch.device | str, path: Path, **config: Any) -> RFDETR:
    """A model whose weights are then read from ``path``."""
    cls = class_named(symbol)
    # Without weights, the oldest two would download those of their encoder.
    start = str(path) if symbol in ("RFDETRBase", "RFDETRLargeDeprecated") else None
    with quiet():
        return cls(pretrain_weights=start, device=str(device), **config)


def current_names(net: nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names that the installed rfdetr has for them."""
    try:
        from rfdetr.utilities.state_dict import remap_projector_to_cross_attn
    except ImportError:
        return dict(tensors)
    return dict(remap_projector_to_cross_attn(dict(tensors), net))


def default_config(name: str) -> Any:
    """ModelConfig of a variant or a class as rfdetr has it. Raises DetectorError for an unknown one."""
    cls: Any = class_named(VARIANTS.get(name, name))
    with quiet():
        return cls.get_model_config(cls.__new__(cls))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence rfdetr's remarks on random weights and on DINOv2, which do not apply to a model that is then loaded; what
    else it says reaches our logger."""
    theirs = logging.getLogger("rf-detr")
    heard = _Heard()
    level, propagate, handlers = theirs.level, theirs.propagate, theirs.handlers
    theirs.setLevel(logging.WARNING)
    theirs.propagate, theirs.handlers = False, [heard]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        theirs.setLevel(level)
        theirs.propagate, theirs.handlers = propagate, handlers


class _Heard(logging.Handler):
    """Passes on what rfdetr warns of, but for what is always said of a model without its published weights."""

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(Exception(record.getMessage()))
        if record.levelno >= logging.ERROR or not any(word in text for word in _EXPECTED):
            logger.log(record.levelno, "rfdetr: %s", text)


def network(model: RFDETR) -> nn.Module:
    """The bare network of a model that has not been optimized in place."""
    inner = model.model.model
    if inner is None:
        raise DetectorError("the model was optimized in place; load it again")
    return inner


def truncate_encoder(net: nn.Module) -> int:
    """Drop the encoder blocks after the last one whose output is used; the result is unchanged. Returns how many stay.

    rfdetr builds all twelve blocks of its ViT whatever ``out_feature_indexes`` says, and runs one too many.
    """
    encoder = net.backbone[0].encoder.encoder  # type: ignore[union-attr,index]
    last = max(int(name.removeprefix("stage")) for name in encoder.config.out_features)  # type: ignore[union-attr]
    blocks = encoder.encoder.layer  # type: ignore[union-attr]
    encoder.encoder.layer = blocks[:last]  # type: ignore[union-attr,index]
    return last


def optimize(model: Any, *, compile: bool, dtype: torch.dtype) -> None:
    """Put a model into its fast inference form, by whichever name the installed rfdetr has for it.

    rfdetr up to 1.10 calls it ``optimize_for_inference``, from 1.9 on ``inference``; both set export mode, cast, and
    with ``compile`` trace at batch 1 and the model's size. Raises DetectorError when neither exists.
    """
    call = getattr(model, "inference", None) or getattr(model, "optimize_for_inference", None)
    if call is None:
        raise DetectorError("this rfdetr has neither inference() nor optimize_for_inference(); use rfdetr >= 1.2")
    with quiet():
        call(compile=compile, batch_size=1, dtype=dtype)


def inference_form(model: RFDETR, *, trace: bool, dtype: torch.dtype) -> nn.Module:
    """The network of a model in its fast form, what decides boxes in FP32, masks in the quick order; see ``optimize``."""
    if dtype != torch.float32:
        keep_float32(network(model))
    quicken_masks(network(model))
    optimize(model, compile=trace, dtype=dtype)
    fast: Any = model.model.inference_model
    return fast  # type: ignore[no-any-return]


def published_file(variant: str) -> tuple[Path, str]:
    """Where rfdetr keeps the published weights of a variant, and the address that it downloads them from."""
    from rfdetr.assets.model_weights import ModelWeights, get_model_cache_dir

    name = Path(str(default_config(variant).pretrain_weights)).name
    return Path(get_model_cache_dir()) / name, ModelWeights.get_url(name) or "the rfdetr project"


def class_names(model: RFDETR) -> Mapping[int, str]:
    """Network class index -> class name of a model with published weights.

    COCO models number their 80 classes with gaps, as COCO does.
    """
    own = list(getattr(model.model, "class_names", None) or [])
    coco = coco_classes()
    return coco if not own or own == list(coco.values()) else dict(enumerate(own))


def coco_classes() -> dict[int, str]:
    """COCO's category ids and names."""
    from rfdetr.assets.coco_classes import COCO_CLASSES

    return dict(COCO_CLASSES)
