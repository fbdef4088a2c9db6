"""``generate scan``: a recording for ``object scan``, for those who want to try it before they print the board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..interrupts import Interruptible
from .console import kept, open_console, progress_bar, sayer
from .object_board import Sheet
from .options import Device, ObjectsFile, Seed, Size, parse_size
from .outputs import fresh


def scan(
    object: Annotated[str, typer.Option(help="Name of the object in the objects file.")],
    out: Annotated[Path, typer.Option(help="Folder to write, which must not be there yet.")] = Path("out/scan"),
    objects_file: ObjectsFile = None,
    sheet: Annotated[Sheet, typer.Option("--board", help="The sheet that it stands on.")] = Sheet.A4,
    frames: Annotated[int, typer.Option(min=2, help="Number of frames, over half a minute.")] = 240,
    pose: Annotated[
        int,
        typer.Option(min=0, max=50, help="How it stands: 0, as things come to rest most often, 1, the next way, ..."),
    ] = 0,
    size: Size = "640x480",
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """A rosbag2 recording of one object on the printed board, walked around with a camera; ground truth included."""
    from ..device import resolve_device
    from ..object_tools.board import BOARDS
    from ..process import prepare_process
    from ..replay.recording import RecordingWriter
    from ..synth.generate import load_scene_objects
    from ..synth.scan_video import ScanSettings, ScanVideo

    (model,) = load_scene_objects(objects_file, (object,))
    board = BOARDS[sheet.value]
    settings = ScanSettings(frames=frames, rate=frames / 30, size=parse_size(size), seed=seed, pose=pose)
    place = str(prepare_process(resolve_device(device)))
    video = ScanVideo(model, (board.picture(4), board.size), settings, place)
    fresh(out, absent=True)
    console = open_console()
    say = sayer(console)
    with progress_bar(console) as progress, RecordingWriter(out) as writer, Interruptible() as stop:
        task = progress.add_task("scan", total=frames)
        for i in range(frames):
            writer.write(*video.frame(i))
            progress.update(task, completed=i + 1)
            if stop.requested:
                break
    kept(stop, writer.frames, frames, "frames", out)
    say(f"wrote {frames} frames to {out}")
