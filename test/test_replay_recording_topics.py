"""Which topics are read: sets as the drivers of common cameras record them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from mcap.writer import Writer

from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from support.bags import (
    DEPTH,
    HEIGHT,
    PERIOD,
    RGB,
    START,
    WIDTH,
    Sent,
    color,
    compressed,
    depth,
    image,
    info,
    plain,
    write_rosbag2,
)

C, D, R = "color_frame", "depth_frame", "right_frame"
GREY = np.full((48, 64), 90, np.uint8)
METRES = np.full((48, 64), 0.5, np.float32)
BIG = np.full((96, 128), 500, np.uint16)
JPEG = cv2.imencode(".jpg", GREY)[1].tobytes()
PNG = cv2.imencode(".png", np.full((48, 64), 500, np.uint16))[1].tobytes()


def rgb(topic: str, frame: str = C) -> Sent:
    return color(START, topic=topic, frame=frame)


def mm(topic: str, frame: str = C) -> Sent:
    return depth(START, topic=topic, frame=frame)


def m(topic: str, frame: str = C) -> Sent:
    return image(topic, START, METRES, "32FC1", frame=frame)


def grey(topic: str, frame: str = D) -> Sent:
    return image(topic, START, GREY, "mono8", frame=frame)


def cam(topic: str, frame: str = C) -> Sent:
    return info(START, topic=topic, frame=frame)


def record(folder: Path, sent: Sequence[Sent]) -> Path:
    return write_rosbag2(folder / "bag", sent)


CAMERAS = {
    "RealSense with alignment": (
        [
            rgb("/camera/color/image_raw"),
            cam("/camera/color/camera_info"),
            mm("/camera/depth/image_rect_raw", D),
            cam("/camera/depth/camera_info", D),
            mm("/camera/aligned_depth_to_color/image_raw"),
            cam("/camera/aligned_depth_to_color/camera_info"),
            grey("/camera/infra1/image_rect_raw"),
            grey("/camera/infra2/image_rect_raw"),
            image("/camera/confidence/image_raw", START, GREY, "mono8", frame=D),
        ],
        ("/camera/color/image_raw", "/camera/aligned_depth_to_color/image_raw", "/camera/color/camera_info"),
    ),
    "RealSense in a namespace, compressed": (
        [
            compressed("/robot/cam/color/image_raw/compressed", START, "rgb8; jpeg compressed bgr8", JPEG, C),
            cam("/robot/cam/color/camera_info"),
            compressed(
                "/robot/cam/aligned_depth_to_color/image_raw/compressedDepth",
                START,
                "16UC1; compressedDepth png",
                PNG,
                C,
            ),
            compressed(
                "/robot/cam/aligned_depth_to_color/image_raw/compressed", START, "16UC1; jpeg compressed ", JPEG, C
            ),
        ],
        (
            "/robot/cam/color/image_raw/compressed",
            "/robot/cam/aligned_depth_to_color/image_raw/compressedDepth",
            "/robot/cam/color/camera_info",
        ),
    ),
    "Azure Kinect": (
        [
            rgb("/rgb/image_raw"),
            cam("/rgb/camera_info"),
            mm("/depth/image_raw", D),
            cam("/depth/camera_info", D),
            mm("/depth_to_rgb/image_raw"),
            cam("/depth_to_rgb/camera_info"),
            rgb("/rgb_to_depth/image_raw", D),
            cam("/rgb_to_depth/camera_info", D),
            image("/ir/image_raw", START, BIG, "mono16", frame=D),
        ],
        ("/rgb/image_raw", "/depth_to_rgb/image_raw", "/rgb/camera_info"),
    ),
    "ZED": (
        [
            rgb("/zed/zed_node/rgb/image_rect_color"),
            cam("/zed/zed_node/rgb/camera_info"),
            rgb("/zed/zed_node/rgb_raw/image_raw_color"),
            cam("/zed/zed_node/rgb_raw/camera_info"),
            rgb("/zed/zed_node/left/image_rect_color"),
            rgb("/zed/zed_node/right/image_rect_color", R),
            cam("/zed/zed_node/right/camera_info", R),
            m("/zed/zed_node/depth/depth_registered"),
            cam("/zed/zed_node/depth/camera_info"),
            m("/zed/zed_node/confidence/confidence_map"),
            m("/zed/zed_node/disparity/disparity_image"),
        ],
        (
            "/zed/zed_node/rgb/image_rect_color",
            "/zed/zed_node/depth/depth_registered",
            "/zed/zed_node/rgb/camera_info",
        ),
    ),
    "Orbbec, depth registered by the driver": (
        [
            rgb("/camera/color/image_raw"),
            cam("/camera/color/camera_info"),
            mm("/camera/depth/image_raw"),
            cam("/camera/depth/camera_info"),
            grey("/camera/ir/image_raw"),
        ],
        ("/camera/color/image_raw", "/camera/depth/image_raw", "/camera/color/camera_info"),
    ),
    "Kinect of ROS 1": (
        [
            rgb("/camera/rgb/image_color", "/" + C),
            cam("/camera/rgb/camera_info", "/" + C),
            m("/camera/depth/image", D),
            m("/camera/depth_registered/image"),
            mm("/camera/depth_registered/image_raw"),
        ],
        ("/camera/rgb/image_color", "/camera/depth_registered/image", "/camera/rgb/camera_info"),
    ),
    "depthai, whose name holds the word": (
        [
            compressed("/depthai/rgb/image_raw/compressed", START, "jpeg", JPEG, C),
            cam("/depthai/rgb/camera_info"),
            mm("/depthai/stereo/image_raw"),
            cam("/depthai/stereo/camera_info"),
        ],
        ("/depthai/rgb/image_raw/compressed", "/depthai/stereo/image_raw", "/depthai/rgb/camera_info"),
    ),
    "two cameras with the same frame names": (
        [
            rgb("/front/color/image_raw"),
            cam("/front/color/camera_info"),
            rgb("/rear/color/image_raw"),
            cam("/rear/color/camera_info"),
            mm("/rear/aligned_depth_to_color/image_raw"),
            mm("/front/depth/image_raw"),
        ],
        ("/rear/color/image_raw", "/rear/aligned_depth_to_color/image_raw", "/rear/color/camera_info"),
    ),
    "raw and compressed of one camera": (
        [
            rgb("/c/rgb/image"),
            compressed("/c/rgb/image/compressed", START, "jpeg", JPEG, C),
            mm("/c/depth/image"),
            compressed("/c/depth/image/compressedDepth", START, "16UC1; compressedDepth png", PNG, C),
            cam("/c/rgb/camera_info"),
        ],
        ("/c/rgb/image", "/c/depth/image", "/c/rgb/camera_info"),
    ),
    "depth of another size comes after one of the colour image's": (
        [
            rgb("/c/rgb/image"),
            image("/c/depth/image", START, BIG, "16UC1", frame=C),
            mm("/c/other_depth/image"),
            cam("/c/rgb/camera_info"),
        ],
        ("/c/rgb/image", "/c/other_depth/image", "/c/rgb/camera_info"),
    ),
    "a calibration of the colour camera that lies elsewhere": (
        [rgb("/a/image"), mm("/a/depth"), cam("/calibration/left", D), cam("/calibration/color")],
        ("/a/image", "/a/depth", "/calibration/color"),
    ),
    "empty topics are not chosen": (
        [rgb("/b/rgb/image"), mm("/b/depth/image"), cam("/b/rgb/camera_info")],
        ("/b/rgb/image", "/b/depth/image", "/b/rgb/camera_info"),
    ),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_what_belongs_together_is_chosen_and_said(name, tmp_path):
    sent, chosen = CAMERAS[name]
    recording = Recording(record(tmp_path, sent))
    assert (recording.rgb, recording.depth, recording.camera_info) == chosen
    assert all(topic in recording.reason for topic in chosen)
    assert recording.problems == []


def test_the_reason_names_the_frame(tmp_path):
    reason = Recording(record(tmp_path, CAMERAS["RealSense with alignment"][0])).reason
    assert "both in frame color_frame, registered by its name" in reason


def test_unregistered_depth_is_refused_unless_it_is_named(tmp_path):
    sent = [rgb("/camera/color/image_raw"), cam("/camera/color/camera_info"), mm("/camera/depth/image_rect_raw", D)]
    path = record(tmp_path, sent)
    with pytest.raises(RecordingError, match=r"in frame depth_frame, colour .* --depth /camera/depth/image_rect_raw"):
        Recording(path)
    recording = Recording(path, depth="/camera/depth/image_rect_raw")
    assert len(list(recording)) == 1
    assert "is in frame depth_frame, colour /camera/color/image_raw in color_frame" in recording.problems[0]


def test_a_registered_name_with_another_frame_is_read_with_a_warning(tmp_path):
    sent = [rgb("/c/color/image"), cam("/c/color/camera_info"), mm("/c/depth_registered/image", D)]
    recording = Recording(record(tmp_path, sent))
    assert len(list(recording)) == 1
    assert "its name says that it is registered" in recording.problems[0]


def test_images_of_other_cameras_are_not_passed_over_in_silence(tmp_path):
    sent = [
        *(rgb("/cam_a/color/image_raw", "a"), cam("/cam_a/color/camera_info", "a")),
        *(rgb("/cam_bb/color/image_raw", "b"), cam("/cam_bb/color/camera_info", "b")),
        mm("/cam_bb/aligned_depth_to_color/image_raw", "b"),
    ]
    recording = Recording(record(tmp_path, sent))
    assert recording.rgb == "/cam_bb/color/image_raw"
    assert "/cam_a/color/image_raw: its 1 images are not read" in recording.invalid[0]
    # A set by hand takes what belongs to the topic that was named, or says that nothing does.
    with pytest.raises(RecordingError, match="is in frame b, colour /cam_a/color/image_raw in a"):
        Recording(recording.path, rgb="/cam_a/color/image_raw")


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        ([rgb("/c/rgb/image"), cam("/c/rgb/camera_info")], "looks like a depth image; it has: .*/c/rgb/image"),
        ([mm("/c/depth/image"), cam("/c/rgb/camera_info")], "looks like a colour image"),
        ([rgb("/c/rgb/image"), mm("/c/depth/image")], "has no sensor_msgs/msg/CameraInfo topic of /c/rgb/image"),
        (
            [rgb("/c/rgb/image"), mm("/c/depth/image"), cam("/c/depth/camera_info", D)],
            r"it has /c/depth/camera_info \(frame depth_frame\). Record /c/rgb/camera_info",
        ),
        (
            [
                rgb("/c/rgb/image"),
                cam("/c/rgb/camera_info"),
                compressed("/c/depth/image/compressed", START, "16UC1; jpeg compressed ", JPEG, C),
            ],
            "is JPEG .* which keeps no depth",
        ),
    ],
)
def test_what_is_missing_is_named(sent, words, tmp_path):
    with pytest.raises(RecordingError, match=words) as caught:
        Recording(record(tmp_path, sent))
    assert "bag" in str(caught.value)


def test_topics_that_are_named_are_taken(tmp_path):
    sent, _ = CAMERAS["ZED"]
    path = record(tmp_path, sent)
    recording = Recording(
        path, rgb="/zed/zed_node/left/image_rect_color", camera_info="/zed/zed_node/depth/camera_info"
    )
    assert recording.rgb == "/zed/zed_node/left/image_rect_color"
    assert recording.camera_info == "/zed/zed_node/depth/camera_info"
    with pytest.raises(RecordingError, match="has no topic /nothing; it has"):
        Recording(path, depth="/nothing")


def test_floating_point_depth_in_millimetres_is_taken_so_and_said(tmp_path):
    """REP 118 says metres; programs that make float32 of their uint16 publish such."""
    sent = [m for m in plain(3) if m.topic != DEPTH]
    sent += [
        image(DEPTH, START + i * PERIOD, np.full((HEIGHT, WIDTH), 812.5 + i, np.float32), "32FC1") for i in range(3)
    ]
    recording = Recording(record(tmp_path, sent))
    seen = [float(f.depth[0, 0] * f.depth_scale) for f, _ in recording]
    np.testing.assert_allclose(seen, [0.8125, 0.8135, 0.8145], rtol=1e-6)
    assert any("has a median of 812, so it is taken for millimetres" in line for line in recording.problems)


def test_encodings_that_are_no_depth_are_listed(tmp_path):
    sent = [m for m in plain(2) if m.topic != DEPTH]
    sent += [image(DEPTH, m.stamp, np.full((HEIGHT, WIDTH), 80, np.uint8), "8UC1") for m in sent if m.topic == RGB]
    with pytest.raises(RecordingError, match=r"/camera/aligned_depth_to_color/image_raw .sensor_msgs/msg/Image, 8UC1"):
        Recording(record(tmp_path, sent))


def test_a_topic_of_our_own_masks_is_no_colour(tmp_path):
    sent = [*plain(2), grey("/mask/mug", C)]
    recording = Recording(record(tmp_path, sent))
    assert recording.masks == {"/mask/mug": "mug"} and recording.invalid == []


def test_video_is_named_with_what_makes_images_of_it(tmp_path):
    kind = "theora_image_transport/msg/Packet"
    with (tmp_path / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema(kind, "ros2msg", b"uint8[] data")
        channel = writer.register_channel("/c/color/image_raw/theora", "cdr", schema)
        writer.add_message(channel, START, b"\0\1\0\0\0\0\0\0", START)
        writer.finish()
    with pytest.raises(RecordingError, match="/c/color/image_raw/theora is video.*republish.*in_transport:=theora"):
        Recording(tmp_path / "a.mcap")
