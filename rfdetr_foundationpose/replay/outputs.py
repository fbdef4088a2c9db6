"""The files that a run leaves behind: poses.csv, result.json, plots, contact sheet, video, page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..objects import ObjectSpec
from ..overlay import OverlayModel, draw_overlay
from ..types import Frame, ObjectPose, TrackState
from .judge import instance_names
from .metrics import ObjectGeometry
from .page import write_page
from .playback import Playback
from .recording import Recording
from .report import contact_sheet, plot_errors, plot_latency
from .result import Comparison, PoseSample, RunOutcome, write_json, write_poses_csv
from .sinks import DrawnFrame, Sink
from .video import VideoWriter

OUTPUT_FILES = (
    *("result.json", "poses.csv", "report.html", "contact_sheet.jpg", "errors.png", "latency.png", "overlay.webm"),
)
"""``write_outputs`` writes these files and no others."""
# A contact sheet shows this many frames.
SHEET_TILES = 12


def write_outputs(
    out: Path,
    outcome: RunOutcome,
    playback: Playback,
    *,
    title: str,
    rows: Sequence[Comparison] = (),
    advance: Callable[[int], None] = lambda done: None,
    sinks: Sequence[Sink] = (),
) -> list[Path]:
    """Write everything into ``out``; returns the files, most telling first. ``advance`` gets the frames drawn.

    playback: what was run. rows: comparison with a stored result. sinks: also get the frames, and are finished.
    """
    result, samples = outcome.result, outcome.samples
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "result.json", result)
    write_poses_csv(out / "poses.csv", samples)
    plot_errors(out / "errors.png", samples, _diameters(playback.specs, samples))
    plot_latency(out / "latency.png", outcome.series)
    files = [out / "errors.png", out / "latency.png"]
    pictures, first = _pictures(out, samples, playback, advance, sinks)
    for sink in sinks:
        sink.finish(outcome.series, outcome.stamp_of or (lambda seconds: first + round(seconds * 1e9)))
    files = pictures + files
    write_page(out / "report.html", title, result, samples, files, rows)
    return [*files, out / "report.html", out / "poses.csv", out / "result.json"]


def _diameters(specs: Sequence[ObjectSpec], samples: Sequence[PoseSample]) -> dict[str, float]:
    """Diameters by pose name, of the objects that were seen."""
    names = instance_names(specs)
    seen = {s.object for s in samples}
    by_object = {s.name: ObjectGeometry.from_spec(s).diameter for s in specs if s.name in {names.get(n) for n in seen}}
    return {name: by_object[object] for name, object in names.items() if name in seen}


def _pictures(
    out: Path,
    samples: Sequence[PoseSample],
    playback: Playback,
    advance: Callable[[int], None],
    sinks: Sequence[Sink],
) -> tuple[list[Path], int]:
    """Files, and the stamp of the first frame."""
    models = {s.name: OverlayModel.load(s) for s in playback.specs}
    names = instance_names(playback.specs)
    by_frame: dict[int, list[PoseSample]] = {}
    for sample in samples:
        by_frame.setdefault(sample.frame, []).append(sample)
    answered = sorted(by_frame)
    chosen = {answered[round(i)] for i in np.linspace(0, len(answered) - 1, SHEET_TILES)} if answered else set()
    tiles: list[NDArray[np.uint8]] = []
    captions: list[str] = []
    first = 0
    with VideoWriter(out / "overlay.webm", _fps(playback.recording)) as video:
        for index, (frame, _) in enumerate(islice(playback.recording, playback.frames)):
            first = first or frame.stamp_ns
            found = by_frame.get(index, [])
            picture = _draw(frame, found, models, names)
            video.add(picture)
            for sink in sinks:
                sink.add(DrawnFrame(index, frame, found, picture))
            if index in chosen:
                tiles.append(picture)
                captions.append(_caption(index, found))
            advance(index + 1)
    files = [out / "overlay.webm"]
    if tiles:
        contact_sheet(out / "contact_sheet.jpg", tiles, captions)
        files.append(out / "contact_sheet.jpg")
    return files, first


def _fps(recording: Recording) -> float:
    stamps: list[int] = []
    for frame, _ in recording:
        stamps.append(frame.stamp_ns)
        if len(stamps) == 2:
            break
    if len(stamps) < 2 or stamps[1] <= stamps[0]:
        return 30.0
    return float(np.clip(1e9 / (stamps[1] - stamps[0]), 1.0, 120.0))


def _draw(
    frame: Frame, samples: Sequence[PoseSample], models: Mapping[str, OverlayModel], names: Mapping[str, str]
) -> NDArray[np.uint8]:
    poses = [
        ObjectPose(
            object=names[s.object],
            instance_id=0 if s.object == names[s.object] else int(s.object.rsplit("_", 1)[1]),
            T_cam_obj=s.T_cam_obj,
            confidence=float("nan") if s.confidence is None else s.confidence,
            visibility=float("nan"),
            state=TrackState.TRACKING,
            stamp_ns=s.stamp_ns,
            frame_id=frame.frame_id,
        )
        for s in samples
    ]
    text = [_error(s) for s in samples if s.error is not None] if samples else ["no pose for this frame"]
    return draw_overlay(frame.rgb, frame.camera, poses, models, text=text)


def _error(sample: PoseSample) -> str:
    assert sample.error is not None
    return f"{sample.object}: {sample.error.translation_mm:.1f} mm {sample.error.rotation_deg:.1f} deg"


def _caption(index: int, samples: Sequence[PoseSample]) -> str:
    worst = max((s.error.adds_mm for s in samples if s.error is not None), default=None)
    judged = "" if worst is None else f", worst ADD-S {worst:.1f} mm"
    return f"frame {index}, {samples[0].seconds:.2f} s, {len(samples)} poses{judged}"
