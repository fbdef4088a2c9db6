"""What an image leaves in memory serves the next one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rfdetr_foundationpose.ros import host_memory

SCRIPT = """
import resource, sys, threading
import numpy as np
from rfdetr_foundationpose.ros import host_memory

kept = len(sys.argv) < 2 or host_memory.keep()

def images(count):
    for _ in range(count):
        held = [np.full(size, 1, np.uint8) for size in (2_764_800, 1_843_200, 2_764_800)]
        del held

def faults(count):
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    images(count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin

def measure():
    images(3)
    print(kept, faults(20))

thread = threading.Thread(target=measure)  # as DDS and the worker are: their memory is not the main thread's
thread.start()
thread.join()
measure()
"""


def faults_of_20_frames(*arguments: str) -> list[int]:
    said = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, check=True).stdout
    if "False" in said:
        pytest.skip("this C library has no mallopt")
    return [int(line.split()[1]) for line in said.splitlines()]


def test_images_of_one_size_after_another_cost_no_page_faults():
    without, kept = faults_of_20_frames(), faults_of_20_frames("keep")
    assert max(kept) < 200, "ten a frame at most"
    assert sum(without) > 10 * max(sum(kept), 1), "what the C library does by default"


def test_a_system_without_mallopt_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda _: object())
    assert host_memory.keep() is False
