"""The short form of ``make storm``, and the moment that a storm seldom meets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from support.ros_support import PATIENCE, ROOT, objects_yaml, on_idle
from support.storm import DOUBLE, LIMIT, storm

pytestmark = pytest.mark.timeout(900)


def test_signals_at_random_times_end_the_node_in_order(tmp_path):
    ended = storm(tmp_path, 4, seed=3, command=DOUBLE)
    busy = [run for run in ended if run.fault.startswith("took") and run.took < on_idle(LIMIT)]
    assert [f"{run.fault}\n{run.log}" for run in ended if run.fault and run not in busy] == []


@pytest.mark.parametrize(("where", "line"), [("build", "loading weights"), ("collect", "no camera_info yet")])
def test_a_transition_that_comes_back_while_the_process_ends_touches_nothing(tmp_path, where, line):
    log = tmp_path / "log"
    arguments = ["--ros-args", "-r", f"__ns:=/end{os.getpid()}", "-p", f"objects_file:={objects_yaml(tmp_path)}"]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "test" / "support" / "ros_slow_end.py"), where, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "test"), str(ROOT)])},
        )
    try:
        while line not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        status = process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
    said = log.read_text()
    assert status == 0, said
    assert "left behind" in said
    assert "Traceback" not in said
