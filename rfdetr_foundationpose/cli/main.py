"""``rfdetr-foundationpose``: the table of sub-commands and how they are mounted."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

PROGRAM = "rfdetr-foundationpose"
PACKAGE = "rfdetr_foundationpose"


@dataclass(frozen=True)
class Command:
    """Where a sub-command lives (``module:attribute`` inside the package) and the line that --help shows."""

    target: str
    help: str

    def load(self) -> Callable[..., Any] | typer.Typer:
        """The function or Typer. Raises ImportError when the module or a package that it needs is missing."""
        module_name, attribute = self.target.split(":")
        module = importlib.import_module(f"{PACKAGE}.{module_name}")
        try:
            loaded: Callable[..., Any] | typer.Typer = getattr(module, attribute)
        except AttributeError as error:
            raise ImportError(f"{PACKAGE}.{module_name} has no {attribute!r}", name=module.__name__) from error
        return loaded


COMMANDS: dict[str, Command | dict[str, Command]] = {
    "demo": Command("cli.demo:demo", "Generate a recording, play it into the node, show how right the poses are."),
    "doctor": Command("cli.doctor:doctor", "Say what is installed, which weights are in use and what is missing."),
    "replay": Command("cli.replay:replay", "Run a recording through pipeline or node; compare with a baseline."),
    "evaluate": {
        "synth": Command("cli.evaluate:synth", "Register and track objects in generated scenes."),
        "bop": Command("cli.evaluate:bop", "Register the objects of a data set in BOP layout."),
        "ycbv": Command("cli.evaluate:ycbv", "Register the mustard bottle in real YCB-Video frames."),
        "detector": Command("cli.evaluate_detector:detector", "RF-DETR alone on generated recordings."),
        "pipeline": Command("cli.evaluate_pipeline:pipeline", "The whole pipeline on generated recordings."),
        "schedules": Command("cli.evaluate_schedules:schedules", "Schedules of registration against each other."),
    },
    "calibrate": Command("cli.calibrate:calibrate", "Fit the confidence of poses to the weights in use."),
    "bench": Command("cli.bench:app", "Measure the speed of each stage and of each way to run the networks."),
    "validate": {
        "pose": Command("cli.validate_pose:pose", "Hold a faster way to run the pose networks against FP32 eager."),
        "detector": Command("cli.detector:validate", "Hold a faster way to run RF-DETR against its reference."),
    },
    "export": Command("cli.export:export", "Write the networks as ONNX."),
    "build-engines": Command("cli.export:build_engines", "Build and cache TensorRT engines for this GPU."),
    "train": {
        "refiner": Command("cli.train_pose:refiner", "Train the pose refiner on generated pairs."),
        "scorer": Command("cli.train_pose:scorer", "Train the pose scorer on generated hypotheses."),
        "detector": Command("cli.detector:train", "Train RF-DETR on generated scenes."),
    },
    "generate": Command("cli.generate:app", "Generate objects, recordings and data sets with ground truth."),
}
GROUP_HELP = {
    "evaluate": "Measure accuracy on generated scenes, a BOP folder or real frames.",
    "validate": "Check that a faster way to run a network gives the same answers.",
    "train": "Train the default weights on generated data.",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with ``arguments`` (default: those of the process). Exits through SystemExit."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app = build_app(arguments)
    except ImportError as error:
        _explain(arguments, error)
        raise SystemExit(1) from error
    app(args=arguments, prog_name=PROGRAM)


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The whole tree, in which only the command that ``arguments`` name is imported; the others are help lines."""
    app = typer.Typer(
        name=PROGRAM,
        help="6-DoF object poses from RGB-D: RF-DETR finds, FoundationPose registers and tracks.",
        no_args_is_help=True,
        add_completion=False,
    )
    app.callback()(_root)
    words = [a for a in arguments if not a.startswith("-")]
    for name, entry in COMMANDS.items():
        chosen = words[:1] == [name]
        if isinstance(entry, Command):
            _mount(app, name, entry, chosen)
        else:
            group = typer.Typer(help=GROUP_HELP[name], no_args_is_help=True)
            for sub_name, command in entry.items():
                _mount(group, sub_name, command, chosen and words[1:2] == [sub_name])
            app.add_typer(group, name=name)
    return app


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
    if not chosen:
        app.command(name, help=command.help)(_unloaded)
        return
    loaded = command.load()
    if isinstance(loaded, typer.Typer):
        single = loaded.registered_commands
        if len(single) == 1 and not loaded.registered_groups and loaded.registered_callback is None:
            function = single[0].callback
            if function is None:
                raise ImportError(f"{command.target} registers no function")
            app.command(name, help=single[0].help or command.help)(function)
        else:
            app.add_typer(loaded, name=name, help=command.help)
    else:
        app.command(name, help=loaded.__doc__ or command.help)(loaded)


def _unloaded() -> None:
    raise RuntimeError("only the named sub-command is loaded; this one was not named")


def _explain(arguments: Sequence[str], error: ImportError) -> None:
    missing = error.name or "a module"
    typer.echo(f"{PROGRAM} {' '.join(arguments[:2])}: cannot load: {error}", err=True)
    if not missing.startswith(PACKAGE):
        typer.echo(
            f"Package {missing!r} is missing; `{PROGRAM} doctor` lists what is installed. "
            "ROS: pip install 'rfdetr_foundationpose[ros]', or source your ROS install.",
            err=True,
        )


if __name__ == "__main__":
    main()
