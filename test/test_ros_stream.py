"""A stream that is faster than the processing, slow watchers of the debug image, and a long run."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sensor_msgs.msg import Image

from support.ros_support import (
    PATIENCE,
    ROOT,
    Camera,
    is_busy,
    on_idle,
    process_facts,
    running_node,
    stamp_of,
    wait_for,
)

if TYPE_CHECKING:
    from geometry_msgs.msg import PoseStamped

# Minutes for a release, seconds for every day: SOAK_SECONDS=1800 (with --timeout 2400) is the full length.
SOAK_SECONDS = float(os.environ.get("SOAK_SECONDS", "6"))

SLOW_WATCHER = """
import sys, time, rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("slow_watcher", namespace=sys.argv[1])
def look(message):
    print("frame", flush=True)
    time.sleep(0.5)
node.create_subscription(Image, "pose_node/debug_image", look, 1)
rclpy.spin(node)
"""


class Stalls:
    """Time for which the machine kept this process and another one waiting, and when.

    The kernel's clock of the run queue: how long a thread was ready and no core took it (zero where it keeps none).
    And how late a thread that sleeps wakes up, which also shows a machine that stands still as a whole.
    """

    NOTABLE = 0.002

    def __init__(self, pid: int) -> None:
        self.worst_wake = 0.0
        self._pids = (os.getpid(), pid)
        self._seen: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stalls:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        own = str(threading.get_native_id())
        clocks = [t / "schedstat" for pid in self._pids for t in Path(f"/proc/{pid}/task").iterdir() if t.name != own]
        with ExitStack() as stack:
            files = [stack.enter_context(c.open("rb", buffering=0)) for c in clocks if c.is_file()]
            waited = self._waited(files)
            while not self._stop.is_set():
                begin = time.monotonic()
                time.sleep(0.005)
                late = time.monotonic() - begin - 0.005
                self.worst_wake = max(self.worst_wake, late)
                before, waited = waited, self._waited(files)
                stalls = [s for s in (late, (waited - before) / 1e9) if s > self.NOTABLE]
                if stalls:
                    self._seen.append((time.time(), sum(stalls)))

    @staticmethod
    def _waited(files: Sequence[FileIO]) -> int:
        return sum(int(os.pread(f.fileno(), 80, 0).split()[1]) for f in files)

    def within(self, begin: float, end: float) -> float:
        """Seconds of stalls that ended between two times of ``time.time``."""
        return sum(s for at, s in self._seen if begin <= at <= end)


PERIOD, PROCESSING = 1 / 30, 0.1
# The contract: the newest frame is at most a period old when its turn comes.
AGE_LIMIT = PERIOD + PROCESSING + 0.02


def play(camera: Camera, frames: int) -> list[int]:
    """Frames at the full rate; returns their stamps."""
    begin, stamps = time.monotonic(), []
    for i in range(frames):
        stamps.append(camera.publish())
        time.sleep(max(begin + (i + 1) * PERIOD - time.monotonic(), 0))
    return stamps


def check_ages(poses: list[tuple[PoseStamped, float]], stalls: Stalls) -> None:
    """No pose is older than the limit, but for what the machine held its own frame up; on a busy machine it is only said."""
    told, failed = [], []
    for pose, received in poses:
        born = stamp_of(pose) / 1e9
        held = min(stalls.within(born, received), 3 * stalls.worst_wake + 0.05)
        told.append((received - born, held))
        if received - born > AGE_LIMIT + held:
            failed.append(told[-1])
    ages, excused = sorted(a for a, _ in told), sum(a > AGE_LIMIT for a, _ in told) - len(failed)
    print(
        f"{len(ages)} poses: age p50 {statistics.median(ages) * 1e3:.1f} ms, p95 {ages[int(0.95 * len(ages))] * 1e3:.1f} ms, "
        f"max {ages[-1] * 1e3:.1f} ms, limit {AGE_LIMIT * 1e3:.0f} ms; {excused} later by no more than the machine held them up; "
        f"held up p50 {statistics.median(h for _, h in told) * 1e3:.1f} ms, max {max(h for _, h in told) * 1e3:.1f} ms"
    )
    if is_busy() or stalls.worst_wake > PROCESSING / 2:
        return
    assert statistics.median(ages) <= AGE_LIMIT
    assert not failed, "too old (age, held up): " + ", ".join(f"{a * 1e3:.1f} {h * 1e3:.1f} ms" for a, h in failed)


def test_the_age_of_every_pose_is_bounded_and_drops_are_counted_exactly(tmp_path):
    with running_node(tmp_path, environment={"DOUBLE_SECONDS": str(PROCESSING)}) as (node, graph):
        camera = Camera(graph, 320, 240)
        camera.stream_until_pose()
        graph.settle()
        before = process_facts(node.pid)
        graph.poses.clear()
        first = {k: int(v) for k, v in graph.values().items() if v.isdigit()}
        with Stalls(node.pid) as stalls:
            judged = set(play(camera, 300))
            # The camera goes on: the bound rests on a next frame that takes the place of one that waits too long.
            play(camera, 5)
            last = {k: int(v) for k, v in graph.settle().items() if v.isdigit()}
        after = process_facts(node.pid)

        processed = last["processed"] - first["processed"]
        wait_for(lambda: len(graph.poses) == processed, "all poses")
        stamps = [stamp_of(p) for p, _ in graph.poses]
        print(f"{last['received'] - first['received']} pairs; {before} -> {after}")
        check_ages([p for p in graph.poses if stamp_of(p[0]) in judged], stalls)
        assert last["received"] == last["processed"] + sum(v for k, v in last.items() if k.startswith("dropped_"))
        assert last["dropped_replaced"] > first.get("dropped_replaced", 0)
        assert processed > 10
        assert last["received"] - first["received"] > 200 or is_busy()
        assert stamps == sorted(stamps)
        assert after["rss_kib"] - before["rss_kib"] < 30_000
        assert after["threads"] == before["threads"]


def test_input_max_age_bounds_the_age_also_when_the_camera_stops(tmp_path):
    """The last frame has no next one: it waits for the frame in work, and is dropped if that makes it too old."""
    with running_node(tmp_path, environment={"DOUBLE_SECONDS": str(PROCESSING)}) as (node, graph):
        camera = Camera(graph, 320, 240)
        camera.stream_until_pose()
        assert graph.set_parameter("input.max_age", PERIOD + 0.01).successful
        graph.settle()
        graph.poses.clear()
        with Stalls(node.pid) as stalls:
            for frames in range(5, 13):
                play(camera, frames)
                time.sleep(2 * PROCESSING)
            values = graph.settle()
        check_ages(graph.poses, stalls)
        assert int(values["dropped_stale"]) >= 2
        assert len(graph.poses) >= (1 if is_busy() else 8)


def test_a_slow_watcher_of_the_debug_image_does_not_slow_poses(tmp_path):
    """Debug on and off in turns, so that what else the machine does meets both alike."""
    with running_node(tmp_path, "debug.image_rate:=30.0", environment={"DOUBLE_SECONDS": "0.1"}) as (_, graph):
        watcher = subprocess.Popen(
            [sys.executable, "-c", SLOW_WATCHER, graph.namespace], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        try:
            wait_for(lambda: graph.node.count_subscribers(f"{graph.namespace}/pose_node/debug_image") == 1, "watcher")
            camera = Camera(graph, 640, 480)
            camera.stream_until_pose()
            ages: dict[bool, list[float]] = {True: [], False: []}
            for turn in range(4):
                debug = turn % 2 == 0
                assert graph.set_parameter("debug.image", debug).successful
                time.sleep(0.3)
                graph.poses.clear()
                camera.stream(2.0, rate=8.0)
                time.sleep(0.2)
                ages[debug] += [received - stamp_of(p) / 1e9 for p, received in graph.poses]
            dropped = int(graph.fresh_values()["debug_frames_dropped"])
            drawn = graph.values()["visualize_ms_p50_p95_max"]
        finally:
            watcher.kill()
            seen = watcher.communicate()[0].count("frame")
        on, off = statistics.median(ages[True]), statistics.median(ages[False])
        print(
            f"median age with debug {on * 1e3:.1f} ms, without {off * 1e3:.1f} ms, ratio {on / off:.3f}; "
            f"{seen} pictures seen, {dropped} not drawn; drawing p50 p95 max {drawn} ms"
        )
        assert min(len(a) for a in ages.values()) > (3 if is_busy() else 20)
        assert seen >= (1 if is_busy() else 3)
        assert on / off <= 1 + on_idle(0.05) or is_busy()


def test_nothing_grows_in_a_long_run_at_full_speed(tmp_path):
    """Frames as fast as they can be sent, with watchers, resets and transitions in between."""
    with running_node(tmp_path, "input.max_age:=0.0") as (node, graph):
        graph.node.create_subscription(Image, "pose_node/debug_image", lambda _: None, 1)
        camera = Camera(graph)
        stop = threading.Event()

        def play() -> None:
            while not stop.is_set():
                camera.publish()

        player = threading.Thread(target=play)
        player.start()
        try:
            time.sleep(3.0)
            assert graph.transition("deactivate")
            assert graph.transition("activate")
            time.sleep(1.0)
            before = process_facts(node.pid)
            end = time.monotonic() + SOAK_SECONDS
            rounds = 0
            while rounds < 2 or time.monotonic() < end:
                time.sleep(min(3.0, max(end - time.monotonic(), 0.0)))
                assert graph.transition("deactivate")
                assert graph.transition("activate")
                graph.poses.clear()
                wait_for(lambda: graph.poses, "poses", PATIENCE)
                rounds += 1
            wait_for(lambda: int(graph.fresh_values()["processed"]) > 100, "frames")
            after = process_facts(node.pid)
        finally:
            stop.set()
            player.join()
        values = graph.settle()
        print(f"{rounds} rounds: {before} -> {after}; {values['received']} pairs, {values['processed']} processed")
        drops = sum(int(v) for k, v in values.items() if k.startswith("dropped_"))
        assert int(values["received"]) == int(values["processed"]) + drops
        assert after["threads"] <= before["threads"]
        assert after["files"] <= before["files"] + 2
        assert after["rss_kib"] - before["rss_kib"] < 30_000
        assert "Traceback" not in node.log


@pytest.mark.parametrize("entry", ["module", "console script"])
def test_module_and_console_script_start_the_same_node(tmp_path, entry):
    """Both end with the same error of the real factory's configuration: the mesh does not exist."""
    objects = tmp_path / "objects.yaml"
    objects.write_text("objects:\n  - {name: mug, mesh: nowhere.obj}\n")
    script = Path(sys.executable).parent / "pose_node"
    if entry == "console script" and not script.is_file():
        pytest.skip("the package is not installed here")
    start = [sys.executable, "-m", "rfdetr_foundationpose.ros.main"] if entry == "module" else [str(script)]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [*start, "--ros-args", "-p", f"objects_file:={objects}", "-r", "__ns:=/started"],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
        )
    try:
        wait_for(lambda: "cannot configure" in log.read_text() or process.poll() is not None, "the node's error")
        assert "nowhere.obj" in log.read_text()
    finally:
        process.send_signal(2)
        assert process.wait(PATIENCE) == 0
