"""Runs camera, node and listeners, waits until every object has a pose, measures for a while, and sums up."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..interrupts import unblocked
from ..replay.metrics import percentiles
from ..replay.node_process import NodeProcess, local_domain
from ..ros.signals import PARENT
from .camera import StoredFrames
from .parts import PARTS, POINTS
from .variants import VARIANTS

logger = logging.getLogger(__name__)

SETTLE = 2.0
"""So many seconds pass between the last object's first pose and the first measured frame, and between the last one and the end."""
PACKAGE = "rfdetr_foundationpose.node_bench"


@dataclass(frozen=True)
class NodeRun:
    """style: "ours" or "naive". without: a name of VARIANTS. rate: frames a second. seconds: that are measured.

    instances: pose topics that should come. slow_viewer: seconds that a subscriber of the debug image sleeps on every picture.
    """

    style: str = "ours"
    without: str = ""
    rate: float = 30.0
    seconds: float = 20.0
    instances: tuple[str, ...] = ()
    slow_viewer: float = 0.0
    patience: float = 180.0

    @property
    def name(self) -> str:
        return f"{self.style}{', without ' + self.without if self.without else ''}, {self.rate:g} Hz"


def run_node(run: NodeRun, frames: Path, settings: Mapping[str, Any], folder: Path, domain: int) -> dict[str, Any]:
    """One row of the table. frames: what StoredFrames wrote. Raises NodeDied, and UserError when no object gets a pose."""
    folder.mkdir(parents=True, exist_ok=True)
    trace, moving = folder / "trace.json", folder / "moving"
    for left in (trace, moving):
        left.unlink(missing_ok=True)
    settings = dict(settings) | (dict(VARIANTS[run.without].settings) if run.without else {})
    module = "traced" if run.style == "ours" else "naive_node"
    command = [sys.executable, "-m", f"{PACKAGE}.{module}"]
    if run.style == "ours":
        command += [str(trace), *(["--without", run.without] if run.without else [])]
    topics = [f"/pose_node/pose/{name}" for name in run.instances]
    with ExitStack() as stack:
        node = stack.enter_context(NodeProcess(settings, folder / "node.log", domain, command))
        helpers = _start_helpers(run, frames, folder, moving, domain, topics)
        stack.callback(_stop, helpers)
        found = _wait_for_poses(folder / "poses.seen", len(topics), node, run.patience)
        if not found:
            raise UserError(
                f"bench node: {run.name}: no pose within {run.patience:g} s; the node's log:\n{node.tail()}"
            )
        logger.info(f"{run.name}: {found} of {len(topics)} objects have poses; measuring {run.seconds:g} s")
        moving.touch()
        time.sleep(SETTLE)
        pids = {"node": node.pid, **{name: process.pid for name, process in helpers.items()}}
        before, begin = {name: usage(pid) for name, pid in pids.items()}, time.time_ns()
        time.sleep(run.seconds)
        end = time.time_ns()
        used = {name: [b - a for a, b in zip(before[name], usage(pid), strict=True)] for name, pid in pids.items()}
        time.sleep(SETTLE)  # poses of the last measured frames are still on their way
        node.check()
        _stop(helpers)
        node.stop()
    return {
        "run": run.name,
        "objects": len(topics),
        "objects_found": found,
        "cpu_cores": {name: seconds / run.seconds for name, (seconds, _) in used.items()},
        "page_faults_per_frame": {name: faults / (run.seconds * run.rate) for name, (_, faults) in used.items()},
        **summarize(folder, begin, end),
    }


def _start_helpers(
    run: NodeRun, frames: Path, folder: Path, moving: Path, domain: int, topics: Sequence[str]
) -> dict[str, subprocess.Popen[bytes]]:
    """The processes around the node, by what they are called in the results."""
    image, viewed = ("--kind", "image", "--depth", "1", "--topic"), "/pose_node/debug_image"
    sent = ("--frames", str(frames), "--rate", str(run.rate), "--moving", str(moving))
    return {
        "pose listener": _start("listener", folder / "poses.json", domain, "--kind", "pose", *_topics(topics)),
        "image listener": _start("listener", folder / "images.json", domain, *image, "rgb/image"),
        "viewer": _start("listener", folder / "debug.json", domain, *image, viewed, "--sleep", str(run.slow_viewer)),
        "camera": _start("camera", folder / "sent.json", domain, *sent),
    }


def summarize(folder: Path, begin: int, end: int) -> dict[str, Any]:
    """Ages of poses, where they come from, and what was dropped, of frames stamped between two times (ns)."""
    poses: dict[str, list[list[int]]] = json.loads((folder / "poses.json").read_text())
    images = json.loads((folder / "images.json").read_text())["rgb/image"]
    stamps = [s for s in json.loads((folder / "sent.json").read_text())["stamps"] if begin <= s < end]
    # Of a frame with several objects, the last pose counts.
    arrived: dict[int, int] = {}
    for found in poses.values():
        for stamp, received in found:
            arrived[stamp] = max(arrived.get(stamp, 0), received)
    ages = [(arrived[s] - s) / 1e6 for s in stamps if s in arrived]
    tree: dict[str, Any] = {
        "frames": len(stamps),
        "frames_with_pose": len(ages),
        "dropped": len(stamps) - len(ages),
        "stamp_to_pose_ms": percentiles(ages, POINTS),
        "image_age_at_empty_subscriber_ms": percentiles(
            [(received - stamp) / 1e6 for stamp, received in images if begin <= stamp < end], POINTS
        ),
    }
    trace = folder / "trace.json"
    if trace.is_file():
        traced = json.loads(trace.read_text())
        tree["parts_ms"] = _parts(traced["rows"], arrived, set(stamps))
        tree["processing_ms"] = _processing(traced["host"], traced["host_columns"][1:], set(stamps))
        tree["early_upload_ms"] = percentiles(
            [(e - b) / 1e6 for stamp, b, e in traced["early"] if begin <= stamp < end], POINTS
        )
        tree["stages_ms"] = {name: s["p50"] for name, s in traced["stages"].items()}
        tree["gpu_memory_mb"] = traced["gpu_memory_bytes"] / 1e6
    return tree


def _parts(rows: Sequence[Sequence[int]], arrived: Mapping[int, int], stamps: set[int]) -> dict[str, Any]:
    times = np.array([[*row, arrived[row[0]]] for row in rows if row[0] in stamps and row[0] in arrived], np.int64)
    if len(times) == 0:
        return {}
    steps = np.diff(times, axis=1) / 1e6
    return {name: percentiles(steps[:, i].tolist(), POINTS) for i, name in enumerate(PARTS)}


def _processing(rows: Sequence[Sequence[int]], names: Sequence[str], stamps: set[int]) -> dict[str, Any]:
    """Where the host's time of a frame's processing goes."""
    times = np.array([row[1:] for row in rows if row[0] in stamps], np.int64).reshape(-1, len(names)) / 1e6
    if len(times) == 0:
        return {}
    return {name: percentiles(times[:, i].tolist(), POINTS) for i, name in enumerate(names)}


def usage(pid: int) -> tuple[float, int]:
    """User and system time of a process so far, s, and its page faults that needed no disk; 0 where the kernel does not tell.

    Each such fault is a page of memory that was given back after one image and is cleared for the next.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0, 0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK")), int(fields[7])


def store_frames(frames: Sequence[Any], folder: Path) -> None:
    """Frames (of one size, uint16 depth in mm) for the camera process."""
    rgb, depth = np.stack([f.rgb for f in frames]), np.stack([f.depth for f in frames])
    StoredFrames(rgb, depth, frames[0].camera).save(folder)


def _topics(topics: Sequence[str]) -> list[str]:
    return [word for topic in topics for word in ("--topic", topic)]


def _start(module: str, out: Path, domain: int, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **local_domain(domain), "PYTHONUNBUFFERED": "1", PARENT: str(os.getpid())}
    for left in (out, out.with_suffix(".seen")):  # of an earlier run into this folder
        left.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"{PACKAGE}.{module}", "--out", str(out), *arguments]
    with unblocked():
        return subprocess.Popen(command, env=environment, start_new_session=True)


def _stop(helpers: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for process in helpers.values():
        if process.poll() is None:
            process.terminate()
    for process in helpers.values():
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_for_poses(seen: Path, wanted: int, node: NodeProcess, patience: float) -> int:
    """How many pose topics have spoken, once all have, or once no further one has for half of ``patience``."""
    deadline, found = time.monotonic() + patience, 0
    while time.monotonic() < deadline and found < wanted:
        time.sleep(0.2)
        node.check()
        now = len(seen.read_text().splitlines()) if seen.is_file() else 0
        if now > found:
            found, deadline = now, time.monotonic() + patience / 2
    return found
