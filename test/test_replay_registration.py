"""Depth that is not registered to colour: drawn into the colour image by the transform and calibrations of the recording."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags.rosbag1 import Writer as Bag1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.camera.calibration import read_calibration
from rfdetr_foundationpose.camera.registration import DepthCamera, DepthRegistration
from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from rfdetr_foundationpose.types import InputError
from support.bags import ROS1, ROS2, START

WIDTH, HEIGHT = 64, 48
COLOR, DEPTH = "camera_color_optical_frame", "camera_depth_optical_frame"


def calibration(fx=60.0, cx=31.5, cy=23.5, d=(), model="plumb_bob", size=(WIDTH, HEIGHT)):
    K = [fx, 0, cx, 0, fx, cy, 0, 0, 1]
    roi = SimpleNamespace(width=0, height=0, x_offset=0, y_offset=0)
    message = SimpleNamespace(
        k=K,
        p=[0] * 12,
        d=list(d),
        distortion_model=model,
        width=size[0],
        height=size[1],
        roi=roi,
        binning_x=0,
        binning_y=0,
    )
    return read_calibration(message)


def moved(x=0.0, z=0.0, about_z=0.0):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, np.deg2rad(about_z)]).as_matrix()
    T[:3, 3] = (x, 0, z)
    return T


def block(near=500, far=1000):
    """A near square before a far wall, in millimetres."""
    depth = np.full((HEIGHT, WIDTH), far, np.uint16)
    depth[16:32, 24:40] = near
    return depth


def registered(depth, T, scale=0.001, of_depth=None, of_color=None):
    register = DepthRegistration(DepthCamera(of_depth or calibration(), False, T))
    return register(depth, scale, of_color or calibration(), False)


def test_the_same_camera_sees_the_same():
    np.testing.assert_array_equal(registered(block(), np.eye(4)), block())
    metres = (block() / 1000).astype(np.float32)
    np.testing.assert_allclose(registered(metres, np.eye(4), 1.0), metres, rtol=1e-6)


def test_things_move_by_their_parallax_and_hide_what_is_behind_them():
    # 25 mm at 0.5 m and at 1 m are 3 and 1.5 pixels of a camera of 60.
    found = registered(block(), moved(x=0.025))
    rows = found[20]
    assert (rows[27:43] == 500).all() and rows[26] != 500 and rows[43] != 500
    assert (found[:, :1] == 0).all() and (found[2, 2:] == 1000).all()
    # What the depth camera did not see behind the block's left edge has no depth.
    assert (rows[25:27] == 0).any() and (rows[44:] == 1000).all()


def test_depth_is_along_the_axis_of_the_colour_camera():
    assert registered(block(), moved(z=0.1))[24, 32] == 600


@pytest.mark.parametrize("angle", [5.0, 45.0, 90.0, 180.0])
def test_a_turned_camera_leaves_no_gaps(angle):
    found = registered(np.full((HEIGHT, WIDTH), 800, np.uint16), moved(about_z=angle))
    assert (found[16:32, 24:40] == 800).all()


def test_a_finer_colour_image_is_filled_and_a_coarser_one_sees_the_nearest():
    fine = calibration(fx=180.0, cx=95.5, cy=71.5, size=(192, 144))
    found = registered(block(), np.eye(4), of_color=fine)
    np.testing.assert_array_equal(found, np.kron(block(), np.ones((3, 3), np.uint16)))
    coarse = registered(found, np.eye(4), of_depth=fine, of_color=calibration())
    np.testing.assert_array_equal(coarse, block())


def test_lenses_that_distort_are_followed():
    """A point on the wall is found where OpenCV projects it."""
    bent = calibration(d=(-0.1, 0, 0, 0, 0))
    found = registered(block(), np.eye(4), of_color=bent)
    corner = np.array([[(24 - 0.5 - 31.5) / 60 * 0.5, (16 - 0.5 - 23.5) / 60 * 0.5, 0.5]])
    ((x, y),) = cv2.projectPoints(corner, np.zeros(3), np.zeros(3), bent.raw.K, np.array(bent.distortion))[0].reshape(
        -1, 2
    )
    assert found[int(np.ceil(y)) + 1, int(np.ceil(x)) + 1] == 500 and found[int(y) - 1, int(x) - 1] != 500
    # The inverse: depth through the same lens.
    again = registered(found, np.eye(4), of_depth=bent)
    assert (again == block()).mean() > 0.9


def test_no_depth_stays_none_and_other_sizes_are_refused():
    depth = block().astype(np.float32) / 1000
    depth[:, 40:] = np.nan
    depth[:, :10] = np.inf
    found = registered(depth, np.eye(4), 1.0)
    assert (found[:, 40:] == 0).all() and (found[:, :10] == 0).all() and np.isfinite(found).all()
    with pytest.raises(InputError, match="depth image is 32x24, but its camera_info says 64x48"):
        registered(np.zeros((24, 32), np.uint16), np.eye(4))


def made(store, kind, *fields):
    return store.types[kind](*fields)


def header(store, stamp, frame):
    time = made(store, "builtin_interfaces/msg/Time", *divmod(stamp, 1_000_000_000))
    return made(store, "std_msgs/msg/Header", *((0,) if store is ROS1 else ()), time, frame)


def image(store, stamp, frame, pixels, encoding):
    flat = np.ascontiguousarray(pixels).reshape(-1).view(np.uint8)
    return made(
        store, "sensor_msgs/msg/Image", header(store, stamp, frame), HEIGHT, WIDTH, encoding, 0, pixels.strides[0], flat
    )


def info(store, stamp, frame, fx=60.0):
    roi = made(store, "sensor_msgs/msg/RegionOfInterest", 0, 0, 0, 0, False)
    K = np.array([fx, 0, 31.5, 0, fx, 23.5, 0, 0, 1.0])
    return made(
        store, "sensor_msgs/msg/CameraInfo", header(store, stamp, frame), HEIGHT, WIDTH, "plumb_bob", np.zeros(5), K,
        np.eye(3).ravel(), np.zeros(12), 0, 0, roi,
    )  # fmt: skip


def transform(store, T):
    q = Rotation.from_matrix(T[:3, :3]).as_quat()
    return made(
        store,
        "geometry_msgs/msg/Transform",
        made(store, "geometry_msgs/msg/Vector3", *T[:3, 3].tolist()),
        made(store, "geometry_msgs/msg/Quaternion", *q.tolist()),
    )


def ros2_bag(path, *, tf="/tf_static", depth_info=True):
    """As realsense2_camera without align_depth: both optical frames hang on camera_link, 25 mm apart."""
    rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    optical = np.eye(4)
    optical[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    beside = np.eye(4)
    beside[1, 3] = 0.025  # the colour camera is 25 mm to the left, so things move right in its image
    links = [
        ("camera_link", DEPTH, optical),
        ("camera_link", "camera_color_frame", beside),
        ("camera_color_frame", COLOR, optical),
    ]
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def send(topic, message):
            kind = message.__msgtype__
            connection = topics.setdefault(topic, None) or writer.add_connection(topic, kind, typestore=ROS2)
            topics[topic] = connection
            writer.write(connection, START, ROS2.serialize_cdr(message, kind))

        topics = {}
        if tf:
            for parent, child, T in links:
                stamped = made(
                    ROS2, "geometry_msgs/msg/TransformStamped", header(ROS2, 0, parent), child, transform(ROS2, T)
                )
                send(tf, made(ROS2, "tf2_msgs/msg/TFMessage", [stamped]))
        send("/camera/color/camera_info", info(ROS2, START, COLOR))
        if depth_info:
            send("/camera/depth/camera_info", info(ROS2, START, DEPTH))
        send("/camera/color/image_raw", image(ROS2, START, COLOR, rgb, "rgb8"))
        send("/camera/depth/image_rect_raw", image(ROS2, START, DEPTH, block(), "16UC1"))
    return path


@pytest.mark.parametrize("topic", ["/tf_static", "/tf"])
def test_a_recording_with_its_transforms_is_registered(tmp_path, topic):
    tape = Recording(ros2_bag(tmp_path / "bag", tf=topic))
    assert f"in frame {DEPTH}, drawn into the image of {COLOR}" in tape.reason
    ((frame, _),) = tape
    np.testing.assert_array_equal(frame.depth, registered(block(), moved(x=0.025)))
    named = next(iter(Recording(tmp_path / "bag", depth="/camera/depth/image_rect_raw")))[0]
    np.testing.assert_array_equal(named.depth, frame.depth)


@pytest.mark.parametrize("lacks", ["tf", "depth_info"])
def test_without_transforms_or_calibration_it_is_refused(tmp_path, lacks):
    with pytest.raises(
        RecordingError, match="not registered to colour.*or /tf_static and the camera_info of depth too"
    ):
        Recording(ros2_bag(tmp_path / "bag", **{lacks: ""}))


def viewer_bag(path, unit=0.001):
    """As realsense-viewer records up to librealsense 2.56: all frames are "1", and images end with the unit of depth."""
    device = "/device_0"
    depth, color = f"{device}/sensor_0/Depth_0", f"{device}/sensor_1/Color_0"
    rgb = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    with Bag1Writer(path) as writer:

        def send(topic, message, more=b""):
            kind = message.__msgtype__
            writer.write(
                writer.add_connection(topic, kind, typestore=ROS1),
                START,
                bytes(ROS1.serialize_ros1(message, kind)) + more,
            )

        for stream, T in ((depth, np.eye(4)), (color, moved(x=0.025))):
            send(f"{stream}/info/camera_info", info(ROS1, 0, ""))
            send(f"{stream}/tf/1", transform(ROS1, T))
        send(f"{device}/sensor_0/option/Depth_Units/value", made(ROS1, "std_msgs/msg/Float32", unit))
        pixels = (block() * round(0.001 / unit)).astype(np.uint16)
        more = np.float32(unit).tobytes()
        send(f"{depth}/image/data", image(ROS1, START, "1", pixels, "mono16"), more)
        send(f"{color}/image/data", image(ROS1, START, "1", rgb, "rgb8"), more)
    return path


@pytest.mark.parametrize("unit", [0.001, 0.0001])
def test_bags_of_realsense_viewer_are_registered(tmp_path, unit):
    tape = Recording(viewer_bag(tmp_path / "a.bag", unit))
    ((frame, _),) = tape
    assert not tape.invalid and "drawn into the image of /device_0/sensor_1/Color_0" in tape.reason
    np.testing.assert_allclose(frame.depth * frame.depth_scale, registered(block(), moved(x=0.025)) / 1000, atol=1e-6)
    assert any("units of 0.1 mm" in problem for problem in tape.problems) == (unit == 0.0001)
