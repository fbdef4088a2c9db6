"""Signals at random times: starts the node again and again, ends each run by SIGINT or SIGTERM, and says how it ended.

``make storm``, or: python test/support/storm.py --runs 200 [--loaded] [--real]. A run is right when it ends
within 3 s or names what it leaves, with status 0, 130 or 143, without a traceback and with nothing in shared memory.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.ros_support import ROOT, Camera, Graph, objects_yaml, segments_of

LIMIT = 3.0
# What the log says when a stage has begun; the first import says nothing.
STAGES = ("", "is not installed", "configuring", "active")
STATUSES = {0, 130, 143, -signal.SIGINT, -signal.SIGTERM}
DOUBLE = [sys.executable, str(ROOT / "test" / "support" / "ros_double_start.py")]
REAL = [sys.executable, "-m", "rfdetr_foundationpose.ros.main"]


@dataclass(frozen=True)
class Ended:
    """One run. after, took: seconds from the node's first import to the signal, and from there to the end."""

    after: float
    signals: tuple[int, ...]
    took: float
    status: int | None
    left: tuple[Path, ...]
    log: str

    @property
    def fault(self) -> str:
        """What is wrong with it; empty when nothing is."""
        if self.status is None:
            return "did not end"
        if self.status not in STATUSES:
            return f"status {self.status}"
        if "Traceback" in self.log or "terminate called" in self.log:
            return "traceback"
        if self.left:
            return f"left {', '.join(p.name for p in self.left)}"
        if self.took > LIMIT and "left behind" not in self.log:
            return f"took {self.took:.1f} s"
        return ""

    @property
    def stage(self) -> str:
        """How far the node was."""
        return next(stage or "importing" for stage in reversed(STAGES) if stage in self.log)


def storm(folder: Path, runs: int, seed: int, command: list[str]) -> list[Ended]:
    """``runs`` nodes, each ended at a random time after a random stage: the first import, the node, configure, active."""
    random_ = random.Random(seed)
    namespace = f"/storm{os.getpid()}"
    objects = objects_yaml(folder)
    graph = Graph(namespace)
    camera = Camera(graph)
    arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"/diagnostics:={namespace}/diagnostics"]
    arguments += ["-p", f"objects_file:={objects}", "-p", "device:=cpu", "-p", "input.max_age:=0.0"]
    if command == REAL:
        arguments += ["-p", "detector.source:=mask-topic"]  # the shipped detector knows no box
    try:
        return [_run(folder / f"{i}.log", [*command, *arguments], camera, random_) for i in range(runs)]
    finally:
        graph.close()


def _run(log: Path, command: list[str], camera: Camera, random_: random.Random) -> Ended:
    stage = random_.choice(STAGES)
    after = random_.uniform(0.0, 4.0 if stage == STAGES[0] else 1.5)
    signals = [random_.choice((signal.SIGINT, signal.SIGTERM))]
    second = random_.uniform(0.0, 1.5) if random_.random() < 0.2 else None
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    while process.poll() is None and not _blocked(process.pid):
        time.sleep(0.002)
    begin = time.monotonic()
    held: set[Path] = set()
    due: float | None = None
    while process.poll() is None and (due is None or time.monotonic() < due):
        if due is None and stage in log.read_text():
            due = time.monotonic() + after
        camera.publish()
        time.sleep(0.02)
    held.update(_held(process.pid))
    sent = time.monotonic()
    process.send_signal(signals[0])
    while process.poll() is None and time.monotonic() - sent < 20:
        held.update(_held(process.pid))
        if second is not None and time.monotonic() - sent > second:
            signals.append(signals[0])
            process.send_signal(signals[0])
            second = None
        time.sleep(0.005)
    took = time.monotonic() - sent
    status = process.poll()
    if status is None:
        process.kill()
        process.wait()
    return Ended(
        sent - begin, tuple(signals), took, status, tuple(p for p in sorted(held) if p.exists()), log.read_text()
    )


def _held(pid: int) -> list[Path]:
    try:
        return segments_of(pid)
    except OSError:  # it has just ended
        return []


def _blocked(pid: int) -> bool:
    """Whether the node is past Python's own start: it waits for SIGINT instead of having a handler."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True
    mask = next((line.split()[1] for line in status.splitlines() if line.startswith("SigBlk:")), "0")
    return bool(int(mask, 16) >> (signal.SIGINT - 1) & 1)


@contextmanager
def busy(number: int):
    """So many processes that compute, so that the node has to wait for a core."""
    with ExitStack() as stack:
        for _ in range(number):
            burner = subprocess.Popen([sys.executable, "-S", "-c", "while True: sum(range(10000))"])
            stack.callback(burner.wait)
            stack.callback(burner.kill)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loaded", action="store_true", help="with two computing processes for each core")
    parser.add_argument("--real", action="store_true", help="the real pipeline instead of a double")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, busy(2 * (os.cpu_count() or 1) if given.loaded else 0):
        ended = storm(Path(folder), given.runs, given.seed, REAL if given.real else DOUBLE)
    for run in ended:
        if run.fault:
            print(f"{run.fault}: {run.signals} after {run.after:.2f} s\n{run.log}")
    times = sorted(r.took for r in ended)
    print("stages:", dict(Counter(r.stage for r in ended)))
    print("statuses:", dict(Counter(str(r.status) for r in ended)))
    print("said what it left:", sum("left behind" in r.log for r in ended))
    print(
        f"seconds to the end: p50 {times[len(times) // 2]:.2f}, p95 {times[int(len(times) * 0.95)]:.2f}, max {times[-1]:.2f}"
    )
    faults = sum(bool(r.fault) for r in ended)
    print(f"{len(ended) - faults} of {len(ended)} runs ended as they should")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
