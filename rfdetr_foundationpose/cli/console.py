"""What commands print: sentences, progress, figures, and the end of an evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..resources import PACKAGE
from .outputs import Outputs

if TYPE_CHECKING:
    from ..interrupts import CutShort, Interruptible
    from ..synth.textures import Picture

logger = logging.getLogger(__name__)

CONTACT_SHEET = "contact_sheet.png"


class _LogPrinter(logging.Handler):
    """Prints what the package logs as sentences, each once; warnings in yellow."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self._console = console
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        sentence = record.getMessage()
        if sentence in self._said:  # a mesh is loaded for the pipeline, the judge and the pictures
            return
        self._said.add(sentence)
        style = "yellow" if record.levelno >= logging.WARNING else None
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True, style=style)


def open_console() -> Console:
    """A console on stdout, which from now on also shows what the package logs, from INFO up."""
    console = Console()
    logger = logging.getLogger(PACKAGE)
    for handler in [h for h in logger.handlers if isinstance(h, _LogPrinter)]:
        logger.removeHandler(handler)
    logger.addHandler(_LogPrinter(console))
    logger.setLevel(logging.INFO)
    return console


def sayer(console: Console) -> Callable[[str], None]:
    """Prints a sentence as it is: nothing in it is markup, and its lines are not broken."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    return say


def progress_bar(console: Console, *, transient: bool = False) -> Progress:
    """Bars of tasks, with how many of how many are done and the time that it took."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=transient)


def bar_after(progress: Progress, waiting: str, working: str, total: int | None) -> Callable[[int], None]:
    """A bar that first shows how long something takes of which nobody knows how far it is, ``waiting``, and from the first
    call on, with how many are done, ``working``."""
    wait = progress.add_task(waiting, total=None)
    task = progress.add_task(working, total=total, visible=False)

    def advance(done: int) -> None:
        progress.update(wait, total=1, completed=1)
        if not progress.tasks[task].visible:
            progress.reset(task, visible=True)
        progress.update(task, completed=done)

    return advance


def drawing_bar(progress: Progress, total: int) -> Callable[[int], None]:
    """A bar for pictures of frames; what it returns gets the number of those drawn."""
    task = progress.add_task("draw", total=total)
    return lambda done: progress.update(task, completed=done)


def kept(stop: Interruptible | CutShort, done: int, total: int | None, what: str, path: Path) -> None:
    """After an interrupt: say what was kept, and end with its exit code. Does nothing without one."""
    if stop.requested:
        of = "" if total is None else f" of {total}"
        logger.info(f"interrupted: kept {done}{of} {what} in {path}")
        raise typer.Exit(stop.status)


def on_what(what: str) -> str:
    """Where a false detection or pose lies: "" on nothing, "part" on a part of an object of its own kind."""
    return {"": "", "part": " on a part of one"}.get(what, f" on {what}")


def verdict(figures: dict[str, Any], min_recall: float | None, max_false_tracks: int | None) -> list[str]:
    """What is not as it was asked to be."""
    problems = []
    recall, tracks = figures["all"]["recall"], len(figures["false_tracks"])
    if figures["all"]["instances"] == 0:
        problems.append("no instance was to be found, so nothing was measured")
    elif min_recall is not None and recall < min_recall:
        problems.append(f"recall {recall:.3f} is below {min_recall}")
    if max_false_tracks is not None and tracks > max_false_tracks:
        problems.append(f"{tracks} false tracks, at most {max_false_tracks} were asked for")
    return problems


def conclude(
    console: Console,
    figures: dict[str, Any],
    outputs: Outputs,
    pictures: Sequence[tuple[Picture, str]],
    legend: str,
    problems: Sequence[str],
) -> NoReturn:
    """Write the figures and, where there are pictures, their contact sheet; exit with 1 when there are problems.

    pictures: with their captions. legend: what their colours mean.
    """
    from ..replay.report import contact_sheet

    assert outputs.folder is not None
    say = sayer(console)
    say(f"written: {outputs.write(figures)}")
    if pictures:
        sheet = outputs.folder / CONTACT_SHEET
        contact_sheet(sheet, [p for p, _ in pictures], [caption for _, caption in pictures])
        say(f"{legend}: {sheet}")
    for problem in problems:
        console.print(problem, markup=False, style="red")
    raise typer.Exit(1 if problems else 0)
