"""Which image belongs to which: late, doubled, missing and drifting stamps, and calibrations that change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.replay.recording_frames import Assembler
from rfdetr_foundationpose.replay.recording_index import Tally
from rfdetr_foundationpose.replay.recording_pairs import Pair, Stamped, make_plan, match_times
from support.bags import DEPTH, INFO, PERIOD, RGB, START, color, depth, info, write_mcap, write_rosbag2

COUNT = 20


def stamps() -> list[int]:
    return [START + i * PERIOD for i in range(COUNT)]


def read(folder: Path, sent: list, **options: object) -> tuple[list[tuple[int, int, float]], Recording]:
    """(number of the colour image, of its depth image, focal length) of each frame; sums are checked."""
    recording = Recording(write_rosbag2(folder / "bag", sent), **options)
    frames = [(int(f.rgb[0, 0, 2]), int(f.depth[0, 0]) - 500, f.camera.fx) for f, _ in recording]
    tally = recording.tally
    published = sum(1 for s in sent if s.topic == RGB)
    assert tally.published == published == len(frames) + sum(tally.dropped.values())
    assert sum(1 for s in sent if s.topic == DEPTH) == tally.depth_unmatched + len(frames) + (
        published - len(frames) - tally.dropped["unmatched"]
    )
    return frames, recording


@pytest.mark.parametrize("late_ms", [-800, 0, 100, 300, 2500])
def test_depth_may_be_recorded_at_another_time(late_ms, tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [info(t), color(t, value=i), depth(t, t + late_ms * 1_000_000, value=500 + i)]
    frames, _ = read(tmp_path, sent)
    assert frames == [(i, i, 60.0) for i in range(COUNT)]


def test_two_recordings_put_one_behind_the_other(tmp_path):
    """All colour first, all depth after it, as a merge by file leaves them."""
    first = [s for i, t in enumerate(stamps()) for s in (info(t), color(t, value=i))]
    second = [depth(t, value=500 + i) for i, t in enumerate(stamps())]
    recording = Recording(write_mcap(tmp_path / "merged.mcap", [*first, *second]))
    assert [int(f.depth[0, 0]) - 500 for f, _ in recording] == list(range(COUNT))


@pytest.mark.parametrize("shared", [COUNT, 5, 2])
def test_images_that_share_a_stamp_are_frames_by_their_recording(shared, tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        stamp = 0 if shared == COUNT else START + i // shared * 10**9
        sent += [info(stamp, t), color(stamp, t, value=i), depth(stamp, t + 2_000_000, value=500 + i)]
    frames, recording = read(tmp_path, sent)
    assert frames == [(i, i, 60.0) for i in range(COUNT)]
    assert [f.stamp_ns for f, _ in recording] == stamps()
    assert any("have the stamp of another one" in p for p in recording.problems)


def test_of_images_that_share_a_stamp_a_lost_one_leaves_the_others_together(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [info(0, t), color(0, t, value=i)]
        if i not in (4, 11):
            sent.append(depth(0, t + 5_000_000, value=500 + i))
    frames, recording = read(tmp_path, sent)
    assert frames == [(i, i, 60.0) for i in range(COUNT) if i not in (4, 11)]
    assert recording.tally.dropped == {"unmatched": 2}


@pytest.mark.parametrize(
    ("stamp", "words"),
    [
        (lambda t: t - 86_400_000_000_000, "begin -86400.0 s beside those of colour"),
        (lambda t: t - START + 10**9, "beside those of colour"),
        (lambda t: 0, "are all the same"),
    ],
    ids=["yesterday", "since the camera was turned on", "none"],
)
def test_depth_of_another_clock_pairs_by_its_recording(stamp, words, tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [info(t), color(t, value=i), depth(stamp(t), t + 3_000_000, value=500 + i)]
    frames, recording = read(tmp_path, sent)
    assert [(c, d) for c, d, _ in frames] == [(i, i) for i in range(COUNT)]
    assert any("the stamps of depth" in line and words in line for line in recording.problems)


def test_depth_of_another_run_of_the_camera_pairs_with_nothing(tmp_path):
    """Neither by stamps nor by the times of recording."""
    sent = [m for t in stamps() for m in (info(t), color(t), depth(t + 100 * PERIOD))]
    frames, recording = read(tmp_path, sent)
    assert not frames and not any("stamps of depth" in line for line in recording.problems)


def test_a_clock_that_starts_again_pairs_within_its_own_run(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        stamp = (i % 10) * PERIOD
        sent += [info(stamp, t), color(stamp, t, value=i), depth(stamp, t + 40_000_000, value=500 + i)]
    frames, _ = read(tmp_path, sent)
    assert frames == [(i, i, 60.0) for i in range(COUNT)]


def test_near_stamps_pair_closest_first(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [info(t), color(t, value=i)]
        if i != 7:
            sent.append(depth(t + 9_000_000, value=500 + i))
    frames, recording = read(tmp_path, sent)
    assert frames == [(i, i, 60.0) for i in range(COUNT) if i != 7]
    frames, recording = read(tmp_path / "exact", sent, slop=0.005)
    assert frames == [] and recording.unmatched == 2 * COUNT - 1
    with pytest.raises(ValueError, match="20 have no depth image"):
        recording.check()


@pytest.mark.parametrize("lag_ms", [0, 3, 150])
def test_a_calibration_changes_at_its_image(lag_ms, tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        fx = 60.0 if i < 9 else 75.0
        sent += [color(t, value=i), depth(t, value=500 + i), info(t, t + lag_ms * 1_000_000, fx=fx)]
    frames, _ = read(tmp_path, sent)
    assert [fx for *_, fx in frames] == [60.0] * 9 + [75.0] * 11


def test_a_calibration_without_a_stamp_changes_by_its_recording(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [info(0, t - 1_000_000, fx=60.0 if i < 9 else 75.0), color(t, value=i), depth(t, value=500 + i)]
    frames, _ = read(tmp_path, sent)
    assert [fx for *_, fx in frames] == [60.0] * 9 + [75.0] * 11


def test_a_calibration_sent_now_and_then_holds_until_the_next(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        if i % 6 == 2:
            sent.append(info(t + 1, fx=60.0 + i))
        sent += [color(t, value=i), depth(t, value=500 + i)]
    frames, _ = read(tmp_path, sent)
    # The first images, before any calibration, take the first.
    assert [fx for *_, fx in frames] == [62.0] * 9 + [68.0] * 6 + [74.0] * 5


@pytest.mark.parametrize("when", [-1, 0.4, 2])
def test_a_latched_calibration_is_that_of_all_images(when, tmp_path):
    at = START + int(when * COUNT * PERIOD)
    sent = [info(0, at)]
    for i, t in enumerate(stamps()):
        sent += [color(t, value=i), depth(t, value=500 + i)]
    frames, _ = read(tmp_path, sent)
    assert len(frames) == COUNT


def test_an_impossible_calibration_is_counted(tmp_path):
    sent = []
    for i, t in enumerate(stamps()):
        sent += [color(t, value=i), depth(t, value=500 + i), info(t, fx=0.0 if i == 3 else 60.0)]
    frames, recording = read(tmp_path, sent)
    assert len(frames) == COUNT - 1
    assert recording.tally.dropped == {"bad_camera_info": 1} and "camera matrix" in recording.invalid[0]


def test_distortion_is_said_once_counted_and_undone(tmp_path):
    sent = []
    for i, t in enumerate(stamps()[:4]):
        sent += [color(t, value=i), depth(t, value=500 + i), info(t, d=(-0.2, 0.05, 0.0, 0.0, 0.0))]
    path = write_rosbag2(tmp_path / "bag", sent)
    recording = Recording(path)
    plain = [f for f, _ in recording]
    assert recording.tally.distorted == 4
    (problem,) = recording.problems
    assert RGB in problem and "plumb_bob, -0.2, 0.05" in problem and "input.rectify" in problem
    straight = Recording(path, rectify=True)
    flat = [f for f, _ in straight]
    assert straight.problems == [] and straight.tally.distorted == 0
    assert flat[0].camera == plain[0].camera
    assert not np.array_equal(flat[0].rgb, plain[0].rgb)
    rect = [s._replace(topic=s.topic.replace("image_raw", "image_rect").replace(INFO, INFO)) for s in sent]
    recording = Recording(write_rosbag2(tmp_path / "rect", rect), rectify=True)
    assert len(list(recording)) == 4 and recording.problems == [] and recording.rgb.endswith("image_rect")


def test_a_lens_that_input_rectify_does_not_know_is_counted(tmp_path):
    sent = []
    for i, t in enumerate(stamps()[:3]):
        sent += [color(t, value=i), depth(t, value=500 + i), info(t, d=(0.1, 0.2), model="double_sphere")]
    recording = Recording(write_rosbag2(tmp_path / "bag", sent), rectify=True)
    assert list(recording) == []
    assert recording.tally.dropped == {"bad_camera_info": 3}
    assert recording.tally.sentences()[0].startswith("3 images make no frame: camera_info has distortion_model")


@pytest.mark.parametrize(("late", "held"), [(0, 2), (10, 13)])
def test_no_more_images_wait_than_depth_is_late(late, held, tmp_path):
    """Memory does not grow with a recording. late: frames by which depth is recorded late."""
    sent = []
    for i in range(120):
        t = START + i * PERIOD
        sent += [info(t), color(t, value=i), depth(t, t + late * PERIOD, value=500 + i)]
    recording = Recording(write_rosbag2(tmp_path / "bag", sent))
    assembler = Assembler(recording._source, recording.index, Tally())
    most = 0
    for _ in assembler.frames():
        most = max(most, sum(len(waiting.images) for waiting in assembler._waiting.values()))
    assert most <= held


def test_random_streams_never_lose_an_image_uncounted():
    """Stamps and times of any kind: each image is in one pair at most, and the sums hold."""
    rng = np.random.default_rng(5)
    for _ in range(200):
        streams = []
        for kind in range(3):
            n = int(rng.integers(0, 25))
            base = np.sort(rng.integers(0, 40, n)) if rng.random() < 0.5 else np.arange(n)
            stamp = base * int(rng.choice([0, 1, 1, 5]))
            time = np.sort(rng.integers(0, 60, n)) + kind
            streams.append([Stamped(i, int(stamp[i]), int(time[i])) for i in range(n)])
        slop = int(rng.choice([0, 1, 3]))
        plan = make_plan(*streams, slop)
        pairs = plan.pairs
        assert len(plan.images) == len(streams[0])
        assert len({p.color.number for p in pairs}) == len({p.depth.number for p in pairs}) == len(pairs)
        assert all(abs(p.color.stamp - p.depth.stamp) <= slop for p in pairs)
        dropped = [i for i in plan.images if not isinstance(i, Pair)]
        assert set(dropped) <= {"unmatched", "no_camera_info"}
        if streams[2]:
            assert plan.depth_unmatched == len(streams[1]) - len(pairs)


def test_times_match_one_by_one_or_mutually_nearest():
    assert match_times([0, 33, 66], [500, 533, 566]) == [(0, 0), (1, 1), (2, 2)]
    assert match_times([0, 33, 66], [1, 67]) == [(0, 0), (2, 1)]
    assert match_times([0, 33], []) == []
