"""Ctrl-C and SIGTERM for long commands, at random times from the start on: each must end soon, in a word, with 130 or 143.

``python test/support/interrupt_storm.py [--times N] [--seed S]``; prints a row for each command. A signal that comes while
Python itself still starts is Python's, so the first is sent after 0.5 s.
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
from pathlib import Path

PROGRAM = [sys.executable, "-m", "rfdetr_foundationpose.cli.main"]
QUICK = ["--set", "pose.register_schedule=16,8", "--set", "pose.register_iterations=2"]
COMMANDS = {
    "replay": ["replay", "BAG", "--set", "detector.source=mask-topic", *QUICK, "--out", "OUT"],
    "evaluate synth": ["evaluate", "synth", "--scenes", "50", *QUICK, "--out", "OUT"],
    "evaluate pipeline": ["evaluate", "pipeline", "--targets", "mug", *QUICK, "--out", "OUT"],
    "evaluate schedules": ["evaluate", "schedules", "--random-objects", "4", "--schedules", "16-8", "--out", "OUT"],
    "bench": ["bench", "--backends", "eager", "--size", "320x240", "--schedule", "16,8", "--out", "OUT"],
    "generate recording": ["generate", "recording", "--frames", "3000", "--out", "OUT"],
    "generate coco": ["generate", "coco", "--train", "5000", "--out", "OUT"],
    "demo": ["demo", "--frames", "60", "--out", "OUT"],
}
LATEST = 60.0
"""Seconds from the start until the signal at the latest; a loaded machine is at work by then."""
PATIENCE = 60.0
"""Seconds from the signal to the end: one step of the longest kind, a registration on a loaded CPU, takes half of it."""


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
        return "kept" if "kept" in last else "ended", took, last
    return f"exit code {code}", took, last


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--times", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=0)
    asked = arguments.parse_args()
    chance = random.Random(asked.seed)
    bad = 0
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        bag = [*PROGRAM, "generate", "recording", "--frames", "200", "--size", "320x240", "--objects", "mug"]
        subprocess.run([*bag, "--out", str(folder / "bag")], check=True, capture_output=True)
        for name, command in COMMANDS.items():
            results: Counter[str] = Counter()
            longest, lasts = 0.0, []
            for i in range(asked.times):
                out = folder / f"{name.replace(' ', '-')}-{i}"
                words = [{"BAG": str(folder / "bag"), "OUT": str(out)}.get(w, w) for w in command]
                number = chance.choice((signal.SIGINT, signal.SIGINT, signal.SIGTERM))
                result, took, last = one(words, number, chance.uniform(0.5, LATEST), folder, folder / "log")
                results[result] += 1
                longest = max(longest, took)
                lasts.append(last)
                if result == "traceback":
                    print((folder / "log").read_text()[-1500:], flush=True)
            bad += sum(n for result, n in results.items() if result not in ("kept", "ended", "ended before"))
            shown = ", ".join(f"{n} {result}" for result, n in sorted(results.items()))
            kept = next((line for line in lasts if "kept" in line), "")
            print(f"{name}: {shown}; at most {longest:.1f} s; {kept}", flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
