"""Ctrl-C asks first: the loop it comes to ends, and what there is is kept."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rfdetr_foundationpose.interrupts import CutShort, Interrupted, Interruptible
from support import nvrtc

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).resolve().parents[1]


def test_first_interrupt_asks_and_the_second_is_the_usual_one(caplog):
    caplog.set_level(logging.INFO, "rfdetr_foundationpose")
    before = signal.getsignal(signal.SIGINT)
    with Interruptible() as stop:
        assert not stop.requested and stop.status == 0
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested and stop.stop() and stop.status == 130 and "kept" in caplog.text
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
    with Interruptible() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and stop.status == 143


def test_other_threads_change_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with Interruptible() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


def test_what_is_cut_short_ends_the_body_and_says_by_which_signal():
    with CutShort() as cut:
        raise Interrupted(signal.SIGTERM)
    assert cut.requested and cut.status == 143
    with CutShort() as cut:
        pass
    assert not cut.requested
    with pytest.raises(ValueError, match="another"), CutShort():
        raise ValueError("another")


BEFORE = """
import os, signal, sys
from rfdetr_foundationpose import interrupts

interrupts.listen("prog")
me, number = os.getpid(), int(sys.argv[1])
"""


def run(body: str, number: int) -> subprocess.CompletedProcess[str]:
    """A command's process that hears signals, of which ``number`` is the one to send."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "test")])
    return subprocess.run(
        [sys.executable, "-c", BEFORE + body, str(number)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_before_there_is_anything_to_keep_a_signal_ends_it_at_once(number):
    done = run("import time\nos.kill(me, number)\ntime.sleep(60)", number)
    assert (done.returncode, done.stderr) == (128 + number, "prog: interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_without_a_limit_is_interrupted(number):
    body = """
import threading
interrupts.begin()
threading.Timer(0.3, os.kill, (me, number)).start()
try:
    threading.Event().wait()
except KeyboardInterrupt as interrupt:
    sys.exit(interrupts.status_of(interrupt))
"""
    assert run(body, number).returncode == 128 + number


def test_what_is_stuck_is_named_and_a_second_signal_ends_it():
    """In native code no handler of Python's can run."""
    body = """
import ctypes, threading, time
from rfdetr_foundationpose import yaml_files
interrupts.begin()

def tell():
    time.sleep(0.3)
    os.kill(me, number)
    time.sleep(interrupts.PATIENCE + 1.5)
    os.kill(me, number)

threading.Thread(target=tell, daemon=True).start()
mutex = ctypes.create_string_buffer(64)
lock = ctypes.CDLL(None).pthread_mutex_lock
lock(mutex)
# As a function of the package that never comes back.
exec("def stuck():\\n    lock(mutex)", vars(yaml_files) | {"lock": lock, "mutex": mutex}, found := {})
found["stuck"]()
"""
    done = run(body, signal.SIGINT)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines() == [
        "prog: interrupted; ends after stuck of yaml_files, at once by a second Ctrl-C",
        "prog: interrupted; left behind: stuck of yaml_files",
    ]


def test_children_hear_signals_as_usual():
    body = """
import subprocess, time
child = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
with interrupts.unblocked():
    heard = subprocess.Popen(child, stdout=subprocess.PIPE)
heard.stdout.readline()
heard.terminate()
pid = os.fork()
if pid == 0:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(60)
time.sleep(0.3)
os.kill(pid, signal.SIGTERM)
print(heard.wait(10), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(body, 0)
    assert done.stdout.split() == ["-15", "-15"], done.stderr


COMPILING = """
import threading
from support.nvrtc import Compiler, handler

interrupts.begin()
compiler = Compiler()
before = handler()

def tell():
    while handler()[0] == before[0] and not compiler.results:
        pass
    print("handler replaced:", handler()[0] != before[0], flush=True)
    os.kill(me, number)

if "{when}" == "during":
    with interrupts.Interruptible() as stop:
        threading.Thread(target=tell).start()
        compiler.compile()  # in the main thread, as a command does
        assert compiler.results == [0]
    sys.exit(stop.status)
compiler.compile()
print("flags changed:", handler()[1] != before[1], flush=True)
threading.Timer(0.3, os.kill, (me, number)).start()
try:
    threading.Event().wait()
except KeyboardInterrupt as interrupt:
    sys.exit(interrupts.status_of(interrupt))
"""


@pytest.mark.skipif(nvrtc.folder() is None, reason="no NVRTC is installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["during", "after"])
def test_a_command_hears_a_signal_during_and_after_a_compilation_by_nvrtc(when, number):
    """NVRTC's own handler ends a process with status 4; afterwards Python's are called, but interrupt no wait."""
    done = run(COMPILING.replace("{when}", when), number)
    assert done.returncode == 128 + number, done.stdout + done.stderr


def test_workers_that_still_start_hear_no_signal_and_are_not_waited_for():
    """A terminal's Ctrl-C goes to them too; multiprocessing unblocks the signals when it starts its resource tracker."""
    body = """
import multiprocessing
interrupts.before_workers()
SCRIPT = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, []), flush=True)"
import subprocess
print(subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True).stdout.strip())
"""
    assert run(body, 0).stdout.split() == ["True"]
