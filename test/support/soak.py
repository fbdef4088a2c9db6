"""A day's shape in minutes: node and camera for long, with what a day brings; memory, threads, files, /dev/shm stay flat.

``make soak``, or: python test/support/soak.py --minutes 30 [--real] [--rate 5]. Every twenty seconds something happens: the
object leaves and returns, the camera is silent, a transition, a reset, broken images, a parameter changes. Prints a row a
minute; exits 1 when something grows, a track does not come back, frames are not accounted for, or the log holds a traceback.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import numpy as np
from std_srvs.srv import Trigger

from support.ros_support import ROOT, Camera, Graph, objects_yaml, process_facts, segments_of, wait_for
from support.storm import DOUBLE, REAL

SIZE = (240, 320)
SETTLED = 0.2
"""Share of the time after which nothing may grow any more."""
LIMITS = {"rss_kib": 20_000, "threads": 0, "files": 2, "shm_bytes": 0}
"""By how much the median of the last fifth may lie above that of the first fifth of the settled time."""
EVENT_SECONDS = 20.0
REAL_OBJECT = "mug"
QUICK = ("pose.register_schedule:='16,8'", "pose.register_iterations:=2", "pose.track_iterations:=1")


@dataclass
class Scene:
    """What the camera sees: ``frames`` (rgb, depth in mm) in turns, or nothing at all."""

    camera: Camera
    frames: list[tuple[np.ndarray, np.ndarray]]
    shown: bool = True
    silent: bool = False
    sent: int = 0

    def publish(self) -> None:
        rgb, depth = self.frames[self.sent % len(self.frames)]
        if not self.shown:
            rgb, depth = np.zeros_like(rgb), np.zeros_like(depth)
        stamp = time.time_ns()
        messages = {
            "rgb": self.camera.message(rgb, "rgb8", stamp),
            "depth": self.camera.message(depth, "16UC1", stamp),
        }
        self.camera.publish(stamp, **messages)
        self.sent += 1


def play(scene: Scene, rate: float, stop: threading.Event) -> None:
    due = time.monotonic()
    while not stop.wait(max(due - time.monotonic(), 0.0)):
        if not scene.silent:
            scene.publish()
        due = max(due + 1 / rate, time.monotonic() - 1 / rate)


def frames_of(real: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """A mug that moves on a table for the real pipeline; for the double any depth is an object."""
    if not real:
        return [(np.full((*SIZE, 3), 100, np.uint8), np.full(SIZE, 1000, np.uint16))]
    from rfdetr_foundationpose.synth.generate import load_scene_objects
    from rfdetr_foundationpose.synth.video import SceneVideo, VideoSettings

    settings = VideoSettings(frames=40, rate=5.0, size=SIZE, seed=3, targets=(REAL_OBJECT,), max_speed=0.1)
    video = SceneVideo(load_scene_objects(None, (REAL_OBJECT,)), settings)
    seen = [video.frame(i)[0] for i in range(len(video))]
    pictures = [(f.rgb, np.asarray(f.depth, np.uint16)) for f in seen]
    return [*pictures, *pictures[-2:0:-1]]  # there and back, so that nothing jumps


def facts(pid: int) -> dict[str, int]:
    held = sum(p.stat().st_size for p in segments_of(pid) if p.exists())
    return {**process_facts(pid), "shm_bytes": held}


class Events:
    """What a day brings, one after the other."""

    def __init__(self, graph: Graph, scene: Scene, patience: float) -> None:
        self._graph, self._scene, self._patience = graph, scene, patience
        self._all = (self.leave, self.silence, self.restart, self.reset, self.broken, self.parameter)
        self.done = 0

    def next(self) -> None:
        event = self._all[self.done % len(self._all)]
        event()
        self.done += 1
        self._graph.poses.clear()
        wait_for(lambda: self._graph.poses, f"a pose after {event.__name__} ({self.done})", self._patience)

    def leave(self) -> None:
        self._scene.shown = False
        time.sleep(4.0)
        self._scene.shown = True

    def silence(self) -> None:
        self._scene.silent = True
        time.sleep(3.0)
        self._scene.silent = False

    def restart(self) -> None:
        assert self._graph.transition("deactivate")
        assert self._graph.transition("activate")

    def reset(self) -> None:
        assert self._graph.call(Trigger, "reset", Trigger.Request()).success

    def broken(self) -> None:
        for name, encoding in (("rgb", "rgb8"), ("depth", "16UC1")):
            stamp = time.time_ns()
            message = self._scene.camera.message(np.zeros((*SIZE, 3), np.uint8), encoding, stamp)
            message.data = message.data[:100]
            self._scene.camera.publish(stamp, **{name: message})

    def parameter(self) -> None:
        value = 0.4 if self.done // len(self._all) % 2 else 0.5
        assert self._graph.set_parameter("detector.threshold", value).successful


def soak(minutes: float, rate: float, real: bool, folder: Path, say: Callable[[str], None]) -> list[str]:
    """What went wrong."""
    namespace = f"/soak{os.getpid()}"
    objects = objects_yaml(folder)
    if real:
        mesh = ROOT / "models" / "demo" / f"{REAL_OBJECT}.glb"
        objects.write_text(f"objects:\n  - {{name: box, label: {REAL_OBJECT}, mesh: {mesh}}}\n")
    scene_frames = frames_of(real)
    graph = Graph(namespace)
    scene = Scene(Camera(graph, SIZE[1], SIZE[0]), scene_frames)
    command = [*(REAL if real else DOUBLE), "--ros-args", "-r", f"__ns:={namespace}"]
    command += ["-r", f"/diagnostics:={namespace}/diagnostics"]
    for parameter in (f"objects_file:={objects}", "device:=cpu", "debug.image:=true", *(QUICK if real else ())):
        command += ["-p", parameter]
    if real:  # a CPU takes longer than a frame's age for one
        command += ["-p", "input.max_age:=0.0"]
    log = folder / "node.log"
    stop = threading.Event()
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=ROOT
        )
    player = threading.Thread(target=play, args=(scene, rate, stop))
    player.start()
    problems = []
    samples: list[tuple[float, dict[str, int]]] = []
    try:
        wait_for(lambda: graph.poses or process.poll() is not None, "the first pose", 600)
        events = Events(graph, scene, 300.0 if real else 60.0)
        begin = time.monotonic()
        length, told, due = minutes * 60, begin, begin + EVENT_SECONDS / 2
        while time.monotonic() - begin < length and process.poll() is None:
            time.sleep(2.0)
            samples.append((time.monotonic() - begin, facts(process.pid)))
            del graph.diagnostics[:-20]
            if time.monotonic() > due:
                events.next()
                due = time.monotonic() + EVENT_SECONDS
            if time.monotonic() - told > 60:
                told = time.monotonic()
                say(row(samples[-1][0], samples[-1][1], scene.sent, events.done, graph.values()))
        values = {k: int(v) for k, v in graph.fresh_values().items() if v.isdigit()}
    finally:
        stop.set()
        player.join()
        held = segments_of(process.pid) if process.poll() is None else []
        process.terminate()
        status = process.wait(30)
        graph.close()
    problems += grown(samples, say)
    counted = values["processed"] + values["in_flight"] + sum(v for k, v in values.items() if k.startswith("dropped_"))
    say(
        f"{scene.sent} frames sent, {values['received']} pairs received, {values['processed']} processed, {events.done} events"
    )
    if values["received"] != counted:
        problems.append(f"{values['received']} frames received, {counted} accounted for")
    if status != 0:
        problems.append(f"the node ended with status {status}")
    if left := [p.name for p in held if p.exists()]:
        problems.append(f"left in shared memory: {', '.join(left)}")
    if "Traceback" in log.read_text():
        problems.append(f"a traceback:\n{log.read_text()[-3000:]}")
    return problems


def row(seconds: float, found: dict[str, int], sent: int, events: int, values: dict[str, str]) -> str:
    return (
        f"{seconds / 60:5.1f} min: {found['rss_kib'] / 1024:.1f} MiB, {found['threads']} threads, {found['files']} files, "
        f"{found['shm_bytes'] / 1e6:.1f} MB of /dev/shm; {sent} sent, {values.get('processed', '?')} processed, {events} events"
    )


def grown(samples: list[tuple[float, dict[str, int]]], say: Callable[[str], None]) -> list[str]:
    """What grew from the first to the last fifth of the settled time."""
    settled = [s for s in samples if s[0] >= SETTLED * samples[-1][0]]
    part = max(len(settled) // 5, 1)
    hours = (settled[-1][0] - settled[0][0]) / 3600
    problems = []
    for name, most in LIMITS.items():
        first, last = (statistics.median(f[name] for _, f in piece) for piece in (settled[:part], settled[-part:]))
        slope = np.polyfit([t / 3600 for t, _ in settled], [f[name] for _, f in settled], 1)[0] if hours else 0.0
        say(f"{name}: {first:.0f} -> {last:.0f} (a line through all: {slope:+.1f} an hour), at most +{most}")
        if last - first > most:
            problems.append(f"{name} grew from {first:.0f} to {last:.0f}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=5.0, help="frames a second")
    parser.add_argument("--real", action="store_true", help="the real pipeline instead of a double")
    given = parser.parse_args()
    say: Any = lambda text: print(text, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        problems = soak(given.minutes, given.rate, given.real, Path(folder), say)
    for problem in problems:
        say(problem)
    say("flat" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
