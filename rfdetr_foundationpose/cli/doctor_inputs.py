"""What ``doctor`` loads as the node would: weights, objects, a recording; and what earlier runs left behind."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..resources import PACKAGE
from .findings import Finding, Verdict

if TYPE_CHECKING:
    from ..config import Config
    from ..objects import ObjectSpec
    from ..pose.checkpoints import Weights


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.sentences: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sentences.append(record.getMessage())


@contextmanager
def warnings_said() -> Iterator[list[str]]:
    """What the package warns of meanwhile."""
    logger, handler = logging.getLogger(PACKAGE), _Collected()
    logger.addHandler(handler)
    try:
        yield handler.sentences
    finally:
        logger.removeHandler(handler)


def pose_weights(config: Config) -> list[Finding]:
    """Refiner, scorer, first pass and calibration, loaded."""
    from ..pose import checkpoints
    from ..pose.build import first_pass_file, weights_directory
    from ..pose.confidence import FILE_NAME, load_calibration

    directory = weights_directory(config)
    loaders = {"refiner": checkpoints.load_refiner, "scorer": checkpoints.load_scorer}
    lines = []
    for role, load in loaders.items():
        name = f"pose {role}"
        try:
            path = checkpoints.find(directory, role)
            if path.suffix == ".onnx":
                lines.append(_onnx(name, path, role))
                continue
            weights = load(path)[1]
        except UserError as error:
            lines.append(_missing(name, error))
            continue
        lines.append(_known(name, weights, path))
    lines.append(_first_pass(first_pass_file(directory)))
    try:
        load_calibration(directory)
    except UserError as error:
        lines.append(_missing("confidence", error))
    else:
        there = (directory / FILE_NAME).is_file()
        fix = "" if there else "fit one to these weights: rfdetr-foundationpose calibrate"
        found = str(directory / FILE_NAME) if there else "none beside the weights: a default calibration is used"
        lines.append(Finding("confidence", Verdict.OK if there else Verdict.OPTIONAL, found, fix))
    return lines


def _first_pass(path: Path | None) -> Finding:
    """The refiner of a registration's first pass."""
    from ..pose.checkpoints import load_first_pass

    name = "pose first pass"
    if path is None:
        return Finding(
            name, Verdict.OPTIONAL, "none: a CPU registers without it", "rfdetr-foundationpose train first-pass"
        )
    try:
        return _known(name, load_first_pass(path)[1], path)
    except UserError as error:
        return _missing(name, error)


def _known(name: str, weights: Weights, path: Path) -> Finding:
    """Weights that were read, with their licence."""
    ours = path.suffix == ".safetensors"
    licence = "this package's (Apache-2.0)" if ours else "NVIDIA Source Code License (non-commercial)"
    return Finding(name, Verdict.OK, f"{weights.description}; licence: {weights.metadata.get('license') or licence}")


def _onnx(name: str, path: Path, role: str) -> Finding:
    from ..engines.onnx_file import inspect_onnx

    found = inspect_onnx(path)
    if found.role != role:
        return Finding(name, Verdict.MISSING, f"{path} is a {found.role}", f"put a {role} there")
    return Finding(name, Verdict.OK, f"{path.name} (ONNX, batch {found.batch or 'dynamic'})")


def detector_weights(config: Config, specs: list[ObjectSpec]) -> list[Finding]:
    """The detector, loaded, and whether it knows the labels of the objects."""
    import torch

    from ..detect import rfdetr_library as library
    from ..detect.checkpoint import load_model
    from ..detect.classes import map_classes

    settings, name = config.detector, "detector"
    if settings.source != "rf-detr":
        return [Finding(name, Verdict.OK, f"no weights of RF-DETR are loaded: detector.source is {settings.source}")]
    if settings.weights == "published":
        path, address = library.published_file(settings.variant)
        if not path.is_file():
            fix = f"or put it there yourself: {address}"
            return [Finding(name, Verdict.OPTIONAL, f"{path} will be downloaded at the first start", fix)]
    try:
        loaded = load_model(settings.weights, settings.variant, torch.device("cpu"))
        if specs:
            map_classes(loaded.class_names, specs, loaded.description)
    except UserError as error:
        return [_missing(name, error)]
    own = settings.weights in ("default", "published")
    licence = "Apache-2.0" if own else "see where you got it from"
    return [Finding(name, Verdict.OK, f"{loaded.description}; licence: {licence}")]


def objects(file: Path) -> tuple[list[Finding], list[ObjectSpec]]:
    """Every object with its mesh loaded; what the loader warns of is advice."""
    from ..objects import load_objects
    from ..pose.mesh import load_object

    try:
        specs = load_objects(file)
    except UserError as error:
        return [_missing("objects", error)], []
    lines = [Finding("objects", Verdict.OK, f"{len(specs)} in {file}")]
    for spec in specs:
        name = f"object {spec.name}"
        try:
            with warnings_said() as said:
                model = load_object(spec)
        except UserError as error:
            lines.append(_missing(name, error))
            continue
        size = " x ".join(f"{100 * v:.1f}" for v in model.extents)
        about = f"{size} cm, {len(model.arrays.faces)} faces, colour from {model.color_source}"
        lines.append(Finding(name, Verdict.OK, about, "; ".join(said)))
    return lines, specs


def recording(path: Path, config: Config) -> list[Finding]:
    """What of a recording makes frames, and what is wrong with it."""
    from ..replay.recording import Recording

    try:
        tape = Recording(path, depth_unit=config.input.depth_unit, rectify=config.input.rectify)
        tape.check()
        frame, _ = next(iter(tape))
    except UserError as error:
        return [_missing("recording", error)]
    about = f"{len(tape)} frames of {frame.camera.width}x{frame.camera.height}; {tape.reason}"
    truth = f"ground truth of {', '.join(sorted(tape.truths.values()))}" if tape.truths else "no ground truth"
    return [Finding("recording", Verdict.OK, f"{about}; {truth}", "; ".join(tape.problems))]


def shared_memory() -> list[Finding]:
    """Segments that nodes left which were killed."""
    from ..ros import shared_memory

    left = shared_memory.left_behind()
    if not left:
        return [Finding("shared memory", Verdict.OK, f"nothing of ended nodes in {shared_memory.FOLDER}")]
    fix = "removed at the next start of a node"
    return [Finding("shared memory", Verdict.OPTIONAL, f"{shared_memory.summary(left)} of ended nodes", fix)]


def _missing(name: str, error: UserError) -> Finding:
    """What is wrong and, where the message goes on after a semicolon, what to do."""
    what, _, fix = str(error).partition("; ")
    return Finding(name, Verdict.MISSING, what, fix)
