"""Colour recorded as video packets: which image is whose, and what is lost."""

from __future__ import annotations

import base64
import json
from fractions import Fraction

import av
import numpy as np
import pytest
from mcap.writer import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from rfdetr_foundationpose.replay.recording_packets import PacketDecoder
from support.bags import DEPTH, HEIGHT, INFO, PERIOD, START, WIDTH, plain, serialized

STORE = get_typestore(Stores.ROS2_HUMBLE)
FFMPEG, FOXGLOVE = "ffmpeg_image_transport_msgs/msg/FFMPEGPacket", "foxglove_msgs/msg/CompressedVideo"
STORE.register(
    get_types_from_msg(
        "std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\nuint8 flags\nbool is_bigendian\nuint8[] data\n",
        FFMPEG,
    )
    | get_types_from_msg("builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n", FOXGLOVE)
)
VIDEO = "/camera/color/image_raw/ffmpeg"
FRAME = "camera_color_optical_frame"
NEEDS_X264 = pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no libx264")


def encoded(count, codec, options=()):
    """(number of the image, packet): in the order of decoding; grey tells the images apart."""
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate, context.bit_rate = Fraction(1, 30), Fraction(30), 2_000_000
    context.options = dict(options)
    packets = []
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 20 + 10 * i, np.uint8))
        frame.pts, frame.time_base = i, Fraction(1, 30)
        packets += context.encode(frame)
    return [(p.pts, bytes(p)) for p in [*packets, *context.encode(None)]]


def stamp(i):
    return STORE.types["builtin_interfaces/msg/Time"](*divmod(START + i * PERIOD, 1_000_000_000))


def of_ros(kind, i, data, codec):
    if kind == FFMPEG:
        header = STORE.types["std_msgs/msg/Header"](stamp(i), FRAME)
        message = STORE.types[FFMPEG](header, WIDTH, HEIGHT, codec, i, 0, False, np.frombuffer(data, np.uint8))
    else:
        message = STORE.types[FOXGLOVE](stamp(i), FRAME, np.frombuffer(data, np.uint8), codec)
    return bytes(STORE.serialize_cdr(message, kind))


def record(path, packets, kind=FFMPEG, codec="vp9", others=None, json_schema=False):
    """Packets in their order beside depth and calibration; image i has depth 500 + i mm."""
    with path.open("wb") as file:
        writer = Writer(file)
        writer.start()
        channels = {}
        for item in [m for m in plain(12) if m.topic in (DEPTH, INFO)] if others is None else others:
            if item.topic not in channels:
                schema = writer.register_schema(item.kind, "ros2msg", b"")
                channels[item.topic] = writer.register_channel(item.topic, "cdr", schema)
            writer.add_message(channels[item.topic], item.time, serialized(item), item.time)
        name, encoding = ("foxglove.CompressedVideo", "jsonschema") if json_schema else (kind, "ros2msg")
        channel = writer.register_channel(
            VIDEO, "json" if json_schema else "cdr", writer.register_schema(name, encoding, b"")
        )
        for order, (i, data) in enumerate(packets):
            sec, nsec = divmod(START + i * PERIOD, 1_000_000_000)
            tree = {
                "timestamp": {"sec": sec, "nsec": nsec},
                "frame_id": FRAME,
                "format": codec,
                "data": base64.b64encode(data).decode(),
            }
            message = json.dumps(tree).encode() if json_schema else of_ros(kind, i, data, codec)
            writer.add_message(channel, START + order * PERIOD, message, START + order * PERIOD)
        writer.finish()
    return path


def pairs(tape):
    """The numbers of colour and depth of each frame."""
    return [(round((f.rgb.mean() - 20) / 10), int(f.depth[0, 0]) - 500) for f, _ in tape]


@pytest.mark.parametrize(("kind", "json_schema"), [(FFMPEG, False), (FOXGLOVE, False), (FOXGLOVE, True)])
def test_packets_become_the_images_of_their_stamps(tmp_path, kind, json_schema):
    options = {"lag-in-frames": "0", "deadline": "realtime"}
    tape = Recording(
        record(tmp_path / "a.mcap", encoded(12, "libvpx-vp9", options.items()), kind, json_schema=json_schema)
    )
    assert tape.rgb == VIDEO and len(tape) == 12
    assert pairs(tape) == [(i, i) for i in range(12)] and not tape.problems
    assert {f.frame_id for f, _ in tape} == {FRAME}


@NEEDS_X264
@pytest.mark.parametrize("codec", ["libx264", "h264_nvenc", "h264;yuv420p;bgr8;bgr8"])
def test_images_that_come_later_than_their_packets(tmp_path, codec):
    """With frames predicted from later ones; encoders write their names, or those of their codecs."""
    packets = encoded(12, "libx264", {"bf": "2", "g": "12"}.items())
    assert [i for i, _ in packets] != sorted(i for i, _ in packets)
    tape = Recording(record(tmp_path / "a.mcap", packets, codec=codec))
    assert pairs(tape) == [(i, i) for i in range(12)] and not tape.problems


@NEEDS_X264
def test_packets_before_the_first_key_frame_and_damaged_ones_are_counted(tmp_path):
    packets = encoded(12, "libx264", {"bf": "0", "g": "4", "sc_threshold": "0", "tune": "zerolatency"}.items())
    tape = Recording(record(tmp_path / "a.mcap", packets[2:], codec="h264"))
    assert pairs(tape) == [(i, i) for i in range(4, 12)]
    assert tape.tally.dropped["unreadable"] == 2 and any("give no image" in line for line in tape.problems)


def test_a_codec_that_is_not_read_is_named(tmp_path):
    tape = Recording(record(tmp_path / "a.mcap", [(i, b"abc") for i in range(12)], codec="theora"))
    assert not pairs(tape) and any("its codec 'theora' is not read, only h264" in line for line in tape.problems)


def test_images_are_taken_before_video_and_video_is_no_depth(tmp_path):
    packets = [(i, b"abc") for i in range(12)]
    tape = Recording(record(tmp_path / "a.mcap", packets, others=plain(12)))
    assert tape.rgb == "/camera/color/image_raw"
    with pytest.raises(RecordingError, match="image_raw/ffmpeg is video, which keeps no depth"):
        Recording(tmp_path / "a.mcap", depth=VIDEO)
    beside = [m for m in plain(12) if m.topic != DEPTH]
    path = record(tmp_path / "b.mcap", packets, others=beside)
    data = path.read_bytes().replace(b"/camera/color/image_raw/ffmpeg", b"/camera/depth/image_raw/ffmpeg")
    (tmp_path / "b.mcap").write_bytes(data)
    with pytest.raises(RecordingError, match="looks like a depth image"):
        Recording(tmp_path / "b.mcap")


def test_packets_without_an_image_are_not_kept():
    decoder = PacketDecoder(FFMPEG)
    for number in range(300):
        assert list(decoder.feed(number, of_ros(FFMPEG, number % 10, bytes([number % 256]) * 40, "vp9"))) == []
    assert decoder.lost and len(decoder._sent) < 100
