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
from .detector import DetectorError

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

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


def load_library() -> Any:
    """The rfdetr package, without its side effect of allowing TF32 in the whole process."""
    precision = matmul_precision()
    try:
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
    found: type[RFDETR] | None = getattr(load_library(), VARIANTS[name], None)
    if found is None:
        raise DetectorError(f"the installed rfdetr has no {VARIANTS[name]}; upgrade it: pip install -U rfdetr")
    return found


def construct(variant: str, device: torch.device | str, **config: Any) -> RFDETR:
    """A model with random weights; ``config`` are fields of the variant's ModelConfig. Nothing is downloaded."""
    cls = variant_class(variant)
    with quiet():
        return cls(pretrain_weights=None, device=str(device), **config)


def default_config(variant: str) -> Any:
    """The variant's ModelConfig as rfdetr has it."""
    cls = variant_class(variant)
    with quiet():
        return cls.get_model_config(cls.__new__(cls))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence rfdetr's remarks on random weights and on DINOv2, which do not apply to a model that is then loaded."""
    logger = logging.getLogger("rf-detr")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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


def published_file(variant: str) -> tuple[Path, str]:
    """Where rfdetr keeps the published weights of a variant, and the address that it downloads them from."""
    from rfdetr.assets.model_weights import ModelWeights, get_model_cache_dir

    name = Path(str(default_config(variant).pretrain_weights)).name
    return Path(get_model_cache_dir()) / name, ModelWeights.get_url(name) or "the rfdetr project"


def class_names(model: RFDETR) -> Mapping[int, str]:
    """Network class index -> class name; empty when the checkpoint names none and is no COCO model.

    COCO models number their 80 classes with gaps, as COCO does.
    """
    own = getattr(model.model, "class_names", None)
    if own:
        names = list(own)
        coco = _coco()
        if model.model_config.num_classes > len(names) and names == list(coco.values()):
            return coco
        return dict(enumerate(names))
    return _coco() if model.model_config.num_classes == 90 else {}


def _coco() -> dict[int, str]:
    from rfdetr.assets.coco_classes import COCO_CLASSES

    return dict(COCO_CLASSES)
