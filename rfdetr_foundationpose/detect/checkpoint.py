"""RF-DETR weights in and out. Nothing that is loaded here can run code of the file.

Ours are safetensors: the tensors in FP16, and as metadata what is needed to build the network around them. rfdetr's
own .pth / .pt / .ckpt files go through its weights-only loader.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from ..errors import one_line
from ..resources import models_dir
from ..stand_ins import HEAD, stand_in
from . import rfdetr_file
from . import rfdetr_library as library
from .detector import DetectorError

if TYPE_CHECKING:
    from rfdetr.detr import RFDETR

logger = logging.getLogger(__name__)

SHIPPED = "detector.safetensors"
_FORMAT = "rfdetr_foundationpose detector 1"
# The network derives these buffers from its settings; some rfdetr versions have them, some do not.
_DERIVED = ("_kp_active_mask",)
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")


@dataclass(frozen=True)
class LoadedModel:
    """model: rfdetr's, FP32, on its device. class_names: network class index -> name. description: for people."""

    model: RFDETR
    class_names: Mapping[int, str]
    description: str


def load_model(weights: str, variant: str, device: torch.device, first_class_id: str = "auto") -> LoadedModel:
    """The model of ``detector.weights``: "default", "published" or a path. Raises DetectorError that says what to do.

    variant: for "published", and for files that do not say which variant they are. first_class_id: network index of a
    checkpoint's first class name, "auto" to follow the rfdetr that wrote it.
    """
    if weights == "default":
        path = models_dir() / SHIPPED
        if not path.is_file():
            raise DetectorError(
                f"the shipped detector weights {path} are missing from this install; train them with "
                "'rfdetr-foundationpose train detector', or set detector.weights to a checkpoint of yours"
            )
        return load_file(path, variant, device)
    if weights == "published":
        return _load_published(variant, device)
    return load_file(Path(weights).expanduser(), variant, device, first_class_id)


def load_file(path: Path, variant: str, device: torch.device, first_class_id: str = "auto") -> LoadedModel:
    """A local checkpoint. Raises DetectorError when it is missing, broken, or does not fit."""
    if not path.is_file():
        raise DetectorError(
            f"detector weights {path} do not exist; detector.weights takes 'default', 'published', or the path of a "
            f"checkpoint ({', '.join(_SUFFIXES)})"
        )
    try:
        with path.open("rb") as file:  # safetensors says of a file that it may not open that there is none
            head = file.read(HEAD)
    except OSError as error:
        raise DetectorError(f"detector weights {path} cannot be read: {error.strerror}") from error
    if reason := stand_in(head):
        raise DetectorError(f"detector weights {path} cannot be read: {reason}")
    if path.suffix not in _SUFFIXES:
        raise DetectorError(
            f"detector weights {path} end in {path.suffix!r}; known are {', '.join(_SUFFIXES)} (ONNX files and engines are made of these: build-engines)"
        )
    if path.suffix == ".safetensors":
        return _load_ours(path, device)
    return _load_theirs(path, variant, device, first_class_id)


def save(path: Path, net: nn.Module, *, variant: str, config: Mapping[str, Any], class_names: Sequence[str]) -> None:
    """Write a trained network (rfdetr's LWDETR) as FP16 safetensors.

    config: the ModelConfig fields that differ from the variant's. Only the first query group is kept: the others serve
    training alone. Encoder blocks that are never reached are left out.
    """
    groups = int(config.get("group_detr", 13))
    state = {}
    for name, tensor in net.state_dict().items():
        if _is_spare_group(name) or name in _DERIVED:
            continue
        if name in ("refpoint_embed.weight", "query_feat.weight"):
            tensor = tensor[: tensor.shape[0] // groups]
        state[name] = (tensor.half() if tensor.is_floating_point() else tensor).contiguous().cpu().clone()
    metadata = {
        "format": _FORMAT,
        "license": "Apache-2.0",
        "variant": variant,
        "config": json.dumps({**config, "group_detr": 1}),
        "class_names": json.dumps(list(class_names)),
        "encoder_blocks": str(len(net.backbone[0].encoder.encoder.encoder.layer)),  # type: ignore[union-attr,index,arg-type]
    }
    save_file(state, str(path), metadata=metadata)


def stored_classes(path: Path) -> list[str] | None:
    """The class names that a file of ours holds, without loading its network; None where that is not known."""
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            names = json.loads((file.metadata() or {})["class_names"])
    except (SafetensorError, OSError, KeyError, ValueError):
        return None
    return [str(name) for name in names]


def _is_spare_group(name: str) -> bool:
    """Whether a parameter belongs to a query group other than the first: transformer.enc_output.<group>.weight, ..."""
    parts = name.split(".")
    return len(parts) > 2 and parts[0] == "transformer" and parts[1].startswith("enc_out") and parts[2] not in ("0",)


def _load_ours(path: Path, device: torch.device) -> LoadedModel:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DetectorError(f"detector weights {path} cannot be read as safetensors: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise DetectorError(
            f"{path} is a safetensors file but no detector of this package (its format is "
            f"{metadata.get('format')!r}, expected {_FORMAT!r})"
        )
    try:
        names = [str(n) for n in json.loads(metadata["class_names"])]
        config: dict[str, Any] = json.loads(metadata["config"])
        variant = metadata["variant"]
        blocks = int(metadata["encoder_blocks"])
        if not isinstance(config, dict):
            raise ValueError("config is no mapping")
    except (KeyError, ValueError, TypeError) as error:
        raise DetectorError(f"metadata of detector weights {path} are damaged: {one_line(error)}") from error
    rfdetr_file.check_finite(path, state)
    try:
        model = library.construct(variant, device, num_classes=len(names), **config)
        net = library.network(model)
        kept = library.truncate_encoder(net)
    except DetectorError:
        raise
    except Exception as error:  # whatever the library makes of settings that cannot be
        raise DetectorError(f"metadata of detector weights {path} are damaged: {one_line(error)}") from error
    if kept != blocks:
        raise DetectorError(f"{path} has {blocks} encoder blocks, its settings ask for {kept}")
    _load_exactly(net, state, f"{path} ({variant})")
    model.model.class_names = names
    return LoadedModel(model, dict(enumerate(names)), f"{path.name} ({variant}, classes {', '.join(names)})")


def _load_theirs(path: Path, variant: str, device: torch.device, first_class_id: str) -> LoadedModel:
    """Built from what the file says and from its tensors' shapes, then loaded tensor by tensor: rfdetr's own loader takes
    what happens to fit."""
    file = rfdetr_file.read(path)
    symbol, told = rfdetr_file.rfdetr_class(file, variant)
    config = rfdetr_file.rfdetr_config(file, symbol, told)
    try:
        model = library.construct_class(symbol, device, path, **config)
    except DetectorError:
        raise
    except Exception as error:  # whatever the library makes of settings that cannot be
        raise DetectorError(f"{path} has settings that no {symbol} can have: {one_line(error)}") from error
    what = f"{path} ({symbol})" if told else f"{path}, taken for detector.variant={variant},"
    state = library.current_names(library.network(model), file.tensors)
    _load_exactly(library.network(model), state, what, rfdetr_file.looks_like(file))
    names = rfdetr_file.class_ids(file, first_class_id)
    if isinstance(file.names, list) and file.names:
        model.model.class_names = list(file.names)
    return LoadedModel(model, names, f"{path.name} ({symbol}, {config['resolution']} pixels)")


def _load_exactly(net: nn.Module, state: Mapping[str, torch.Tensor], what: str, like: str = "") -> None:
    """like: the variants whose shapes the tensors have, for people."""
    own = {k: v for k, v in net.state_dict().items() if k not in _DERIVED}
    state = {k: v for k, v in state.items() if k not in _DERIVED}
    missing, extra = [k for k in own if k not in state], [k for k in state if k not in own]
    shapes = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or shapes:
        wrong = (missing + extra + shapes)[0]
        sizes = ""
        if wrong in shapes:
            sizes = f" is {tuple(state[wrong].shape)} there, {tuple(own[wrong].shape)} in the network"
        raise DetectorError(
            f"{what} does not fit: {len(missing)} tensors are missing, {len(extra)} are too many, {len(shapes)} have "
            f"another shape (first: {wrong}{sizes}). Is it a checkpoint of another variant? Set detector.variant"
            + (f"; its tensors are like those of {like}" if like else "")
        )
    _check_finite(state, what)
    net.load_state_dict(state, strict=False)


def _check_finite(state: Mapping[str, torch.Tensor], what: str) -> None:
    for name, tensor in state.items():
        if not torch.isfinite(tensor).all():
            raise DetectorError(
                f"{what} holds numbers that are not finite (in {name}), as a training that diverged leaves them; take other "
                "weights"
            )


def _load_published(variant: str, device: torch.device) -> LoadedModel:
    path, address = library.published_file(variant)
    if not path.is_file():
        logger.info("downloading RF-DETR %s weights from %s to %s", variant, address, path)
    cls = library.variant_class(variant)
    try:
        with library.quiet():
            model = cls(device=str(device))
    except OSError as error:  # requests' errors are OSErrors
        raise DetectorError(
            f"the published RF-DETR {variant} weights cannot be downloaded ({type(error).__name__}). Download {address} "
            f"on a machine that is online and put it at {path} (RF_HOME moves that folder), or set detector.weights "
            "to a local checkpoint"
        ) from error
    return LoadedModel(model, library.class_names(model), f"published {path.name}")
