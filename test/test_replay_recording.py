"""Recordings: what is written is read back, by us and by rosbags alone; other topic names, formats and bad bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.replay.recording import (
    GroundTruth,
    InstanceTruth,
    RecordingError,
    RecordingWriter,
    read_recording,
)
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

CAMERA = CameraIntrinsics(80.0, 81.0, 31.5, 23.5, 64, 48)
START = 1_700_000_000_123_456_789
PERIOD = 33_333_333


def make_frames(count: int = 5, depth_type: type = np.uint16) -> list[tuple[Frame, GroundTruth]]:
    rng = np.random.default_rng(0)
    frames = []
    for i in range(count):
        depth = rng.integers(0, 3000, (48, 64)).astype(depth_type)
        if depth_type is np.float32:
            depth = (depth / 1000).astype(np.float32)
        mask = np.zeros((48, 64), np.bool_)
        mask[i : i + 10, 5:20] = True
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec([0.1 * i, -0.3, 0.2]).as_matrix()
        T[:3, 3] = (0.01 * i, -0.2, 0.8)
        frame = Frame(
            START + i * PERIOD,
            "camera_color_optical_frame",
            rng.integers(0, 255, (48, 64, 3)).astype(np.uint8),
            depth,
            0.001 if depth_type is np.uint16 else 1.0,
            CAMERA,
            {"mug": mask, "mug_1": ~mask},
        )
        truth = GroundTruth(
            (InstanceTruth("mug", "mug", T, 0.75), InstanceTruth("mug_1", "mug", np.linalg.inv(T), None)), T @ T
        )
        frames.append((frame, truth))
    return frames


def write(path: Path, frames: list[tuple[Frame, GroundTruth]], **options: str) -> Path:
    with RecordingWriter(path, **options) as writer:
        for frame, truth in frames:
            writer.write(frame, truth)
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("depth_type", [np.uint16, np.float32])
def test_round_trip(tmp_path: Path, storage: str, depth_type: type) -> None:
    written = make_frames(depth_type=depth_type)
    recording = read_recording(write(tmp_path / "bag", written, storage=storage))
    assert len(recording) == len(written)
    assert recording.objects == {"mug": "mug", "mug_1": "mug"}
    read = list(recording)
    assert recording.unmatched == 0 and recording.invalid == []
    for (a, truth_a), (b, truth_b) in zip(written, read, strict=True):
        assert (a.stamp_ns, a.frame_id, a.depth_scale, a.camera) == (b.stamp_ns, b.frame_id, b.depth_scale, b.camera)
        assert np.array_equal(a.rgb, b.rgb)
        assert a.depth.dtype == b.depth.dtype and np.array_equal(a.depth, b.depth)
        assert set(b.masks) == {"mug", "mug_1"}
        assert all(np.array_equal(a.masks[n], b.masks[n]) for n in a.masks)
        for i, j in zip(truth_a.instances, truth_b.instances, strict=True):
            assert (i.name, i.object) == (j.name, j.object)
            assert np.allclose(i.T_cam_obj, j.T_cam_obj, atol=1e-12)
        assert truth_b.instances[0].visibility == pytest.approx(0.75)
        assert truth_b.instances[1].visibility is None
        assert truth_a.T_world_cam is not None and truth_b.T_world_cam is not None
        assert np.allclose(truth_a.T_world_cam, truth_b.T_world_cam, atol=1e-12)


def test_rosbags_alone_reads_topics_types_stamps_and_frame_ids(tmp_path: Path) -> None:
    written = make_frames(3)
    path = write(tmp_path / "bag", written)
    assert len(list(path.glob("*.mcap"))) == 1
    with AnyReader([path]) as reader:
        kinds = {c.topic: c.msgtype for c in reader.connections}
        assert kinds == {
            "/rgb/image": "sensor_msgs/msg/Image",
            "/depth/image": "sensor_msgs/msg/Image",
            "/rgb/camera_info": "sensor_msgs/msg/CameraInfo",
            "/depth/camera_info": "sensor_msgs/msg/CameraInfo",
            "/mask/mug": "sensor_msgs/msg/Image",
            "/mask/mug_1": "sensor_msgs/msg/Image",
            "/ground_truth/mug": "geometry_msgs/msg/PoseStamped",
            "/ground_truth/mug_1": "geometry_msgs/msg/PoseStamped",
            "/visibility/mug": "std_msgs/msg/Float32",
            "/tf": "tf2_msgs/msg/TFMessage",
        }
        stamped = {
            "/rgb/image": [],
            "/depth/image": [],
            "/rgb/camera_info": [],
            "/depth/camera_info": [],
            "/mask/mug": [],
            "/ground_truth/mug": [],
        }
        for connection, time, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic in stamped:
                stamp = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
                assert message.header.frame_id == "camera_color_optical_frame" and stamp == time
                stamped[connection.topic].append(stamp)
            if connection.topic == "/rgb/image":
                assert (message.encoding, message.step, message.is_bigendian) == ("rgb8", 64 * 3, 0)
            if connection.topic == "/depth/image":
                assert (message.encoding, message.step) == ("16UC1", 64 * 2)
            if connection.topic == "/tf":
                children = {t.child_frame_id: t.header.frame_id for t in message.transforms}
                assert children["ground_truth/mug"] == "camera_color_optical_frame"
                assert children["camera_color_optical_frame"] == "world"
    for stamps in stamped.values():
        assert stamps == [f.stamp_ns for f, _ in written]


@pytest.mark.parametrize(("kind", "tolerance"), [("png", 0), ("jpeg", 6)])
def test_compressed_topics(tmp_path: Path, kind: str, tolerance: int) -> None:
    written = make_frames(2)
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 64, 3)).copy()
    written = [(Frame(f.stamp_ns, f.frame_id, smooth, f.depth, f.depth_scale, f.camera), t) for f, t in written]
    recording = read_recording(write(tmp_path / "bag", written, compressed=kind))
    assert recording.rgb == "/rgb/image/compressed" and recording.depth == "/depth/image/compressedDepth"
    for (a, _), (b, _) in zip(written, recording, strict=True):
        assert np.abs(a.rgb.astype(int) - b.rgb).max() <= tolerance
        assert b.depth.dtype == np.uint16 and np.array_equal(a.depth, b.depth)


def foreign_bag(path: Path, depth_delay_ns: int, depth_stamps: list[int] | None = None, encoding: str = "bgr8") -> Path:
    """A bag with a RealSense driver's names, latched camera_info once, and depth a little later."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    T = store.types

    def header(stamp: int) -> object:
        return T["std_msgs/msg/Header"](T["builtin_interfaces/msg/Time"](*divmod(stamp, 1_000_000_000)), "cam")

    def image(stamp: int, array: np.ndarray, name: str) -> object:
        data = array.reshape(-1).view(np.uint8)
        return T["sensor_msgs/msg/Image"](header(stamp), 48, 64, name, 0, array.strides[0], data)

    K = CAMERA.K
    info = T["sensor_msgs/msg/CameraInfo"](
        header(START), 48, 64, "plumb_bob", np.zeros(5), K.ravel(), np.eye(3).ravel(), np.zeros(12), 0, 0,
        T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False),
    )  # fmt: skip
    with Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as bag:
        names = {
            "/camera/color/image_raw": "sensor_msgs/msg/Image",
            "/camera/depth/image_rect_raw": "sensor_msgs/msg/Image",
            "/camera/aligned_depth_to_color/image_raw": "sensor_msgs/msg/Image",
            "/camera/color/camera_info": "sensor_msgs/msg/CameraInfo",
            "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
        }
        connections = {t: bag.add_connection(t, kind, typestore=store) for t, kind in names.items()}

        def send(topic: str, message: object, time: int) -> None:
            bag.write(connections[topic], time, store.serialize_cdr(message, names[topic]))

        send("/camera/color/camera_info", info, START)
        send("/camera/depth/camera_info", info, START)
        for i in range(4):
            stamp = START + i * PERIOD
            color = np.zeros((48, 64, 3), np.uint8)
            color[..., 0] = 10 + i
            send("/camera/color/image_raw", image(stamp, color, encoding), stamp)
            late = depth_stamps[i] if depth_stamps else stamp + depth_delay_ns
            pixels = np.full((48, 64), 500 + i, np.uint16)
            send("/camera/aligned_depth_to_color/image_raw", image(late, pixels, "16UC1"), stamp + 5_000_000)
            send("/camera/depth/image_rect_raw", image(late, pixels * 0, "16UC1"), stamp + 5_000_000)
    return path


def test_other_names_and_approximate_stamps(tmp_path: Path) -> None:
    recording = read_recording(foreign_bag(tmp_path / "bag", 4_000_000))
    assert recording.rgb == "/camera/color/image_raw"
    assert recording.depth == "/camera/aligned_depth_to_color/image_raw"
    assert recording.camera_info == "/camera/color/camera_info"
    frames = [f for f, _ in recording]
    assert [int(f.depth[0, 0]) for f in frames] == [500, 501, 502, 503]
    assert frames[0].rgb[0, 0].tolist() == [0, 0, 10]  # bgr8 became rgb
    assert frames[0].camera == CAMERA


def test_images_without_partner_are_counted(tmp_path: Path) -> None:
    stamps = [START, START + PERIOD + 25_000_000, START + 2 * PERIOD, START + 3 * PERIOD]
    stamps[1] = START + PERIOD // 2 * 3  # half a period off: nobody's partner
    recording = read_recording(foreign_bag(tmp_path / "bag", 0, stamps), slop=0.005)
    frames = [f for f, _ in recording]
    assert [f.stamp_ns for f in frames] == [START, START + 2 * PERIOD, START + 3 * PERIOD]
    assert recording.unmatched == 2


def test_undecodable_images_are_skipped_with_a_reason(tmp_path: Path) -> None:
    recording = read_recording(foreign_bag(tmp_path / "bag", 0, encoding="no_such_encoding"))
    assert list(recording) == []
    assert len(recording.invalid) == 4 and "no_such_encoding" in recording.invalid[0]


def test_errors_name_the_problem(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="does not exist"):
        read_recording(tmp_path / "nothing")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordingError, match="not a readable recording"):
        read_recording(tmp_path / "folder")
    path = write(tmp_path / "bag", make_frames(1))
    with pytest.raises(RecordingError, match="exists already"):
        RecordingWriter(path)
    with pytest.raises(RecordingError, match=r"no topic /other/image; it has: .*/rgb/image"):
        read_recording(path, rgb="/other/image")
    with pytest.raises(RecordingError, match="must be 'mcap' or 'sqlite3'"):
        RecordingWriter(tmp_path / "x", storage="zip")


def test_a_single_mcap_file_is_enough(tmp_path: Path) -> None:
    path = write(tmp_path / "bag", make_frames(2))
    assert len(list(read_recording(next(path.glob("*.mcap"))))) == 2
