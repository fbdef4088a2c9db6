"""``rfdetr-foundationpose``: the table of sub-commands and how they are mounted."""

from __future__ import annotations

import functools
import gc
import importlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from .. import interrupts
from ..errors import UserError, error_sentence
from ..ros import shared_memory
from . import outputs

PROGRAM = "rfdetr-foundationpose"
PACKAGE = "rfdetr_foundationpose"


@dataclass(frozen=True)
class Command:
    """Where a sub-command lives (``module:function`` inside the package) and the line that --help shows."""

    target: str
    help: str

    def load(self) -> Callable[..., Any]:
        """The function. Raises ImportError when the module or a package that it needs is missing."""
        module_name, attribute = self.target.split(":")
        module = importlib.import_module(f"{PACKAGE}.{module_name}")
        try:
            loaded: Callable[..., Any] = getattr(module, attribute)
        except AttributeError as error:
            raise ImportError(f"{PACKAGE}.{module_name} has no {attribute!r}", name=module.__name__) from error
        return loaded


COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command("cli.demo:demo", "Generate a recording, play it into the node, show how right the poses are."),
    "doctor": Command("cli.doctor:doctor", "Say what is installed, which weights are in use and what is missing."),
    "replay": Command("cli.replay:replay", "Run a recording through pipeline or node; compare with a baseline."),
    "evaluate": {
        "synth": Command("cli.evaluate_synth:synth", "Register and track objects in generated scenes."),
        "bop": Command("cli.evaluate_bop:bop", "Register the objects of a data set in BOP layout."),
        "ycbv": Command("cli.evaluate_ycbv:ycbv", "Register the mustard bottle in real YCB-Video frames."),
        "detector": Command("cli.evaluate_detector:detector", "RF-DETR alone on generated recordings."),
        "pipeline": Command("cli.evaluate_pipeline:pipeline", "The whole pipeline on generated recordings."),
        "schedules": Command("cli.evaluate_schedules:schedules", "Schedules of registration against each other."),
    },
    "calibrate": Command("cli.calibrate:calibrate", "Fit the confidence of poses to the weights in use."),
    "bench": {
        "stages": Command("cli.bench_stages:stages", "Each stage, for each way to run the networks (the default)."),
        "networks": Command("cli.bench_networks:networks", "Refiner and scorer alone, by batch size."),
        "node": Command("cli.bench_node:node", "From the camera's stamp to the pose received, over DDS."),
        "scaling": Command("cli.bench_scaling:scaling", "How the time grows with objects, faces, pixels and cameras."),
        "overlap": Command(
            "cli.bench_overlap:overlap", "The detector beside the tracker, against one after the other."
        ),
    },
    "validate": {
        "pose": Command("cli.validate_pose:pose", "Hold a faster way to run the pose networks against FP32 eager."),
        "detector": Command(
            "cli.validate_detector:validate", "Hold a faster way to run RF-DETR against its reference."
        ),
    },
    "export": Command("cli.export:export", "Write the networks as ONNX."),
    "build-engines": Command("cli.build_engines:build_engines", "Build TensorRT engines for this GPU, or for others."),
    "train": {
        "refiner": Command("cli.train_pose:refiner", "Train the pose refiner on generated pairs."),
        "first-pass": Command("cli.train_pose:first_pass", "Train the refiner of a registration's first pass."),
        "scorer": Command("cli.train_pose:scorer", "Train the pose scorer on generated hypotheses."),
        "detector": Command("cli.train_detector:train", "Train RF-DETR on generated scenes."),
    },
    "generate": {
        "recording": Command("cli.generate:recording", "A recording of a camera over a table with moving objects."),
        "scan": Command("cli.generate_scan:scan", "A recording for 'object scan': an object on the printed board."),
        "bop": Command("cli.generate:bop", "A data set in BOP layout."),
        "coco": Command("cli.generate:coco", "A detector data set in COCO layout."),
        "objects": Command("cli.generate:objects", "The demo's object meshes."),
    },
    "object": {
        "add": Command("cli.object_add:add", "Check a mesh, suggest scale and symmetries, add it to objects.yaml."),
        "board": Command("cli.object_board:board", "The sheet to print, on which an object without a mesh is scanned."),
        "scan": Command("cli.object_scan:scan", "A mesh from a recording of an object on the printed board."),
    },
}
GROUP_HELP = {
    "evaluate": "Measure accuracy on generated scenes, a BOP folder or real frames.",
    "bench": "Measure speed on this machine; without a sub-command: stages.",
    "validate": "Check that a faster way to run a network gives the same answers.",
    "object": "Your own objects: from a mesh, or without one, to an entry of objects.yaml.",
    "train": "Train a detector of your objects, or the weights of the pose stage.",
    "generate": "Generate objects, recordings and data sets with ground truth.",
}
DEFAULT_SUB_COMMAND = {"bench": "stages"}
HELP_OPTIONS = ("--help", "-h")
COMPLETION = "_RFDETR_FOUNDATIONPOSE_COMPLETE"
"""A shell that asks what could follow sets this; what has been typed so far is in COMP_WORDS or _TYPER_COMPLETE_ARGS."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with ``arguments`` (default: those of the process). Exits through SystemExit.

    What a user can mend (UserError, what the operating system refuses, a package that is not installed) ends in one
    sentence and exit code 2, Ctrl-C in 130, SIGTERM in 143; a fault of the program keeps its traceback. Without
    ``arguments`` it also takes the process's signals (interrupts.listen).
    """
    own = arguments is None
    if own:
        interrupts.listen(PROGRAM, shared_memory.abandon)
    arguments = _with_default(list(sys.argv[1:] if arguments is None else arguments))
    try:
        app = build_app(_typed(arguments))
        app(args=arguments, prog_name=PROGRAM)
    except (UserError, OSError) as error:
        _complain(arguments, error_sentence(outputs.named(error)))
        outputs.forget_empty()
        raise SystemExit(2) from error
    except ImportError as error:
        if (error.name or "").partition(".")[0] == PACKAGE:
            raise
        remedy = f"'{PROGRAM} doctor' lists what is installed"
        if "rclpy" in str(error):
            remedy = "source your ROS install, or pip install 'rfdetr_foundationpose[ros]'"
        _complain(arguments, f"{error}; {remedy}")
        raise SystemExit(2) from error
    finally:
        interrupts.over()
        if own:
            # What the libraries hold needs no collection any more: it takes seconds at exit.
            gc.freeze()


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The whole tree, in which only the command that ``arguments`` name is imported; the others are help lines."""
    app = typer.Typer(
        name=PROGRAM,
        help="6-DoF object poses from RGB-D: RF-DETR finds, FoundationPose registers and tracks.",
        no_args_is_help=True,
        rich_markup_mode=None,  # brackets are units here, [m/s], and would be taken for markup
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": list(HELP_OPTIONS)},
    )
    app.callback()(_root)
    words = [a for a in arguments if not a.startswith("-")]
    for name, entry in COMMANDS.items():
        chosen = words[:1] == [name]
        if isinstance(entry, Command):
            _mount(app, name, entry, chosen)
        else:
            group = typer.Typer(
                help=GROUP_HELP[name], short_help=GROUP_HELP[name], no_args_is_help=True, rich_markup_mode=None
            )
            for sub_name, command in entry.items():
                _mount(group, sub_name, command, chosen and words[1:2] == [sub_name])
            app.add_typer(group, name=name)
    return app


def _with_default(arguments: list[str]) -> list[str]:
    """``bench --device cpu`` is ``bench stages --device cpu``; ``bench --help`` lists what there is."""
    for name, sub_command in DEFAULT_SUB_COMMAND.items():
        following = arguments[1:2]
        if arguments[:1] == [name] and (
            not following or (following[0].startswith("-") and following[0] not in HELP_OPTIONS)
        ):
            return [name, sub_command, *arguments[1:]]
    return arguments


def _typed(arguments: list[str]) -> list[str]:
    """The words that name the command: the arguments, or the unfinished line of which a shell asks how it could go on."""
    if COMPLETION not in os.environ:
        return arguments
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    return _with_default(line.split()[1:])


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"{PROGRAM} {version(PACKAGE)}")
        except PackageNotFoundError:
            typer.echo(f"{PROGRAM} (not installed: run pip install -e . or make install)")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the sub-command; --version has done its work in its callback."""


def _mount(app: typer.Typer, name: str, command: Command, chosen: bool) -> None:
    if chosen:
        loaded = _told_of_interrupts(command.load(), name)
        app.command(name, help=loaded.__doc__ or command.help, short_help=command.help)(loaded)
    else:
        app.command(name, short_help=command.help)(_unloaded)


def _told_of_interrupts(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The command, whose Ctrl-C ends in a word and exit code 130 (143 for SIGTERM) where it does not keep what it has itself."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except KeyboardInterrupt as interrupt:
            typer.echo(f"{PROGRAM} {name}: interrupted", err=True)
            raise typer.Exit(interrupts.status_of(interrupt)) from interrupt

    return called


def _unloaded() -> None:
    raise RuntimeError("only the named sub-command is loaded; this one was not named")


def _complain(arguments: Sequence[str], sentence: str) -> None:
    """On one line of stderr, after the command's name."""
    entry = COMMANDS.get(arguments[0]) if arguments else None
    words = arguments[: 2 if isinstance(entry, dict) else 1]
    typer.echo(f"{' '.join([PROGRAM, *words])}: {sentence}", err=True)
    logging.getLogger(__name__).debug("where it arose", exc_info=True)


if __name__ == "__main__":
    main()
