"""What a checkpoint that some version of rfdetr wrote says of itself: variant, settings, and which class is which.

=========  =====================================================  ==========================================
rfdetr     file                                                   class names
=========  =====================================================  ==========================================
1.2 - 1.5  ``model`` and an argparse ``args``                     of data with a placeholder class from id 1
1.6 - 1.7  ``model`` (``state_dict``) and ``args``, a dict        from id 0, the placeholder is one of them
1.8 - 1.11 the same with ``model_config``; "best_total" without   from id 0, since 1.9 without placeholder
=========  =====================================================  ==========================================
"""

from __future__ import annotations

import json
import logging
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import one_line
from . import rfdetr_library as library
from .detector import DetectorError

logger = logging.getLogger(__name__)

SIDECAR = "training_config.json"
_SETTINGS = (
    *("resolution", "num_queries", "num_select", "group_detr", "dec_layers", "hidden_dim", "out_feature_indexes"),
    *("patch_size", "num_windows", "sa_nheads", "ca_nheads", "dec_n_points", "bbox_reparam", "lite_refpoint_refine"),
    *("layer_norm", "two_stage", "projector_scale", "mask_downsample_ratio", "num_channels", "dual_projector"),
)
"""These fields of rfdetr's ModelConfig shape the network or its input."""
_POSITIONS = "backbone.0.encoder.encoder.embeddings.position_embeddings"
_PATCHES = "backbone.0.encoder.encoder.embeddings.patch_embeddings.projection.weight"
_COCO_HEAD = 91
_LARGEST = 4096


@dataclass(frozen=True)
class RfdetrFile:
    """tensors of the network; settings: whatever the file says of model and training; names as it gives them.

    legacy: written before 1.6, whose class names begin at 1 where the data had a placeholder class. model_name: rfdetr's
    class, "" where it is not said. version: "" where it is not said.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    names: list[str] | dict[int, str]
    legacy: bool
    model_name: str
    version: str

    @property
    def outputs(self) -> int:
        """Columns of the classification head."""
        return int(self.tensors["class_embed.bias"].shape[0])


def _code_in(path: Path) -> str:
    """Whose objects a file holds, "" where that is not the reason."""
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # whatever torch makes of a damaged file
        return ""
    if any(name.startswith("ultralytics.") for name in names):
        return "it is a YOLO model of ultralytics; publish its masks instead: detector.source: mask-topic, examples/mask_publisher.py"
    return f"it holds objects of {', '.join(names[:4])}" if names else ""


def read(path: Path) -> RfdetrFile:
    """Read a .pth, .pt or .ckpt without running what is in it. Raises DetectorError."""
    _check_sums(path)
    library.load_library()
    from rfdetr.utilities.io import _safe_torch_load

    try:
        content = _safe_torch_load(path)
    except Exception as error:
        raise DetectorError(
            f"{path} cannot be read as a checkpoint of tensors and settings; files that hold code are refused. "
            f"({_code_in(path) or one_line(error)})"
        ) from error
    if not isinstance(content, dict) or not ("model" in content or "state_dict" in content):
        raise DetectorError(f"{path} holds no RF-DETR network: neither 'model' nor 'state_dict' is in it")
    tensors = _tensors(content)
    for key in ("class_embed.bias", "refpoint_embed.weight"):
        if key not in tensors or not tensors[key].ndim:
            raise DetectorError(
                f"{path} holds no RF-DETR network: class_embed.bias or refpoint_embed.weight is missing"
            )
    check_finite(path, tensors)
    args = content.get("args", content.get("hyper_parameters"))
    legacy = args is not None and not isinstance(args, Mapping)
    said = dict(args) if isinstance(args, Mapping) else dict(vars(args)) if hasattr(args, "__dict__") else {}
    config = content.get("model_config")
    settings = {**_sidecar(path), **_known(said), **_known(config if isinstance(config, Mapping) else {})}
    return RfdetrFile(
        path,
        tensors,
        settings,
        _names(said.get("class_names", content.get("class_names", settings.get("class_names")))),
        legacy,
        str(content.get("model_name") or settings.get("model_name") or ""),
        str(content.get("rfdetr_version") or ""),
    )


def _check_sums(path: Path) -> None:
    """torch reads damaged entries of its archives without a word; their checksums tell. Raises DetectorError."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return  # not an archive, or one that torch.load will refuse with a reason of its own
    if damaged is not None:
        raise DetectorError(f"{path} is damaged: the checksum of {damaged} in it is wrong; copy or download it again")


def _tensors(content: Mapping[str, Any]) -> dict[str, Tensor]:
    model = content.get("model")
    if isinstance(model, Mapping):
        return {str(k): v for k, v in model.items() if isinstance(v, Tensor)}
    state = content.get("state_dict")
    return {
        str(k).removeprefix("model.").removeprefix("_orig_mod."): v
        for k, v in (state.items() if isinstance(state, Mapping) else ())
        if str(k).startswith("model.") and isinstance(v, Tensor)
    }


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises DetectorError."""
    wrong = [k for k, v in tensors.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if wrong:
        raise DetectorError(
            f"{path} has {len(wrong)} tensors with values that are not finite, first {wrong[0]}: its training went wrong "
            "or the file is damaged; take an earlier checkpoint"
        )


def _known(given: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): v for k, v in given.items() if v is not None}


def _sidecar(path: Path) -> dict[str, Any]:
    """Settings of the file that rfdetr writes beside its checkpoints since 1.7; {} without."""
    try:
        tree = json.loads((path.parent / SIDECAR).read_text())
        found = {**_known(tree["train_config"]), **_known(tree["model_config"])}
        return {**found, "class_names": tree.get("class_names") or found.get("class_names")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _names(given: Any) -> list[str] | dict[int, str]:
    if isinstance(given, str):
        return [given]
    if isinstance(given, Mapping):
        try:
            return {int(k): str(v) for k, v in given.items()}
        except (TypeError, ValueError):
            return [str(v) for v in given.values()]
    return [str(n) for n in given] if isinstance(given, list | tuple) else []


def rfdetr_class(file: RfdetrFile, variant: str) -> tuple[str, bool]:
    """Name of rfdetr's class, and whether the file tells it: by its model_name, or by the name of the weights that its
    training began with, or by its own; else that of ``variant``. Raises DetectorError."""
    if file.model_name.startswith("RFDETR"):
        return _of_its_age(file, file.model_name), True
    start = str(file.settings.get("pretrain_weights") or "").replace("\\", "/").rpartition("/")[2]
    for name in (start, file.path.name):
        # rfdetr looks in the whole path, where a folder called "small-parts" makes any model a small one.
        found = next((symbol for key, symbol in library.CLASSES.items() if key in name.lower().replace("_", "-")), None)
        if found is not None:
            return _of_its_age(file, found), True
    return library.VARIANTS.get(variant, variant), False


def _of_its_age(file: RfdetrFile, symbol: str) -> str:
    """rfdetr 1.4 gave the name Large to another network."""
    patches = file.tensors.get(_PATCHES)
    old = patches is not None and patches.shape[-1] == 14
    return "RFDETRLargeDeprecated" if symbol == "RFDETRLarge" and old else symbol


def looks_like(file: RfdetrFile) -> str:
    """The variants whose decoder, queries, patches and masks are those of the tensors, for people; "" for none."""
    patches = file.tensors.get(_PATCHES)
    seen = (
        _decoder_layers(file),
        any(k.startswith("segmentation_head.") for k in file.tensors),
        None if patches is None else int(patches.shape[-1]),
        _side(file),
    )
    found = []
    for variant, symbol in library.VARIANTS.items():
        try:
            c = library.default_config(symbol)
        except DetectorError:
            continue
        if seen == (c.dec_layers, bool(c.segmentation_head), c.patch_size, c.positional_encoding_size):
            found.append(variant)
    return " or ".join(found)


def _decoder_layers(file: RfdetrFile) -> int:
    return len({k.split(".")[3] for k in file.tensors if k.startswith("transformer.decoder.layers.")})


def _side(file: RfdetrFile) -> int | None:
    """Of the square of position embeddings, in patches."""
    positions = file.tensors.get(_POSITIONS)
    return None if positions is None or positions.ndim != 3 else math.isqrt(max(int(positions.shape[1]) - 1, 0))


def rfdetr_config(file: RfdetrFile, symbol: str, told: bool) -> dict[str, Any]:
    """ModelConfig fields to build the network of ``file`` with. Logs what had to be assumed. Raises DetectorError.

    told: whether the file itself says that it is a ``symbol``, so that its tensors may be of other depth.
    """
    default = library.default_config(symbol)
    config = {k: file.settings[k] for k in _SETTINGS if k in file.settings and hasattr(default, k)}
    config["num_classes"] = file.outputs - 1
    if told:
        config["dec_layers"] = _decoder_layers(file) or default.dec_layers
    groups = (
        len({k.split(".")[2] for k in file.tensors if k.startswith("transformer.enc_output.")}) or default.group_detr
    )
    queries = int(file.tensors["refpoint_embed.weight"].shape[0]) // groups
    config["group_detr"], config["num_queries"] = groups, queries
    try:
        config["num_select"] = min(int(config.get("num_select", default.num_select)), queries * file.outputs)
        _set_resolution(file, config, default)
    except (TypeError, ValueError, OverflowError) as error:  # the last: infinite
        raise DetectorError(f"{file.path} has settings that no {symbol} can have: {one_line(error)}") from error
    return config


def _set_resolution(file: RfdetrFile, config: dict[str, Any], default: Any) -> None:
    """Resolution and size of the position embeddings: the latter from the tensors, the former from there where not said.
    Raises ValueError for a resolution that the network cannot take."""
    side = _side(file) or default.positional_encoding_size
    config["positional_encoding_size"] = side
    patch = int(config.get("patch_size", default.patch_size))
    windows = int(config.get("num_windows", default.num_windows))
    if patch < 1 or windows < 1:
        raise ValueError(f"patch_size = {patch} and num_windows = {windows}, expected 1 or more of each")
    if "resolution" not in config:
        config["resolution"] = side * patch
        logger.warning(
            "%s does not say at which resolution it was trained; %d is assumed, the size of its position embeddings. Put "
            "the %s of its training beside it if that is wrong",
            file.path,
            config["resolution"],
            SIDECAR,
        )
    resolution, block = int(config["resolution"]), patch * windows
    if not 0 < resolution <= _LARGEST or resolution % block:
        raise ValueError(f"resolution = {resolution}, expected a multiple of {block} up to {_LARGEST}")
    config["resolution"] = resolution


def class_ids(file: RfdetrFile, first_class_id: str) -> dict[int, str]:
    """Network class index -> name, as the version that wrote the file meant it. Logs what had to be assumed.

    first_class_id: index of the first name, or "auto".
    """
    names, outputs = file.names, file.outputs
    if isinstance(names, dict):
        return names
    coco = library.coco_classes()
    if (not names or names == list(coco.values())) and outputs >= _COCO_HEAD:
        return coco
    if not names:
        logger.warning(
            "%s names no classes; set label to the number of the class, '0' to '%d', for each object in objects.yaml",
            file.path,
            outputs - 2,
        )
        return {i: str(i) for i in range(outputs - 1)}
    said = file.settings.get("num_classes")
    extra = (said if file.legacy and isinstance(said, int) else outputs - 1) - len(names)
    first = int(extra == 1) if first_class_id == "auto" else int(first_class_id)
    if extra and first_class_id == "auto":
        logger.warning(
            "%s was trained for %d classes and names %d (%s); the first name is taken for class %d, %s. If detections "
            "carry a neighbour's name, set detector.first_class_id to %d",
            file.path,
            extra + len(names),
            len(names),
            ", ".join(names[:5]) + (", ..." if len(names) > 5 else ""),
            first,
            "as rfdetr before 1.6 numbered them" if file.legacy and first else "as their order says",
            1 - first,
        )
    if (
        not extra
        and file.legacy
        and first_class_id == "auto"
        and file.settings.get("dataset_file") in ("roboflow", "coco")
    ):
        logger.warning(
            "%s was trained on data without a placeholder class, whose ids begin at 0 (YOLO) or as its COCO file has them; the "
            "first name is taken for class 0. If detections carry a neighbour's name, set detector.first_class_id to 1",
            file.path,
        )
    return {first + i: name for i, name in enumerate(names) if first + i < outputs}
