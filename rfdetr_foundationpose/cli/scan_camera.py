"""``object scan --camera``: recordings of the object from the robot's own camera, which are then read as any other."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from ..errors import UserError
from ..interrupts import Interruptible
from ..object_tools.board import Board, BoardFinder
from ..object_tools.scan_pass import SIDES, side_of
from ..replay.recording import RecordingWriter
from ..replay.recording_messages import depth_pixels
from ..ros.camera_frames import CameraFrames
from ..types import Frame
from .console import progress_bar, sayer

REALSENSE = {
    "rgb/image": "/camera/camera/color/image_raw",
    "depth/image": "/camera/camera/aligned_depth_to_color/image_raw",
    "rgb/camera_info": "/camera/camera/color/camera_info",
}
"""Topics of realsense-ros with align_depth.enable, which are read unless others are named."""
RATE = 8.0
"""Frames a second that are kept: more say nothing new about a thing that is walked around."""


def record_passes(
    topics: Mapping[str, str], board: Board, folder: Path, name: str, passes: int, seconds: float, console: Console
) -> list[Path]:
    """One recording for each pass in ``folder``, named after the object and never in the place of another.

    Between two passes it waits for Enter. Ctrl-C ends the pass at hand. Raises NoCamera, UserError.
    """
    say = sayer(console)
    made: list[Path] = []
    with CameraFrames(topics) as camera:
        for number in range(passes):
            if number:
                _ask(console)
            path = _free(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            say(
                f"recording {seconds:g} s from {topics['rgb/image']}: walk round it slowly, low, higher, then from above"
                "; Ctrl-C ends earlier"
            )
            frames = _record(camera, board, path, seconds, f"pass {number + 1}", console)
            say(f"kept {frames} frames in {path}")
            made.append(path)
    return made


def _record(camera: CameraFrames, board: Board, path: Path, seconds: float, what: str, console: Console) -> int:
    finder: BoardFinder | None = None
    writer: RecordingWriter | None = None
    sides: set[int] = set()
    begin, due = 0.0, 0.0
    with progress_bar(console) as progress, Interruptible() as stop:
        task = progress.add_task(what, total=round(seconds))
        try:
            for frame in camera.frames(stop.stop):
                now = time.monotonic()
                if now < due:
                    continue
                due = now + 1 / RATE
                if writer is None or finder is None:
                    begin, finder, writer = now, BoardFinder(board, frame.camera), _writer(path, frame)
                    writer.__enter__()
                    if camera.depth_frame:
                        sayer(console)(
                            f"depth is in frame {camera.depth_frame}, colour in {frame.frame_id}, and is taken for registered to colour; where it "
                            "is not, end with Ctrl-C and name the driver's registered topic (--depth), or see docs/ros.md"
                        )
                writer.write(frame)
                found = finder.find(frame.rgb)
                if found is not None:
                    sides.add(side_of(found.T_cam_board))
                seen = "no board" if found is None else f"{len(sides)} of {SIDES} sides"
                progress.update(task, completed=round(now - begin), description=f"{what}, {seen}")
                if now - begin >= seconds:
                    break
        finally:
            if writer is not None:
                writer.__exit__(None, None, None)
    if writer is None:
        raise UserError("interrupted before the first frame: nothing was recorded")
    return writer.frames


def _writer(path: Path, frame: Frame) -> RecordingWriter:
    # PNG keeps colour and depth in millimetres as they are, in a third of the room; it has no depth in floating point.
    return RecordingWriter(path, compressed="png" if depth_pixels(frame)[1] == "16UC1" else None)


def _free(folder: Path, name: str) -> Path:
    """The first of name-1, name-2, ... that is not there."""
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"


def _ask(console: Console) -> None:
    try:
        console.input("turn the object over, put it on the middle of the board, take the hands away, press Enter: ")
    except EOFError as error:
        raise UserError(
            "--turned-over waits for Enter between the passes, and there is no terminal; record two bags and give both"
        ) from error
