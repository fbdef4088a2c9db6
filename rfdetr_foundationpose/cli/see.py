"""``--mcap`` and ``--rerun``: a run for the viewers that people have."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..objects import ObjectSpec
    from ..replay.sinks import Sink


class Rerun(str, Enum):
    SAVE = "save"
    VIEW = "view"


WriteMcap = Annotated[
    bool, typer.Option("--mcap", help="Also write run.mcap: input, poses, TF, meshes, latencies, debug images.")
]
ShowRerun = Annotated[
    Rerun | None,
    typer.Option("--rerun", help="save: also write run.rrd; view: open the rerun viewer. Needs the extra 'rerun'."),
]


SINK_FILES = ("run.mcap", "run.rrd")


def open_sinks(out: Path, specs: Sequence[ObjectSpec], mcap: bool, rerun: Rerun | None, title: str) -> list[Sink]:
    """What was asked for, open for the frames of the run. Raises UserError where rerun is asked for and not installed."""
    sinks: list[Sink] = []
    out.mkdir(parents=True, exist_ok=True)
    if rerun is not None:
        from ..replay.rerun_sink import RerunSink

        sinks.append(RerunSink(out / "run.rrd" if rerun is Rerun.SAVE else None, specs, title))
    if mcap:
        from ..replay.mcap_sink import McapSink

        sinks.append(McapSink(out / "run.mcap", specs))
    return sinks


def sink_files(out: Path, mcap: bool, rerun: Rerun | None) -> list[Path]:
    """What ``open_sinks`` makes."""
    return [*([out / "run.mcap"] if mcap else []), *([out / "run.rrd"] if rerun is Rerun.SAVE else [])]
