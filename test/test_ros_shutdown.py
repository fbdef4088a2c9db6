"""Every way out of the node: in time, with a status that says how, nothing in shared memory, nothing in the graph."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from rfdetr_foundationpose.replay.node_process import NodeProcess
from rfdetr_foundationpose.ros import shared_memory
from support import nvrtc
from support.ros_support import (
    PATIENCE,
    ROOT,
    Camera,
    Graph,
    Node,
    is_busy,
    on_idle,
    running_node,
    segments_of,
    wait_for,
)

pytestmark = pytest.mark.timeout(600)
DOUBLE = [sys.executable, str(ROOT / "test" / "support" / "ros_double_start.py")]


def test_started_and_stopped_three_times_nothing_stays_in_shared_memory_or_in_the_graph(tmp_path):
    # Started by nohup, these tests and their nodes do not hear it.
    hang_up = signal.SIGINT if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else signal.SIGHUP
    for number in (signal.SIGINT, signal.SIGTERM, hang_up):
        with running_node(tmp_path) as (node, graph):
            held = segments_of(node.pid)
            assert any(p.stat().st_size > 1_000_000 for p in held if p.exists())
            node.stop(number)
            assert not [p for p in held if p.exists()]

            def gone(graph: Graph = graph) -> bool:
                return ("pose_node", graph.namespace) not in graph.node.get_node_names_and_namespaces()

            # A node that only ends is forgotten after 20 s.
            wait_for(gone, "the node to leave the graph", on_idle(5.0))


@pytest.mark.parametrize(
    ("environment", "active", "left"),
    [
        ({"DOUBLE_BUILD_SECONDS": "60"}, False, "configure: loading weights"),
        ({"DOUBLE_SECONDS": "60"}, True, "the frame in work"),
        ({"DOUBLE_CLOSE_SECONDS": "60"}, True, "a registration"),
    ],
)
def test_what_is_stuck_is_named_and_left_behind_with_its_shared_memory_removed(tmp_path, environment, active, left):
    with running_node(tmp_path, environment=environment, active=False) as (node, graph):
        if active:
            graph.wait_active()
        else:
            wait_for(lambda: "loading weights" in node.log, "configure")
        if "DOUBLE_SECONDS" in environment:
            Camera(graph).stream_until(lambda: graph.values().get("in_flight", "0") != "0", "a frame in work")
        node.stop()
        # On a busy machine a thread that only waits may not end in time either.
        assert f"left behind: {left}" in node.log or (is_busy() and "left behind: a callback" in node.log)
        assert "Traceback" not in node.log


def test_a_second_signal_ends_it_at_once_and_cleanly(tmp_path):
    with running_node(tmp_path, environment={"DOUBLE_CLOSE_SECONDS": "600"}, ends=(0, 130)) as (node, _):
        held = segments_of(node.pid)
        os.kill(node.pid, signal.SIGINT)
        wait_for(lambda: "shutting down" in node.log, "the first signal to be heard")
        time.sleep(0.6)
        os.kill(node.pid, signal.SIGINT)
        # The first one's time may be over before the second is heard.
        assert node.wait(PATIENCE) in (0, 130)
        assert not [p for p in held if p.exists()]


def test_a_parameter_that_does_not_fit_ends_it_with_a_sentence_and_nothing_left(tmp_path):
    node = Node(tmp_path, "/refused", ["-p", "detector.threshold:=7.0"], {})
    held: set[Path] = set()
    while node.returncode is None:
        with suppress(OSError):
            held.update(segments_of(node.pid))
        time.sleep(0.02)
    assert node.returncode == 1
    assert "detector.threshold" in node.log
    assert "Traceback" not in node.log
    assert held
    assert not [p for p in held if p.exists()]


@pytest.mark.parametrize(
    ("arguments", "environment", "named"),
    [
        (["-r", "__node:=bad-name"], {}, "bad-name"),
        (["--params-file", "/nowhere.yaml"], {}, "/nowhere.yaml"),
        ([], {"ROS_DOMAIN_ID": "abc"}, "ROS_DOMAIN_ID is not"),
    ],
)
def test_what_ros_itself_does_not_take_is_a_sentence(tmp_path, arguments, environment, named):
    node = Node(tmp_path, "/refused", arguments, environment)
    assert node.wait(PATIENCE) == 1, node.log
    assert named in node.log.partition("pose_node: ")[2]
    assert "Traceback" not in node.log


def test_what_a_killed_node_left_is_listed_and_the_next_start_removes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_memory, "SETTLED", 0.0)
    with running_node(tmp_path, active=False, ends=(-signal.SIGKILL,)) as (node, _):
        wait_for(lambda: "configured" in node.log, "configure")
        held = segments_of(node.pid)
        assert held
        assert not set(held) & {s.path for s in shared_memory.left_behind()}, "a living node's memory is no leftover"
        os.kill(node.pid, signal.SIGKILL)
        node.wait(60)
        listed = {s.path: s.size for s in shared_memory.left_behind()}
        assert set(held) <= set(listed)
        assert sum(listed[p] for p in held) > 1_000_000
        assert "MB" in shared_memory.summary(shared_memory.left_behind())
        shared_memory.remove_left_behind()
        assert not [p for p in held if p.exists()]


def test_a_lock_that_another_process_holds_is_no_leftover(tmp_path):
    name = tmp_path / "fastdds_0123456789abcdef"
    lock = name.with_name(name.name + "_el")
    name.write_bytes(bytes(1000))
    lock.touch()
    os.utime(lock, (1, 1))
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,sys,time; f=open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)", str(lock)],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    try:
        assert shared_memory.left_behind(tmp_path) == []
        assert shared_memory.remove_left_behind(tmp_path) == 0
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
    assert [s.path for s in shared_memory.left_behind(tmp_path)] == [name]
    assert shared_memory.remove_left_behind(tmp_path) == 1000
    assert list(tmp_path.iterdir()) == []


PARENT = """
import sys, time
from pathlib import Path
from rfdetr_foundationpose.replay.node_process import NodeProcess
with NodeProcess({}, Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]) as node:
    print(node._process.pid, flush=True)
    time.sleep(600)
"""


def test_the_node_of_a_parent_that_was_killed_ends_by_itself(tmp_path):
    log = tmp_path / "node.log"
    domain = os.environ["ROS_DOMAIN_ID"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(log), domain, *DOUBLE], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    try:
        child = int(parent.stdout.readline())
        wait_for(lambda: "active" in log.read_text(), "the node")
        held = segments_of(child)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    wait_for(lambda: not Path(f"/proc/{child}").exists(), "the child to end")
    assert "shutting down" in log.read_text()
    assert not [p for p in held if p.exists()]


def test_a_terminal_s_interrupt_is_for_the_parent_of_a_node_alone(tmp_path):
    with NodeProcess({}, tmp_path / "log", int(os.environ["ROS_DOMAIN_ID"]), DOUBLE) as node:
        assert os.getpgid(node._process.pid) != os.getpgid(0)
        begin = time.monotonic()
        assert node.stop() in (0, 143, -signal.SIGTERM)
        assert time.monotonic() - begin < on_idle(10.0)


COMPILING = """
import os, signal, sys, threading
from rfdetr_foundationpose.ros.signals import Stop
from support.nvrtc import Compiler, handler

compiler = Compiler()
stop = Stop()
stop.begin()
before = handler()
thread = threading.Thread(target=compiler.compile)
thread.start()
if sys.argv[1] == "during":
    while handler()[0] == before[0] and thread.is_alive():
        pass
else:
    thread.join()
    assert compiler.results == [0]
print("handler replaced:", handler()[0] != before[0], "flags changed:", handler()[1] != before[1])
os.kill(os.getpid(), signal.SIGINT)
stop.wait()
print("heard", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(nvrtc.folder() is None, reason="no NVRTC is installed")
@pytest.mark.parametrize("when", ["during", "after"])
def test_a_signal_is_heard_during_and_after_a_compilation_by_nvrtc(when):
    """NVRTC takes the handlers of SIGINT and SIGTERM while it parses, and gives them back changed. It needs no GPU."""
    done = subprocess.run([sys.executable, "-c", COMPILING, when], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "heard" in done.stdout
