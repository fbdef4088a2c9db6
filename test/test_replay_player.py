"""Frames go out over real DDS and arrive as they were; poses, latency and diagnostics come back."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue  # noqa: E402
from geometry_msgs.msg import PoseStamped  # noqa: E402
from rclpy.context import Context  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile, QoSReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from std_msgs.msg import Float64  # noqa: E402

from rfdetr_foundationpose.camera import calibration, images  # noqa: E402
from rfdetr_foundationpose.camera.compressed import compressed_to_depth, compressed_to_rgb  # noqa: E402
from rfdetr_foundationpose.interrupts import Watch  # noqa: E402
from rfdetr_foundationpose.replay.counters import Counters  # noqa: E402
from rfdetr_foundationpose.replay.live import LiveOptions, _Session  # noqa: E402
from rfdetr_foundationpose.replay.node_process import NodeDied, NodeProcess, NoPose, local_domain  # noqa: E402
from rfdetr_foundationpose.replay.player import Collector, FramePublisher, Spinner  # noqa: E402
from rfdetr_foundationpose.types import CameraIntrinsics, Frame  # noqa: E402
from support.ros_support import PATIENCE, wait_for  # noqa: E402

CAMERA = CameraIntrinsics(200.0, 210.0, 80.0, 60.0, 160, 120)


def frame(index: int, depth_dtype=np.uint16) -> Frame:
    rng = np.random.default_rng(index)
    rgb = rng.integers(0, 255, (120, 160, 3), np.uint8)
    depth = np.full((120, 160), 500 + index, depth_dtype)
    mask = np.zeros((120, 160), np.bool_)
    mask[20:40, 30:50] = True
    return Frame(index * 33_000_000, "camera", rgb, depth, 0.001, CAMERA, {"mug": mask})


class EchoNode(Node):
    """Stands in for the pose node: answers each rgb image with a pose whose z is that frame's depth."""

    def __init__(self, context: Context, compressed: bool = False) -> None:
        super().__init__("pose_node", context=context)
        kind, rgb, depth = (CompressedImage, "/compressed", "/compressedDepth") if compressed else (Image, "", "")
        self._read_depth = compressed_to_depth if compressed else images.image_to_depth
        self.received: dict[str, list] = {"rgb": [], "depth": [], "info": [], "mask": []}
        self._depth: dict[int, float] = {}
        self._rgb: set[int] = set()
        self._pose = self.create_publisher(PoseStamped, "~/pose/mug", 10)
        self._latency = self.create_publisher(Float64, "~/latency/track", 10)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.create_timer(0.1, self._report)
        # Deep: a machine that is busy for a moment loses none.
        qos = QoSProfile(depth=100, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self._hears = [
            self.create_subscription(kind, f"rgb/image{rgb}", self._on_rgb, qos),
            self.create_subscription(kind, f"depth/image{depth}", self._on_depth, qos),
            self.create_subscription(CameraInfo, "rgb/camera_info", self.received["info"].append, qos),
            self.create_subscription(Image, "mask/mug", self.received["mask"].append, qos),
        ]

    def connected(self) -> bool:
        """Whether it hears a camera and is heard: the camera alone knows its own side."""
        heard = (self._pose, self._latency, self._diagnostics)
        return all(s.get_publisher_count() for s in self._hears) and all(p.get_subscription_count() for p in heard)

    def _on_depth(self, message: Image) -> None:
        self.received["depth"].append(message)
        depth, scale = self._read_depth(message, 0.001)
        self._depth[images.stamp_ns(message.header)] = float(depth.mean()) * scale
        self._answer(message.header)

    def _on_rgb(self, message: Image) -> None:
        self.received["rgb"].append(message)
        self._rgb.add(images.stamp_ns(message.header))
        self._answer(message.header)

    def _answer(self, header) -> None:
        stamp = images.stamp_ns(header)
        if stamp not in self._depth or stamp not in self._rgb:
            return
        answer = PoseStamped(header=header)
        answer.pose.position.z = self._depth[stamp]
        answer.pose.orientation.w = 1.0
        self._latency.publish(Float64(data=12.5))
        self._pose.publish(answer)

    def _report(self) -> None:
        answered = self._rgb & set(self._depth)
        newest = max(answered, default=0)
        values = {"received": len(answered), "processed": len(answered), "in_flight": 0, "newest_stamp_ns": newest}
        status = DiagnosticStatus(name="pose_node: processing")
        status.values = [KeyValue(key=k, value=str(v)) for k, v in values.items()]
        self._diagnostics.publish(DiagnosticArray(status=[status]))


@pytest.fixture
def wire(request):
    """A player node and an echo node, each spinning in a thread of its own. Images are compressed where a test asks for it."""
    compressed = getattr(request, "param", "raw") == "compressed"
    context = Context()
    rclpy.init(context=context)
    player, echo = Node("recording_player", context=context), EchoNode(context, compressed)
    collector = Collector(player, "/pose_node", ["mug", "box"])
    publisher = FramePublisher(player, ["mug"], compressed=compressed)
    spinners = [Spinner(player, context), Spinner(echo, context)]
    wait_for(lambda: publisher.connected() and echo.connected(), "the nodes to find each other")
    yield SimpleNamespace(player=player, echo=echo, collector=collector, publisher=publisher)
    for spinner in spinners:
        spinner.close()
    rclpy.shutdown(context=context)


def session(wire, **options) -> _Session:
    alive = SimpleNamespace(check=lambda: None, tail=lambda: "")
    parts = (wire.player, wire.publisher, wire.collector, alive)
    return _Session(*parts, LiveOptions(**options), Watch())


def test_frames_arrive_bit_for_bit_and_poses_come_back(wire):
    sent = frame(3)
    stamp = wire.player.get_clock().now().nanoseconds
    wire.publisher.publish(sent, stamp)
    assert wire.collector.wait_for_pose(stamp, PATIENCE)
    np.testing.assert_array_equal(images.image_to_rgb(wire.echo.received["rgb"][0]), sent.rgb)
    depth, scale = images.image_to_depth(wire.echo.received["depth"][0], 0.001)
    np.testing.assert_array_equal(depth, sent.depth)
    assert scale == 0.001
    np.testing.assert_array_equal(images.image_to_mask(wire.echo.received["mask"][0]), sent.masks["mug"])
    assert calibration.read_calibration(wire.echo.received["info"][0]).rectified == CAMERA
    (pose,) = wire.collector.poses
    assert (pose.object, pose.stamp_ns) == ("mug", stamp)
    assert pose.T_cam_obj[2, 3] == pytest.approx(0.503)
    assert pose.received_ns >= stamp
    assert wire.collector.objects_seen() == {"mug"}
    assert not wire.collector.wait_for_pose(stamp + 1, 0.05)


@pytest.mark.parametrize("wire", ["compressed"], indirect=True)
def test_compressed_frames_arrive_bit_for_bit(wire):
    sent = frame(3)
    stamp = wire.player.get_clock().now().nanoseconds
    wire.publisher.publish(sent, stamp)
    assert wire.collector.wait_for_pose(stamp, PATIENCE)
    np.testing.assert_array_equal(compressed_to_rgb(wire.echo.received["rgb"][0]), sent.rgb)
    depth, scale = compressed_to_depth(wire.echo.received["depth"][0], 0.001)
    np.testing.assert_array_equal(depth, sent.depth)
    assert scale == 0.001
    with pytest.raises(ValueError, match="uint16 millimetres only"):
        wire.publisher.publish(frame(4, np.float32), stamp + 1)


def test_depth_in_other_units_goes_out_as_metres(wire):
    tenths = Frame(0, "camera", frame(0).rgb, np.full((120, 160), 7500, np.uint16), 0.0001, CAMERA)
    stamp = wire.player.get_clock().now().nanoseconds
    wire.publisher.publish(tenths, stamp)
    assert wire.collector.wait_for_pose(stamp, PATIENCE)
    assert wire.echo.received["depth"][0].encoding == "32FC1"
    assert wire.collector.poses[0].T_cam_obj[2, 3] == pytest.approx(0.75)


def test_a_whole_session_plays_every_frame_once_in_order(wire):
    frames = iter([frame(i) for i in range(6)])
    run = session(wire, rate=1.0, first_pose_timeout=PATIENCE).play(next(frames), frames, 6, ["mug"])
    assert len(run.sent) == 6
    by_stamp = {p.stamp_ns: p for p in run.poses}
    for stamp, index in run.sent.items():
        assert by_stamp[stamp].T_cam_obj[2, 3] == pytest.approx(0.5 + 0.001 * index)
    assert run.frames_published == 6 + run.frames_held
    assert run.latency["track"][0][1] == 12.5
    assert Counters.read(run.diagnostics).received == run.frames_published
    assert Counters.read(run.diagnostics_before).received == run.frames_held


def test_what_arrives_while_a_session_ends_does_not_disturb_it(wire):
    """The first duration of a stage may come at any time."""

    class Interrupted(list):
        def __iter__(self):
            late = threading.Thread(
                target=wire.collector._on_latency("register"), args=(Float64(data=1.0),), daemon=True
            )
            late.start()
            late.join(0.3)
            return super().__iter__()

    wire.collector.latency.update({"detector": Interrupted([(1, 2.0)]), "track": [(2, 3.0)]})
    _, _, latency = wire.collector.arrived()
    assert latency == {"detector": [(1, 2.0)], "track": [(2, 3.0)]}


def test_a_spinner_ends_its_thread_before_the_executor(monkeypatch):
    """rclpy takes an executor apart that is shut down while it spins; what its thread then raises would be the last thing said."""
    context = Context()
    rclpy.init(context=context)
    node = Node("spinning", context=context)
    ready, raised, called = threading.Event(), [], []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    wait = SingleThreadedExecutor.wait_for_ready_callbacks

    def late(self, *arguments, **options):
        found = wait(self, *arguments, **options)
        ready.set()
        time.sleep(0.3)
        return found

    monkeypatch.setattr(SingleThreadedExecutor, "wait_for_ready_callbacks", late)
    node.create_timer(0.01, lambda: called.append(1))
    spinner = Spinner(node, context)
    assert ready.wait(PATIENCE)
    spinner.close()
    assert raised == [] and called
    rclpy.shutdown(context=context)


class Reports:
    """A collector that hears these counters, one message after the other; the last one is repeated."""

    def __init__(self, *reports: tuple[int, int, int, int]) -> None:
        self._reports = list(reports)
        self.heard = 0

    def wait_for_diagnostics(self, _timeout: float) -> bool:
        self.heard += 1
        return True

    def report(self) -> dict[str, dict[str, str]]:
        values = self._reports[min(self.heard, len(self._reports)) - 1]
        names = ("received", "processed", "in_flight", "newest_stamp_ns")
        return {"pose_node: processing": {k: str(v) for k, v in zip(names, values, strict=True)}}


@pytest.mark.parametrize(
    ("reports", "booked", "heard"),
    [
        ([(1, 0, 1, 500), (1, 1, 0, 500)], True, 2),  # it was in work when the node first reported
        ([(0, 0, 0, 0), (1, 1, 0, 400), (2, 2, 0, 500)], True, 3),  # it was on its way
        ([(2, 2, 0, 500), (3, 3, 0, 900)], True, 1),
        ([(1, 0, 1, 400), (1, 1, 0, 400)], False, 4),  # it got lost; the one before it was in work meanwhile
        ([(0, 0, 0, 0)], False, 3),
    ],
)
def test_the_books_are_read_when_every_frame_is_in_them_or_lost(reports, booked, heard):
    alive = SimpleNamespace(check=lambda: None, tail=lambda: "")
    collector = Reports(*reports)
    node = SimpleNamespace(get_clock=lambda: None)
    part = _Session(node, None, collector, alive, LiveOptions(), Watch())
    assert part._settle(500) == booked
    assert collector.heard == heard


def test_a_frame_that_stays_in_work_does_not_hold_the_end_up_for_ever():
    alive = SimpleNamespace(check=lambda: None, tail=lambda: "")
    node = SimpleNamespace(get_clock=lambda: None)
    options = LiveOptions(further_pose_timeout=0.0)
    part = _Session(node, None, Reports((1, 0, 1, 500)), alive, options, Watch())
    assert not part._settle(500)


def test_an_object_that_never_comes_is_named(wire, said):
    part = session(wire, first_pose_timeout=PATIENCE, further_pose_timeout=0.5)
    part._hold(frame(0), ["mug", "box"])  # the mug comes: play without the box, and say so
    assert "box" in said[0]
    assert "mug" not in said[0]
    nothing = session(wire, first_pose_timeout=0.2)
    nothing._collector = Collector(wire.player, "/pose_node", ["box"])
    with pytest.raises(NoPose, match="no pose of box within"):
        nothing._hold(frame(0), ["box"])


@pytest.mark.parametrize(
    ("period", "rate", "step", "waits"),
    [(0.01, None, 1 / 30, False), (0.25, None, 0.25, True), (1.0, None, 1 / 3, False), (0.25, 2.0, 1 / 60, False)],
)
def test_pacing_follows_the_node(period, rate, step, waits):
    bare = _Session.__new__(_Session)
    bare._options = LiveOptions(rate=rate, play_budget=100)
    bare._run = SimpleNamespace(node_period=period)
    chosen, patience, sentence = bare._pace(1 / 30, 300)
    assert chosen == pytest.approx(step)
    assert (patience is not None) == waits
    assert f"{1e3 * period:.0f} ms" in sentence


def test_a_node_that_dies_is_reported_with_its_log(tmp_path):
    process = NodeProcess({"input.max_age": "soon"}, tmp_path / "node.log", 77)
    with process, pytest.raises(NodeDied, match="exit code"):
        wait_for(process.check, "the end")


def test_local_domain_is_per_run_and_keeps_to_this_machine():
    environment = local_domain(42)
    assert environment["ROS_DOMAIN_ID"] == "42"
    assert set(environment) & {"ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"}
