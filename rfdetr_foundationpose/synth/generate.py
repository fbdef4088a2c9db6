"""Generates frames of a synthetic video in several processes, and writes them as a recording."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch

from ..config import ConfigError
from ..interrupts import Watch, before_workers, unblock
from ..objects import load_objects
from ..pose.mesh import ObjectModel, load_object
from ..replay.recording import GroundTruth, RecordingWriter
from ..resources import default_objects_file
from ..types import Frame
from .objects import SynthObject
from .scene import as_model
from .video import SceneVideo, VideoSettings

_video: SceneVideo | None = None
ASK_SECONDS = 0.3
"""How long a frame of other processes is waited for before the user's wish is asked for again."""


def load_scene_objects(objects_file: str | Path | None = None, names: Sequence[str] = ()) -> list[ObjectModel]:
    """Models of an objects.yaml (None: the demo's), or of the named ones in it. Raises ConfigError, MeshError."""
    specs = load_objects(objects_file or default_objects_file())
    known = [s.name for s in specs]
    for name in names:
        if name not in known:
            raise ConfigError(f"object {name!r} is not in the objects file; it has {', '.join(known)}")
    return [load_object(s) for s in specs if not names or s.name in names]


def generate_frames(
    objects: Sequence[SynthObject | ObjectModel],
    settings: VideoSettings,
    *,
    device: str = "cpu",
    processes: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[tuple[Frame, GroundTruth]]:
    """Frames in order, fewer after ``stop``, which is asked while other processes are waited for. processes: None takes up to four of the CPUs we may use; on CUDA frames are rendered in this process."""
    models = [as_model(o) for o in objects]
    if processes is None:
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(4, usable)
    if torch.device(device).type != "cpu" or processes <= 1 or settings.frames < 20:
        video = SceneVideo(models, settings, device)
        for i in range(settings.frames):
            yield video.frame(i)
        return
    # Forked children would inherit torch's and Warp's threads and locks; spawned ones start clean.
    context = multiprocessing.get_context("spawn")
    before_workers()
    with context.Pool(processes, _start_worker, (models, settings)) as pool:
        results = pool.imap(_render, range(settings.frames))
        for _ in range(settings.frames):
            while True:
                try:
                    rendered = results.next(ASK_SECONDS)
                    break
                except multiprocessing.TimeoutError:
                    if stop():
                        return
            yield rendered


def generate_recording(
    path: str | Path,
    objects: Sequence[SynthObject | ObjectModel],
    settings: VideoSettings,
    *,
    device: str = "cpu",
    compressed: str | None = None,
    storage: str = "mcap",
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> int:
    """Write a rosbag2 recording of a video to a new directory; returns the number of frames written, fewer after
    ``watch.stop``. ``watch.advance`` gets frames done and their number."""
    with RecordingWriter(path, compressed=compressed, storage=storage) as writer:
        for frame, truth in generate_frames(objects, settings, device=device, stop=watch.stop):
            writer.write(frame, truth)
            watch.advance(writer.frames, settings.frames)
            if watch.stop():
                break
        return writer.frames


def _start_worker(models: list[ObjectModel], settings: VideoSettings) -> None:
    global _video
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C goes to all; the parent ends its workers
    unblock()
    torch.set_num_threads(1)
    _video = SceneVideo(models, settings)


def _render(index: int) -> tuple[Frame, GroundTruth]:
    assert _video is not None
    return _video.frame(index)
