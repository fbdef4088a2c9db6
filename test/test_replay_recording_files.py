"""Recordings in every container, whole and damaged: what can be read is read, the rest is said and counted."""

from __future__ import annotations

import shutil
import sqlite3
import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

from rfdetr_foundationpose.replay.recording import Recording, RecordingError
from support.bags import (
    DEPTH,
    INFO,
    LAYOUTS,
    PERIOD,
    RGB,
    START,
    color,
    depth,
    image,
    info,
    plain,
    storage_file,
    write_mcap,
    write_ros1,
    write_rosbag2,
)


def read(path: Path, **options: object) -> tuple[list[int], Recording]:
    """Numbers of the frames that came (their blue pixel), each checked; and the recording, its sums checked."""
    recording = Recording(path, **options)
    numbers = []
    for frame, _ in recording:
        number = int(frame.rgb[0, 0, 2])
        assert frame.rgb[0, 0].tolist() == [200, 20, number]
        assert int(frame.depth[0, 0]) == 500 + number
        assert frame.camera.fx == 60.0 and frame.depth_scale == 0.001
        numbers.append(number)
    tally = recording.tally
    assert tally.published == len(numbers) + sum(tally.dropped.values())
    return numbers, recording


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_container_is_read_whole(layout, tmp_path):
    numbers, recording = read(LAYOUTS[layout](tmp_path, plain()))
    assert numbers == list(range(10))
    assert len(recording) == 10 and not recording.tally.dropped and not recording.invalid
    assert (recording.rgb, recording.depth, recording.camera_info) == (RGB, DEPTH, INFO)
    # A file that nobody closed is read, and that is said.
    assert [p for p in recording.problems if "did not close" not in p] == []


@pytest.mark.parametrize("layout", [n for n in LAYOUTS if "file in zstd" not in n and "bz2" not in n])
def test_of_a_cut_file_the_beginning_is_read(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, plain(40))
    file = storage_file(path)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * 0.6)])
    numbers, recording = read(path)
    if "ROS 1" not in layout or "mcap" in layout:  # a small ROS 1 bag is one chunk
        assert len(numbers) >= 15
    assert numbers == list(range(len(numbers)))
    assert any(
        str(file) in problem and ("recover" in problem or "reindex" in problem) for problem in recording.problems
    )


def test_a_cut_file_of_a_folder_counts_what_metadata_yaml_says(tmp_path):
    path = write_rosbag2(tmp_path / "bag", plain(40), "sqlite3")
    file = storage_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    numbers, recording = read(path)
    assert 10 < len(numbers) < 30
    assert recording.tally.published == 40
    assert set(recording.tally.dropped) <= {"unreadable", "unmatched"}


@pytest.mark.parametrize("layout", ["mcap, chunks in zstd", "mcap, chunks in lz4", "mcap, plain chunks"])
def test_one_damaged_chunk_costs_its_own_frames_only(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, plain(40))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    numbers, recording = read(path)
    assert 34 <= len(numbers) < 40
    assert {0, 39} <= set(numbers)
    assert recording.tally.published == 40
    assert any("the chunk at byte" in problem and "mcap recover" in problem for problem in recording.problems)


def test_one_damaged_page_costs_its_own_rows_only(tmp_path):
    path = write_rosbag2(tmp_path / "bag", plain(40), "sqlite3")
    file = storage_file(path)
    data = bytearray(file.read_bytes())
    page = 4096 * (len(data) // 4096 // 2)
    data[page : page + 4096] = b"\xff" * 4096
    file.write_bytes(data)
    numbers, recording = read(path)
    assert 35 <= len(numbers) < 40 and {0, 39} <= set(numbers)
    assert recording.tally.published == 40 and recording.problems


def test_an_index_that_points_elsewhere_is_not_believed(tmp_path):
    """Bytes lost in the middle of a copy: everything behind lies elsewhere than the index says."""
    for path in (write_mcap(tmp_path / "a.mcap", plain(40)), write_ros1(tmp_path / "a.bag", plain(250), "lz4")):
        data = path.read_bytes()
        middle = len(data) // 2
        path.write_bytes(data[:middle] + data[middle + 1000 :])
        numbers, recording = read(path)
        assert len(numbers) > 30, path
        assert any("reading goes on at" in p or "damaged" in p for p in recording.problems), path


@pytest.mark.parametrize("compression", ["", "bz2", "lz4"])
def test_a_ros1_bag_without_index_is_read(compression, tmp_path):
    """As rosbag leaves it when the recorder is killed: index_pos is 0, and nothing follows the last chunk."""
    path = write_ros1(tmp_path / "a.bag", plain(250), compression)
    data = bytearray(path.read_bytes())
    at = data.index(b"index_pos=") + len(b"index_pos=")
    (end,) = struct.unpack_from("<Q", data, at)
    data[at : at + 8] = bytes(8)
    killed = tmp_path / "a.bag.active"
    killed.write_bytes(data[:end])
    numbers, recording = read(killed)
    assert len(numbers) == 250 - recording.tally.dropped["unmatched"]
    assert "no index" in recording.problems[0] and "rosbag reindex" in recording.problems[0]


def test_a_write_ahead_log_is_read_and_left_alone(tmp_path):
    path = write_rosbag2(tmp_path / "bag", plain(5), "sqlite3")
    (path / "metadata.yaml").unlink()
    file = storage_file(path)
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA wal_autocheckpoint=0")
    topics = dict(db.execute("SELECT name, id FROM topics").fetchall())
    from support.bags import serialized

    for item in plain(10)[15:]:
        row = (topics[item.topic], item.time, serialized(item))
        db.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", row)
    db.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{file}{suffix}", killed / f"bag.db3{suffix}")
    db.close()
    before = {p.name: p.read_bytes() for p in killed.iterdir()}
    numbers, recording = read(killed)
    assert numbers == list(range(10))
    assert any("write-ahead log" in p for p in recording.problems)
    assert {p.name: p.read_bytes() for p in killed.iterdir()} == before


def test_metadata_yaml_is_not_needed_and_not_trusted(tmp_path):
    qos = Qos(
        *(QosHistory.KEEP_LAST, 5, QosReliability.RELIABLE, QosDurability.VOLATILE),
        *(QosTime(1, 0), QosTime(1, 0), QosLiveliness.AUTOMATIC, QosTime(1, 0), False),
    )
    path = write_rosbag2(tmp_path / "bag", plain(), qos=[qos])
    metadata = path / "metadata.yaml"
    whole = metadata.read_text()
    edits = {
        "durability: volatile": ("durability: transient_local", ""),
        "version: 9": ("version: 12", ""),
        "storage_identifier: mcap": ("storage_identifier: ''", ""),
        "relative_file_paths": ("relative_paths", "read by name"),
        "message_count: 10": ("message_count: 8", "says 8 messages"),
        RGB: ("/renamed", "files hold none"),
        "rosbag2_bagfile_information:": ("rosbag2_bagfile_information: [", "cannot be used"),
        "bag.mcap": ("another.mcap", "another.mcap, which is missing"),
    }
    for old, (new, said) in edits.items():
        assert old in whole, old
        metadata.write_text(whole.replace(old, new))
        numbers, recording = read(path)
        assert numbers == list(range(10)), old
        assert any(said in p for p in recording.problems) if said else not recording.problems, (old, recording.problems)
    metadata.write_text(whole)
    assert read(metadata)[0] == list(range(10))
    metadata.unlink()
    numbers, recording = read(path)
    assert numbers == list(range(10)) and "metadata.yaml is missing" in recording.problems[0]


def split(path: Path, sent: list, parts: int, storage: str = "mcap") -> Path:
    """A recording in several files, named as rosbag2 does."""
    path.mkdir()
    per = len(sent) // parts
    for i in range(parts):
        one = write_rosbag2(path / f"part{i}", sent[i * per : (i + 1) * per], storage)
        file = storage_file(one)
        file.rename(path / f"bag_{i}{file.suffix}")
        shutil.rmtree(one)
    return path


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_a_split_recording_is_read_in_order_and_without_a_missing_file(storage, tmp_path):
    path = split(tmp_path / "bag", plain(24), 12, storage)
    numbers, _ = read(path)
    assert numbers == list(range(24))
    next(path.glob("bag_3.*")).unlink()
    names = [f"  - bag_{i}.{'mcap' if storage == 'mcap' else 'db3'}" for i in range(12)]
    topics = "\n".join(
        f"  - topic_metadata: {{name: {t}, type: sensor_msgs/msg/Image}}\n    message_count: 24" for t in (RGB, DEPTH)
    )
    (path / "metadata.yaml").write_text(
        "rosbag2_bagfile_information:\n  relative_file_paths:\n"
        + "\n".join(names)
        + f"\n  topics_with_message_count:\n{topics}\n"
    )
    numbers, recording = read(path)
    assert numbers == [n for n in range(24) if n not in (6, 7)]
    assert recording.tally.dropped == {"unreadable": 2} and recording.tally.published == 24
    assert any("bag_3" in p and "missing" in p for p in recording.problems)


def test_a_damaged_zstd_file_is_named_by_its_own_name(tmp_path):
    path = write_rosbag2(tmp_path / "bag", plain(40), "sqlite3", "file")
    file = storage_file(path)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    try:
        numbers, recording = read(path)
        assert numbers and any(str(file) in p for p in recording.problems)
    except RecordingError as error:
        assert str(file) in str(error) and "/tmp/recording_" not in str(error)
    big = write_mcap(tmp_path / "b.mcap", plain(200))
    packed = zstandard.ZstdCompressor().compress(big.read_bytes())
    cut = tmp_path / "b.mcap.zstd"
    cut.write_bytes(packed[: len(packed) // 2])
    numbers, recording = read(cut)
    assert 60 < len(numbers) < 140
    assert f"{cut} is cut off" in recording.problems[0] and all(str(cut) in p for p in recording.problems)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.mcap", b"", "is empty: nothing was recorded"),
        ("a.db3", b"", "is empty"),
        ("a.bag", b"", "is empty"),
        ("a.mcap", bytes(5000), "no topic can be read from this MCAP file"),
        ("a.db3", b"SQLite format 3\0" + bytes(5000), "no topic can be read from this sqlite3 file"),
        ("a.bag", b"#ROSBAG V1.2\n" + bytes(500), "rosbag fix"),
        ("a.bag", b"#ROSBAG V2.0\n" + bytes(500), "no topic can be read from this ROS 1 bag"),
        ("a.txt", b"hello", "begins with b'hello'"),
        ("a.mcap.zstd", b"\x28\xb5\x2f\xfd" + bytes(100), "nothing of this zstd file can be read"),
    ],
)
def test_what_is_no_recording_is_one_sentence(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecordingError, match=words) as caught:
        Recording(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_database_and_folder_are_one_sentence(tmp_path):
    sqlite3.connect(tmp_path / "a.db3").execute("CREATE TABLE other (id INTEGER)")
    with pytest.raises(RecordingError, match="no such table"):
        Recording(tmp_path / "a.db3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RecordingError, match="neither metadata.yaml nor a file of"):
        Recording(tmp_path / "folder")
    write_rosbag2(tmp_path / "folder" / "bag", plain(1))
    with pytest.raises(RecordingError, match="in it are the folders bag"):
        Recording(tmp_path / "folder")


def test_messages_in_other_formats_are_named(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", plain(), encoding="protobuf")
    with pytest.raises(
        RecordingError, match="messages in protobuf are not read.* Record the topics of the camera's ROS driver"
    ):
        Recording(path)


def test_a_recording_without_messages_is_one_sentence(tmp_path):
    path = write_rosbag2(tmp_path / "bag", [info(START)])
    with pytest.raises(RecordingError, match="looks like a colour image"):
        Recording(path)


def test_an_empty_recording_says_that_nothing_was_recorded(tmp_path):
    for storage, words in (("mcap", "nothing was recorded"), ("sqlite3", "it has: no topics")):
        with pytest.raises(RecordingError, match=words):
            Recording(write_rosbag2(tmp_path / storage, [], storage))


def test_one_frame_is_a_recording(tmp_path):
    assert read(write_rosbag2(tmp_path / "bag", plain(1)))[0] == [0]


def test_damaged_messages_are_counted(tmp_path):
    """Messages that are cut inside: the container is sound, their bytes are not."""
    path = write_rosbag2(tmp_path / "bag", plain(), "sqlite3")
    db = sqlite3.connect(storage_file(path))
    topics = dict(db.execute("SELECT name, id FROM topics").fetchall())
    rows = {
        t: [r[0] for r in db.execute("SELECT id FROM messages WHERE topic_id=? ORDER BY id", (topics[t],))]
        for t in topics
    }
    for topic, number, size in ((RGB, 2, 6), (RGB, 4, 900), (DEPTH, 6, 900), (INFO, 0, 20)):
        db.execute("UPDATE messages SET data=substr(data,1,?) WHERE id=?", (size, rows[topic][number]))
    db.commit()
    db.close()
    numbers, recording = read(path)
    assert numbers == [0, 1, 3, 5, 7, 8, 9]
    assert recording.tally.published == 10
    assert recording.tally.dropped == {"damaged_message": 3}
    # The depth image of the one whose header is gone has no partner either.
    assert recording.unmatched == 1


def test_reading_a_recording_twice_says_the_same(tmp_path):
    path = write_mcap(tmp_path / "a.mcap", plain(40))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    recording = Recording(path)
    first = [f.stamp_ns for f, _ in recording], dict(recording.tally.dropped), recording.problems
    second = [f.stamp_ns for f, _ in recording], dict(recording.tally.dropped), recording.problems
    assert first == second


def test_the_digest_belongs_to_the_content(tmp_path):
    a = Recording(write_rosbag2(tmp_path / "a", plain())).identity()
    b = Recording(write_rosbag2(tmp_path / "b", plain(), "sqlite3")).identity()
    c = Recording(
        write_rosbag2(tmp_path / "c", [*plain(9), *(s._replace(stamp=s.stamp + 1) for s in plain()[27:])])
    ).identity()
    assert a == b and a["frames"] == 10
    assert a["digest"] != c["digest"]


def test_a_float_depth_and_big_endian_messages(tmp_path):

    sent = []
    for i in range(3):
        stamp = START + i * PERIOD
        metres = np.full((48, 64), 0.5 + i, ">f4")
        sent += [info(stamp), color(stamp), image(DEPTH, stamp, metres, "32FC1")]
        sent[-1] = sent[-1]._replace(fields=(*sent[-1].fields[:3], 1, *sent[-1].fields[4:]))
    recording = Recording(write_rosbag2(tmp_path / "bag", sent))
    assert [float(f.depth[0, 0]) for f, _ in recording] == [0.5, 1.5, 2.5]
    assert depth(START).kind.endswith("Image")
