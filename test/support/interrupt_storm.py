"""Ctrl-C and SIGTERM for long commands, at random times from the start on: each must end soon, in a word, with 130 or 143.

``python test/support/interrupt_storm.py [--times N] [--seed S] [--only COMMANDS]``; prints a row for each command. What it
started may not outlive it. A signal that comes while Python itself still starts is Python's, so the first is sent after 0.5 s.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

PROGRAM = [sys.executable, "-m", "rfdetr_foundationpose.cli.main"]
QUICK = ["--set", "pose.register_schedule=16,8", "--set", "pose.register_iterations=2"]
COMMANDS = {
    "replay": ["replay", "BAG", "--set", "detector.source=mask-topic", *QUICK, "--out", "OUT"],
    "replay --ros": ["replay", "BAG", "--ros", "--set", "detector.source=mask-topic", *QUICK, "--out", "OUT"],
    "evaluate synth": ["evaluate", "synth", "--scenes", "50", *QUICK, "--out", "OUT"],
    "evaluate bop": ["evaluate", "bop", "BOP", *QUICK, "--out", "OUT"],
    "evaluate detector": ["evaluate", "detector", "--targets", "mug", "--out", "OUT"],
    "evaluate pipeline": ["evaluate", "pipeline", "--targets", "mug", *QUICK, "--out", "OUT"],
    "evaluate schedules": ["evaluate", "schedules", "--random-objects", "4", "--schedules", "16-8", "--out", "OUT"],
    "calibrate": ["calibrate", "--out", "OUT"],
    "bench": ["bench", "--backends", "eager", "--size", "320x240", "--schedule", "16,8", "--out", "OUT"],
    "bench networks": ["bench", "networks", "--backends", "eager,traced", "--batches", "1,2,16", "--out", "OUT"],
    "bench node": ["bench", "node", "--rates", "2,3", "--seconds", "5", "--size", "320x240", "--frames", "10",
                   *QUICK, "--out", "OUT"],
    "validate pose": ["validate", "pose", "--synth", "200", "--size", "320x240", "--backend", "traced", *QUICK,
                      "--json", "OUT.json"],
    "validate detector": ["validate", "detector", "--images", "200", "--json", "OUT.json"],
    "export": ["export", "--out", "OUT"],
    "train refiner": ["train", "refiner", "--device", "cpu", "--width", "0.125", "--batch", "16", "--random-objects",
                      "16", "--workers", "1", "--out", "OUT"],
    "train scorer": ["train", "scorer", "--device", "cpu", "--width", "0.125", "--batch", "16", "--hypotheses", "8",
                     "--random-objects", "16", "--workers", "1", "--refiner", "none", "--out", "OUT"],
    "train detector": ["train", "detector", "--batch", "2", "--groups", "1", "--pool", "16", "--out", "OUT"],
    "generate recording": ["generate", "recording", "--frames", "3000", "--out", "OUT"],
    "generate scan": ["generate", "scan", "--object", "mug", "--frames", "2000", "--out", "OUT"],
    "generate bop": ["generate", "bop", "--frames", "3000", "--out", "OUT"],
    "generate coco": ["generate", "coco", "--train", "5000", "--out", "OUT"],
    "object add": ["object", "add", "MESH", "--objects-file", "OUT.yaml"],
    "object scan": ["object", "scan", "SCAN", "--name", "thing", "--objects-file", "OUT.yaml"],
    "doctor": ["doctor"],
    "demo": ["demo", "--frames", "60", "--out", "OUT"],
}  # fmt: skip
NOT_HERE = ("evaluate ycbv", "bench overlap", "build-engines", "generate objects", "object board")
"""Needs real frames; needs a GPU; a GPU's library; done in a moment."""
LATEST = 60.0
"""Seconds from the start until the signal at the latest; a loaded machine is at work by then."""
PATIENCE = 60.0
"""Seconds from the signal to the end: one step of the longest kind, a registration on a loaded CPU, takes half of it."""


GOOD = ("kept", "ended", "ended before")


def inputs(folder: Path, wanted: list[str]) -> dict[str, str]:
    """What the commands read, made where it is wanted."""
    small = ["--size", "320x240", "--objects", "mug"]
    made = {
        "BAG": ["generate", "recording", "--frames", "200", *small],
        "BOP": ["generate", "bop", "--frames", "100", *small],
        "SCAN": ["generate", "scan", "--object", "mug", "--frames", "60", "--size", "320x240"],
    }
    for name, command in made.items():
        if any(name in COMMANDS[w] for w in wanted):
            subprocess.run([*PROGRAM, *command, "--out", str(folder / name)], check=True, capture_output=True)
    mesh = Path(__file__).resolve().parents[2] / "models" / "demo" / "drill.glb"
    return {name: str(folder / name) for name in made} | {"MESH": str(mesh)}


def children_left() -> int:
    """Processes of the run that outlive it by two seconds: this process takes them in (subreaper)."""
    end = time.monotonic() + 2.0
    while True:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return 0
        mine = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not mine or time.monotonic() > end:
            for pid in mine:
                with suppress(OSError):
                    print(f"  left: {Path(f'/proc/{pid}/cmdline').read_text()[:300]!r}", flush=True)
                    os.kill(int(pid), signal.SIGKILL)
            return len(mine)
        time.sleep(0.05)


def one(command: list[str], number: int, after: float, folder: Path, log: Path) -> tuple[str, float, str]:
    """What came of it, seconds to the end, and the last line said."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [*PROGRAM, *command], stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=folder
        )
        try:
            process.wait(after)
            return "ended before", 0.0, ""
        except subprocess.TimeoutExpired:
            pass
        begin = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does: to the children too
        else:
            process.send_signal(number)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return "hang", PATIENCE, ""
    took = time.monotonic() - begin
    text = log.read_text(errors="replace")
    last = text.strip().splitlines()[-1] if text.strip() else ""
    if "Traceback" in text:
        return "traceback", took, last
    if code in (128 + number, -number):
        return "kept" if "kept" in text.rpartition("interrupted")[2] else "ended", took, last
    return f"exit code {code}", took, last


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", default="", help="commands, separated by commas")
    arguments.add_argument("--earliest", type=float, default=0.5, help="seconds from the start to the signal")
    arguments.add_argument("--latest", type=float, default=LATEST)
    arguments.add_argument("--verbose", action="store_true", help="the end of every run's output")
    asked = arguments.parse_args()
    wanted = [name.strip() for name in asked.only.split(",")] if asked.only else list(COMMANDS)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
    chance = random.Random(asked.seed)
    bad = 0
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what outlives a run becomes this process's child
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        known = inputs(folder, wanted)
        for name in wanted:
            results: Counter[str] = Counter()
            longest, lasts = 0.0, []
            for i in range(asked.times):
                out = folder / f"{name.replace(' ', '-')}-{i}"
                words = [known.get(w, w).replace("OUT", str(out)) for w in COMMANDS[name]]
                number = chance.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM))
                after = chance.uniform(asked.earliest, asked.latest)
                result, took, last = one(words, number, after, folder, folder / "log")
                left = children_left()
                if left:
                    result = f"{result}, left {left}"
                results[result] += 1
                longest = max(longest, took)
                lasts.append(last)
                if asked.verbose or result not in GOOD:
                    print(f"  {name}: {number.name} after {after:.1f} s: {result}, {took:.1f} s", flush=True)
                    print((folder / "log").read_text()[-1500:], flush=True)
            bad += sum(n for result, n in results.items() if result not in GOOD)
            shown = ", ".join(f"{n} {result}" for result, n in sorted(results.items()))
            kept = next((line for line in lasts if "kept" in line), "")
            print(f"{name}: {shown}; at most {longest:.1f} s; {kept}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
