"""A video as colour beside depth images: which frame belongs to which."""

from __future__ import annotations

import shutil
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
import pytest

from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from rfdetr_foundationpose.replay.recording_video import frame_times
from rfdetr_foundationpose.replay.recording_video import frames as frames_of
from support.image_folders import MILLIMETRES, K, write


def test_colour_of_a_phone_is_a_video(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{:06d}.png", count=4, camera=("camera_matrix.csv", K.replace(" ", ", ")))
    with av.open(str(tmp_path / "rgb.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=60)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        for i in range(4):
            picture = cv2.imread(str(tmp_path / "rgb" / f"{i}.png"))
            (tmp_path / "rgb" / f"{i}.png").unlink()
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    tape = Recording(tmp_path)
    frames = [frame for frame, _ in tape]
    assert len(tape) == len(frames) == 4 and tape.timed and not tape.problems
    assert [round((b.stamp_ns - a.stamp_ns) / 1e6) for a, b in pairwise(frames)] == [17, 17, 17]
    for i, frame in enumerate(frames):
        assert frame.rgb[10, 2, 0] > 150 and frame.rgb[10, 40, 0] < 90
        np.testing.assert_array_equal(frame.depth, MILLIMETRES + i)
    data = (tmp_path / "rgb.mp4").read_bytes()
    (tmp_path / "rgb.mp4").write_bytes(data[:200])
    with pytest.raises(RecordingError, match="rgb.mp4 is no video that can be read"):
        Recording(tmp_path)


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no libx264")
def test_a_video_without_its_key_frame_is_refused(tmp_path):
    write(tmp_path, "rgb/{}.png", "depth/{}.png")
    shutil.rmtree(tmp_path / "rgb")
    with av.open(str(tmp_path / "rgb.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8))
        packets = [p for _ in range(4) for p in stream.encode(grey)] + stream.encode()
        file.mux(packets[1:])
    with pytest.raises(RecordingError, match="rgb.mp4 shows no frame, though it holds some"):
        Recording(tmp_path)


def test_frames_that_were_cut_off_a_video_are_not_counted(tmp_path):
    """Trimming on a phone leaves them in the file, behind an edit list."""
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("mpeg4", rate=30, options={"sc_threshold": "1000000000"})  # one key frame
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuv420p", 4_000_000
        packets = [
            p
            for i in range(8)
            for p in stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 25 * i, np.uint8)))
        ]
        file.mux([*packets, *stream.encode()])
    with av.open(str(tmp_path / "a.mp4")) as file, av.open(str(tmp_path / "b.mp4"), "w") as cut:
        out = cut.add_stream_from_template(file.streams.video[0])
        for packet in [p for p in file.demux(file.streams.video[0]) if p.size]:
            packet.pts, packet.dts = (stamp - 3 * packet.duration for stamp in (packet.pts, packet.dts))
            packet.stream = out
            cut.mux(packet)
    with av.open(str(tmp_path / "b.mp4")) as file:
        assert sum(p.size > 0 for p in file.demux(file.streams.video[0])) == 8
    shown = [(at, frame.mean()) for at, frame in frames_of(tmp_path / "b.mp4")]
    assert len(shown) == 5 and abs(shown[0][1] - 75) < 8
    assert [at for at, _ in shown] == frame_times(tmp_path / "b.mp4")
    assert [round(t / 1e6) for t in frame_times(tmp_path / "b.mp4")] == [0, 33, 67, 100, 133]


def record(folder, shown, depth, *, name="rgb.mp4", rate=30, codec="mpeg4"):
    """shown: the moment of each frame, which its grey tells, and its time in 1/rate s. depth: the moment of each depth image, which
    its millimetres tell, and its file."""
    with av.open(str(folder / name), "w") as file:
        stream = file.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.bit_rate = 64, 48, 4_000_000
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        for moment, at in shown:
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 8 * moment, np.uint8))
            frame.pts, frame.time_base = at, Fraction(1, rate)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    (folder / "depth").mkdir()
    for moment, path in depth:
        cv2.imwrite(str(folder / "depth" / path), np.full((48, 64), 400 + moment, np.uint16))
    (folder / "cam_K.txt").write_text(K)


def pairs(tape):
    """The moments of colour and depth of each frame."""
    return [(round((f.rgb.mean() - 20) / 8), int(f.depth[0, 0]) - 400) for f, _ in tape]


def test_as_many_frames_as_depth_images_belong_together_one_by_one(tmp_path):
    """Stray Scanner leaves out frames of both, and numbers depth by those that are left."""
    every = range(0, 20, 2)
    record(tmp_path, [(m, m) for m in every], [(m, f"{i:06d}.png") for i, m in enumerate(every)])
    tape = Recording(tmp_path)
    assert pairs(tape) == [(m, m) for m in every] and not tape.problems


def test_depth_may_be_counted_from_one_and_not_be_there_for_each_frame(tmp_path):
    record(tmp_path, [(m, m) for m in range(9)], [(m, f"{m + 1:04d}.png") for m in range(9) if m != 4])
    assert pairs(Recording(tmp_path)) == [(m, m) for m in range(9) if m != 4]
    shutil.rmtree(tmp_path / "depth")
    record(tmp_path, [(m, m) for m in range(9)], [(m, f"{m:04d}.png") for m in (0, 3, 6)])
    assert pairs(Recording(tmp_path)) == [(0, 0), (3, 3), (6, 6)]


def test_gaps_in_the_times_tell_which_frames_a_video_lost(tmp_path):
    kept = [m for m in range(20) if m not in (5, 6, 13)]
    record(tmp_path, [(m, m) for m in kept], [(m, f"{m}.png") for m in range(20)])
    tape = Recording(tmp_path)
    assert pairs(tape) == [(m, m) for m in kept] and tape.tally.depth_unmatched == 3
    assert any("lost 3 frames where its times have gaps" in line for line in tape.problems)


def test_frames_that_were_lost_without_a_gap_are_said(tmp_path):
    kept = [m for m in range(20) if m not in (5, 6, 13)]
    record(tmp_path, [(m, i) for i, m in enumerate(kept)], [(m, f"{m}.png") for m in range(20)])
    tape = Recording(tmp_path)
    assert any("has 17 frames, and depth counts up to 19" in line for line in tape.problems)


@pytest.mark.parametrize(
    "name", ["{:.4f}.png", "{:.0f}ns"], ids=["seconds since 1970", "ns since the device was turned on"]
)
def test_depth_with_times_pairs_by_time(tmp_path, name):
    """Either camera loses images, as many here, and the video's rate varies."""

    def file(moment):
        if name.endswith("ns"):
            return f"{round(7.1e12 + moment * 1e9 / 30)}.png"
        return name.format(1.7e9 + moment / 30)

    shown = [m for m in range(25) if m not in (3, 4, 11)]
    taken = [m for m in range(25) if m not in (17, 20, 21)]
    record(tmp_path, [(m, 10 * m + m % 3) for m in shown], [(m, file(m)) for m in taken], rate=300)
    tape = Recording(tmp_path)
    both = [m for m in shown if m in taken]
    assert pairs(tape) == [(m, m) for m in both]
    assert any("pairs with depth by time, its first frame with the first depth image" in line for line in tape.problems)


def test_times_from_the_beginning_of_the_video_are_its_own(tmp_path):
    """The depth camera came later."""
    record(tmp_path, [(m, m) for m in range(20)], [(m, f"{m / 30:.4f}.png") for m in range(4, 20)], name="color.mkv")
    assert pairs(Recording(tmp_path)) == [(m, m) for m in range(4, 20)]


def test_a_video_of_a_nominal_rate_pairs_one_by_one_or_not_at_all(tmp_path):
    """As OpenCV's VideoWriter writes it, whatever the camera's rate was."""
    depth = [(m, f"{1.7e9 + m * 0.041:.4f}.png") for m in range(30)]
    record(tmp_path, [(m, m) for m in range(30)], depth)
    tape = Recording(tmp_path)
    assert pairs(tape) == [(m, m) for m in range(30)]
    assert any("one by one: its times are not those of the depth images (0.97 s" in line for line in tape.problems)
    stamps = [frame.stamp_ns for frame, _ in tape]
    assert abs((stamps[-1] - stamps[0]) / 1e9 - 29 * 0.041) < 1e-3
    (tmp_path / "depth" / depth[7][1]).unlink()
    with pytest.raises(RecordingError, match=r"30 frames, and there are 29 depth images.*different clocks"):
        Recording(tmp_path)


def test_frames_that_an_edit_list_hides_are_used_where_depth_counts_them(tmp_path):
    record(tmp_path, [(m, m) for m in range(10)], [(m, f"{m}.png") for m in range(10)], name="whole.mp4")
    with av.open(str(tmp_path / "whole.mp4")) as file, av.open(str(tmp_path / "rgb.mp4"), "w") as cut:
        out = cut.add_stream_from_template(file.streams.video[0])
        for packet in [p for p in file.demux(file.streams.video[0]) if p.size]:
            packet.pts, packet.dts = (stamp - 2 * packet.duration for stamp in (packet.pts, packet.dts))
            packet.stream = out
            cut.mux(packet)
    (tmp_path / "whole.mp4").unlink()
    tape = Recording(tmp_path)
    assert pairs(tape) == [(m, m) for m in range(10)]
    assert any("its edit list hides 2 of 10 frames, which are used" in line for line in tape.problems)


@pytest.mark.parametrize("name", ["rgb.avi", "rgb.mkv", "rgb.mov"])
def test_a_frame_that_cannot_be_decoded_shifts_no_other(tmp_path, name):
    record(tmp_path, [(m, m) for m in range(24)], [(m, f"{m}.png") for m in range(24)], name=name, codec="mjpeg")
    with av.open(str(tmp_path / name)) as file:
        packet = [bytes(p) for p in file.demux(video=0) if p.size][9]
    data = (tmp_path / name).read_bytes()
    at = data.index(packet)
    (tmp_path / name).write_bytes(data[:at] + bytes(len(packet)) + data[at + len(packet) :])
    tape = Recording(tmp_path)
    assert pairs(tape) == [(m, m) for m in range(24) if m != 9]
    assert sum(tape.tally.dropped.values()) == 1 and any("0.300 s" in line for line in tape.problems)
