"""A recording through the real node: start it, hold the first frame until it has poses, play, collect, judge."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median

import rclpy
from rclpy.context import Context
from rclpy.node import Node

from ..interrupts import Watch
from ..types import Frame
from .counters import Counters
from .node_process import POSE_NODE, NodeProcess, NodeStart, NoPose, free_domain_id, local_domain
from .player import Collector, FramePublisher, PoseArrival, Spinner
from .recording import RecordingError

logger = logging.getLogger(__name__)

# The first frame is repeated with this period (s) until the node answers, as by a camera that looks at a still scene.
HOLD_PERIOD = 0.5
# A frame got lost on the way when so many of the node's reports in a row are the same, with no frame in work.
SAME_REPORTS = 3
# The node reports once a second, or as ``debug.diagnostics_rate`` says; without a report for this time (s) it has stopped.
REPORT_WAIT = 60.0
# A held frame that gets lost is followed by another one, so often.
HELD_AGAIN = 5


@dataclass(frozen=True)
class LiveOptions:
    """rate: times real time; None paces a node that is slower than the camera by its own poses.

    All times in seconds. play_budget: longest playback at automatic rate; beyond it frames are played faster than
    the node takes them, and it drops some, as with any camera that is too fast.
    """

    rate: float | None = None
    startup_timeout: float = 240.0
    first_pose_timeout: float = 120.0
    further_pose_timeout: float = 90.0  # after an object has its pose, for the next one
    play_budget: float = 75.0
    measured_frames: int = 5


@dataclass
class LiveRun:
    """What came out. sent: stamp (time of sending, ns) -> index of the recorded frame, whose own stamps are ``recorded_ns``.

    confidences: by pose topic and stamp, where the node publishes covariances.
    """

    sent: dict[int, int] = field(default_factory=dict)
    poses: list[PoseArrival] = field(default_factory=list)
    confidences: dict[tuple[str, int], float] = field(default_factory=dict)
    latency: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    diagnostics_before: dict[str, dict[str, str]] = field(default_factory=dict)
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)
    frames_published: int = 0
    frames_held: int = 0
    startup_seconds: float = 0.0
    first_pose_seconds: float = 0.0
    node_period: float = 0.0
    rate: float = 0.0
    pacing: str = ""
    start_ns: int = 0
    recorded_ns: list[int] = field(default_factory=list)
    domain_id: int = 0

    def seconds_of(self, index: int) -> float:
        """Time of a recorded frame since the first one, s."""
        return (self.recorded_ns[index] - self.recorded_ns[0]) * 1e-9


@dataclass(frozen=True)
class Topics:
    """Names of instances whose topics are used. poses: listened to. expected: those of them that are waited for before the
    recording is played; empty: any. masks: published."""

    poses: Sequence[str]
    expected: Sequence[str] = ()
    masks: Sequence[str] = ()


def run_live(
    frames: Iterator[Frame],
    count: int,
    topics: Topics,
    start: NodeStart,
    options: LiveOptions,
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> LiveRun:
    """Play ``count`` frames into the node, or those until ``watch.stop``; ``watch.advance`` gets frames played and their number.

    Raises NoPose, NodeDied, or ValueError for an empty recording, and for depth that cannot be compressed where the node is
    to be given compressed images.
    """
    first = next(frames, None)
    if first is None:
        raise RecordingError("the recording holds no frame")
    domain = free_domain_id() if start.process is None else start.process.domain_id
    with ended_in_order(), _environment(local_domain(domain)), ExitStack() as opened:
        context = Context()
        opened.callback(context.destroy)
        opened.callback(context.try_shutdown)
        rclpy.init(context=context, domain_id=domain)
        node = Node("recording_player", context=context)
        spinner = Spinner(node, context)
        opened.callback(spinner.close)
        collector = Collector(node, f"/{POSE_NODE}", topics.poses)
        compressed = start.parameters.get("input.image_transport") == "compressed"
        publisher = FramePublisher(node, topics.masks, compressed=compressed)
        process = start.process or NodeProcess(start.parameters, start.log, domain, start.command)
        if start.process is None:
            opened.enter_context(process)
        session = _Session(node, publisher, collector, process, options, watch)
        run = session.play(first, frames, count, topics.expected)
        run.domain_id = domain
        return run


@contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP raise SystemExit in the main thread, as SIGINT raises KeyboardInterrupt: what is open gets closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    # Whoever has a handler for it, as commands have that keep what they have, decides.
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    before = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Session:
    def __init__(
        self,
        node: Node,
        publisher: FramePublisher,
        collector: Collector,
        process: NodeProcess,
        options: LiveOptions,
        watch: Watch,
    ) -> None:
        self._clock = node.get_clock()
        self._publisher, self._collector, self._process = publisher, collector, process
        self._options, self._watch = options, watch
        self._run = LiveRun()

    def play(self, first: Frame, rest: Iterator[Frame], count: int, objects: Sequence[str]) -> LiveRun:
        run = self._run
        begin = time.monotonic()
        logger.info("waiting for the node")
        self._wait_until_connected(first)
        run.startup_seconds = time.monotonic() - begin
        logger.info("node ready %.1f s later; holding the first frame until it has poses", run.startup_seconds)
        begin = time.monotonic()
        self._hold(first, objects)
        run.first_pose_seconds = time.monotonic() - begin
        run.node_period = self._measure(first)
        self._close_books(first)
        run.diagnostics_before = self._collector.report()
        self._stream(first, rest, count)
        self._settle(max(run.sent))
        run.poses, run.confidences, run.latency = self._collector.arrived()
        run.diagnostics = self._collector.report()
        if not any(p.stamp_ns in run.sent for p in run.poses):
            raise NoPose(
                f"poses came for the held frame only, none while playing; the node's log:\n{self._process.tail()}"
            )
        logger.info("published %d frames, %d poses came back", run.frames_published, len(run.poses))
        return run

    def _wait_until_connected(self, first: Frame) -> None:
        """Publish the calibration meanwhile, as a camera does: the node warms up for its image size."""
        deadline = time.monotonic() + self._options.startup_timeout
        while not self._publisher.connected():
            self._check()
            if time.monotonic() > deadline:
                raise NoPose(
                    f"the node did not subscribe within {self._options.startup_timeout:.0f} s; its log:\n{self._process.tail()}"
                )
            self._publisher.publish_camera_info(first, self._clock.now().nanoseconds)
            time.sleep(0.1)

    def _check(self) -> None:
        """Raises NodeDied, and KeyboardInterrupt when the user wants to end before anything was played."""
        self._process.check()
        if self._watch.stop():
            raise KeyboardInterrupt

    def _send(self, frame: Frame) -> int:
        stamp = self._clock.now().nanoseconds
        self._publisher.publish(frame, stamp)
        self._run.frames_published += 1
        return stamp

    def _hold(self, first: Frame, objects: Sequence[str]) -> None:
        """Repeat the first frame until every object has a pose; at the timeout any object will do."""
        deadline = time.monotonic() + self._options.first_pose_timeout
        known = 0
        while True:
            seen = self._collector.objects_seen()
            if seen and seen >= set(objects):
                return
            if len(seen) > known:
                known = len(seen)
                deadline = time.monotonic() + self._options.further_pose_timeout
            self._check()
            if time.monotonic() > deadline:
                missing = sorted(set(objects) - seen) or ["any object"]
                if seen:
                    logger.warning("no pose of %s yet; playing without waiting longer", ", ".join(missing))
                    return
                raise NoPose(
                    f"no pose of {', '.join(missing)} within {self._options.first_pose_timeout:.0f} s; "
                    f"the node's log:\n{self._process.tail()}"
                )
            begin = time.monotonic()
            stamp = self._send(first)
            self._run.frames_held += 1
            self._collector.wait_for_pose(stamp, HOLD_PERIOD)
            # On a CPU, tracking a still scene takes time from the registrations that are waited for.
            if not self._collector.objects_seen() >= set(objects):
                time.sleep(2 * (time.monotonic() - begin))

    def _measure(self, first: Frame) -> float:
        """Median time from image to pose while tracking, s."""
        times = []
        for _ in range(self._options.measured_frames):
            self._check()
            begin = time.monotonic()
            stamp = self._send(first)
            self._run.frames_held += 1
            if self._collector.wait_for_pose(stamp, 10.0):
                times.append(time.monotonic() - begin)
        self._process.check()
        if not times:
            raise NoPose(f"the first pose was not followed by others; the node's log:\n{self._process.tail()}")
        return median(times)

    def _close_books(self, first: Frame) -> None:
        """Hold the first frame until no held one is on its way or in work: the next to be counted is the first one played."""
        for _ in range(HELD_AGAIN):
            self._check()
            stamp = self._send(first)
            self._run.frames_held += 1
            if self._settle(stamp):
                return
        raise NoPose(f"the node takes no frames any more; its log:\n{self._process.tail()}")

    def _settle(self, stamp_ns: int) -> bool:
        """Wait until the node has booked every frame up to that stamp. False when that one does not arrive, or is in work for
        longer than an object may take to its pose."""
        seen: Counters | None = None
        same = 0
        since = time.monotonic()
        while True:
            self._process.check()
            reported = self._collector.wait_for_diagnostics(1.0)
            report = self._collector.report()
            waited = time.monotonic() - since
            if not reported or f"{POSE_NODE}: processing" not in report:
                if waited > max(REPORT_WAIT, self._options.further_pose_timeout):
                    raise NoPose(
                        f"{POSE_NODE} has published no diagnostics for {waited:.0f} s; its log:\n{self._process.tail()}"
                    )
                continue
            counters = Counters.read(report)
            if counters.accounts_for(stamp_ns):
                return True
            if counters != seen:
                seen, same, since = counters, 1, time.monotonic()
                continue
            same += 1
            if waited > self._options.further_pose_timeout or (same >= SAME_REPORTS and not counters.in_flight):
                return False

    def _stream(self, first: Frame, rest: Iterator[Frame], count: int) -> None:
        run = self._run
        second = next(rest, None)
        frames = [first] if second is None else [first, second]
        interval = 1 / 30 if second is None else (second.stamp_ns - first.stamp_ns) * 1e-9
        step, patience, run.pacing = self._pace(interval, count)
        logger.info("%s", run.pacing)
        run.start_ns = self._clock.now().nanoseconds
        begin = time.monotonic()
        due = begin
        for index, frame in enumerate(_chain(frames, rest)):
            if index >= count or (index and self._watch.stop()):
                break
            time.sleep(max(0.0, due - time.monotonic()))
            stamp = self._send(frame)
            run.sent[stamp] = index
            run.recorded_ns.append(frame.stamp_ns)
            if patience is not None:
                self._collector.wait_for_pose(stamp, patience)
                due = time.monotonic()
            else:
                due = max(due + step, time.monotonic() - step)
            self._watch.advance(index + 1, count)
            self._process.check()
        self._collector.wait_for_pose(max(run.sent), max(2.0, 3 * run.node_period))
        played = max(len(run.sent) - 1, 1) * interval
        run.rate = played / max(time.monotonic() - begin, 1e-6)

    def _pace(self, interval: float, count: int) -> tuple[float, float | None, str]:
        """Seconds between frames, how long to wait for each pose (None: not at all), and a sentence that says so."""
        period, rate = self._run.node_period, self._options.rate
        speed = f"the node takes {1e3 * period:.0f} ms from image to pose"
        if rate is not None:
            return interval / rate, None, f"{speed}; playing at {rate:g} x real time"
        if period < 0.8 * interval:
            return interval, None, f"{speed}; playing in real time"
        if period * count <= self._options.play_budget:
            camera = f"the camera's {1e3 * interval:.0f} ms"
            why = f"slower than {camera}" if period >= interval else f"hardly faster than {camera}"
            return period, max(2.0, 4 * period), f"{speed}, {why}: each frame waits for the pose of the one before"
        step = self._options.play_budget / count
        return (
            step,
            None,
            f"{speed}; playing a frame every {1e3 * step:.0f} ms to end in {self._options.play_budget:.0f} s",
        )


def _chain(head: Sequence[Frame], rest: Iterator[Frame]) -> Iterator[Frame]:
    yield from head
    yield from rest


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """The environment variables while the body runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
