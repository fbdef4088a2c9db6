"""``build-engines``: TensorRT engines of the networks, for this GPU or for others, in a folder that a robot can be given."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..interrupts import CutShort
from .console import kept, open_console, sayer
from .export import Detector, DetectorWeights, check_files
from .options import OfficialSize, PoseWeights, parse_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engines.build_folder import Built, Wanted
    from ..engines.engine_folder import Machine
    from ..engines.tensorrt_library import Library

logger = logging.getLogger(__name__)


def build_engines(
    target: Annotated[
        str, typer.Option(help="GPUs, comma separated, e.g. sm_89,sm_120; empty: the one of this machine.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for pose.engines; default: this user's cache.")] = None,
    weights: PoseWeights = "default",
    refiner: Annotated[
        Path | None, typer.Option("--refiner-onnx", help="ONNX file instead, e.g. NVIDIA's refiner_net.onnx.")
    ] = None,
    scorer: Annotated[
        Path | None, typer.Option("--scorer-onnx", help="ONNX file instead, e.g. NVIDIA's score_net.onnx.")
    ] = None,
    detector: Detector = True,
    detector_weights: DetectorWeights = "default",
    batches: Annotated[str, typer.Option(help="Batch sizes; default: all that the pipeline uses.")] = "",
    precision: Annotated[str, typer.Option(help="fp16 or fp32.")] = "fp16",
    library: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    device: Annotated[str, typer.Option(help="The GPU of this machine, without --target.")] = "cuda",
    scenes: Annotated[
        int, typer.Option(min=0, help="Rendered scenes that a scorer in FP16 is checked on before; 0: none.")
    ] = 1,
    official_size: OfficialSize = False,
) -> None:
    """Build TensorRT engines; those that fit already are kept. With --target no GPU is needed (TensorRT for RTX)."""
    import torch

    from ..engines.build_folder import build_folder, is_complete
    from ..engines.engine_folder import MANIFEST
    from ..process import prepare_process
    from ..resources import cache_directory

    console = open_console()
    say = sayer(console)
    if precision not in ("fp16", "fp32"):
        raise typer.BadParameter(f"--precision={precision} must be fp16 or fp32")
    sizes = parse_batches(batches)
    prepare_process(torch.device("cpu"))
    taken, machine, targets = choose_machine(target, library, device)
    say(f"{taken.title}: {taken.why}; engines for {', '.join(targets)}")
    wanted = _pose_engines(weights, refiner, scorer, sizes, precision, official_size)
    folder = out or cache_directory() / "engines"
    scorers = [w for w in wanted if w.source.role == "scorer"]
    checked = scenes and precision == "fp16" and scorer is None and not official_size
    if checked and not is_complete(folder, scorers, machine, targets):
        _check_scorer(weights, scenes)
    if detector:
        wanted += _detector_engine(detector_weights, precision)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    done: list[Built] = []
    with CutShort() as cut, Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("engines", total=len(wanted))

        def report(built: Built) -> None:
            bar.advance(task)
            done.append(built)
            how = f"built in {built.seconds:.1f} s" if built.seconds else "kept, it fits"
            bar.console.print(
                f"{built.key}: {built.megabytes:.1f} MB, {', '.join(built.targets)}, {how}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )

        build_folder(folder, wanted, taken, machine, targets, report)
    kept(cut, len(done), len(wanted), "engines", folder)
    new = sum(b.seconds > 0 for b in done)
    say(f"{new} engines built in {sum(b.seconds for b in done):.0f} s, {len(done) - new} kept; {folder / MANIFEST}")
    use = "" if out is None else f", pose.engines to {out}"
    say(f"To use them set pose.backend and detector.backend to tensorrt{use}")


def choose_machine(target: str, library: str, device: str) -> tuple[Library, Machine, list[str]]:
    """The library, what engines are for, and the targets of --target. Raises BackendUnavailable, EngineBuildError."""
    import torch

    from ..accel.base import BackendUnavailable, EngineOptions
    from ..engines.build_folder import EngineBuildError, parse_targets
    from ..engines.engine_folder import Machine
    from ..engines.engine_provider import machine_at, usable_library
    from ..engines.tensorrt_library import choose_library

    if not target:
        if not torch.cuda.is_available():
            raise BackendUnavailable(
                "no CUDA device is visible to torch; name the GPUs that the engines are for, e.g. --target sm_89"
            )
        place = torch.device(device)
        taken = usable_library(place, EngineOptions(library=library))
        machine = machine_at(taken, place)
        return taken, machine, [machine.target]
    taken = choose_library(library)
    targets = parse_targets(target, taken)
    if not targets:
        raise EngineBuildError(f"--target {target!r} names no GPU; {taken.title} has {', '.join(taken.targets)}")
    return taken, Machine(taken.name, taken.version, targets[0]), targets


def parse_batches(text: str) -> dict[str, list[int]]:
    """Batch sizes by role; empty: what the pipeline uses. Raises typer.BadParameter."""
    if not text:
        return default_batches()
    sizes = parse_numbers(text, "--batches")
    return {"refiner": sizes, "scorer": sizes}


def default_batches() -> dict[str, list[int]]:
    """Of tracking, and of registering an object without symmetries on the default schedule, after a first pass or, as with official
    weights, without one, and on the full schedule."""
    import torch

    from ..config import PoseConfig
    from ..pose.estimator import TRACK_BATCHES
    from ..pose.hypotheses import MOST_HYPOTHESES
    from ..pose.pruning import pruning_schedule

    settings = PoseConfig()
    refiner, scorer = set(TRACK_BATCHES), set()
    iterations, cuda = settings.register_iterations, torch.device("cuda")
    for schedule, first_pass in (
        (settings.register_schedule, True),
        (settings.register_schedule, False),
        ("full", False),
    ):
        pruning = pruning_schedule(schedule, MOST_HYPOTHESES, iterations, cuda, first_pass=first_pass)
        refiner |= set(pruning.kept)
        scorer |= set(pruning.scored)
    return {"refiner": sorted(refiner), "scorer": sorted(scorer)}


def _pose_engines(
    weights: str,
    refiner: Path | None,
    scorer: Path | None,
    sizes: dict[str, list[int]],
    precision: str,
    official_size: bool,
) -> list[Wanted]:
    from ..accel.base import RunnerContext
    from ..engines.build_folder import Wanted
    from ..engines.onnx_file import OnnxFormatError
    from ..engines.runners import file_source, module_source
    from ..evaluate.networks import load_networks

    files = {"refiner": refiner, "scorer": scorer}
    loaded = load_networks(weights, official_size) if None in files.values() else None
    wanted = []
    for role, file in files.items():
        if file is None:
            assert loaded is not None
            source = module_source(loaded.modules[role], RunnerContext(label=role, about=loaded.about[role]))
        else:
            source = file_source(file)
            if source.role != role:
                raise OnnxFormatError(f"{file} is a {source.role}, given as --{role}-onnx")
        batches: Sequence[int] = [source.spec.batch] if source.spec.batch else sizes[role]
        wanted += [Wanted(source, batch, precision) for batch in batches]
    return wanted


def _detector_engine(weights: str, precision: str) -> list[Wanted]:
    import torch

    from ..detect.checkpoint import load_model
    from ..detect.onnx_detector import detector_source
    from ..engines.build_folder import Wanted

    loaded = load_model(weights, "nano", torch.device("cpu"))
    return [Wanted(detector_source(loaded.model, about=loaded.description), 1, precision)]


def _check_scorer(weights: str, scenes: int) -> None:
    """Refuse weights whose scorer does not survive FP16, before engines of it are built."""
    from ..accel.base import RunnerContext
    from ..engines.build_folder import EngineBuildError
    from ..engines.runners import exported
    from ..evaluate.networks import load_networks

    scorer = load_networks(weights, False).modules["scorer"]
    path = exported(scorer, RunnerContext(label="scorer"), "fp16")
    (check,) = check_files("scorer", scorer, [path], ("fp16",), scenes, 0, ordered=True)
    if isinstance(check, str):
        logger.info(f"the scorer in FP16 is not checked: {check}")
        return
    if check.reasons:
        raise EngineBuildError(f"the scorer in FP16 is refused: {'; '.join(check.reasons)}; use --precision fp32")
    logger.info(f"scorer in FP16 on {scenes} rendered scenes: {check}")
