"""Damaged recordings end in frames or in one sentence; ``make fuzz`` runs many of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfdetr_foundationpose.replay.recording import Recording
from support.bags import LAYOUTS, plain, storage_file
from support.fuzz import cases, damage_file, try_seeds

PER_LAYOUT = cases(6)


def read(path: Path) -> str:
    """Everything that ``replay`` asks of a recording, and whether the numbers add up."""
    recording = Recording(path)
    frames = sum(1 for _ in recording)
    tally = recording.tally
    assert tally.frames == frames
    assert tally.published == frames + sum(tally.dropped.values())
    assert all("\n" not in line for line in (*recording.problems, *tally.sentences(), recording.reason))
    assert frames or recording.problems or tally.dropped
    return "all frames" if frames == 10 else "some frames" if frames else "no frame, counted"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_file_ends_in_frames_or_one_sentence(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, plain())
    assert read(path) == "all frames"
    try_seeds(layout, PER_LAYOUT, damage_file(storage_file(path)), lambda: read(path))


@pytest.mark.parametrize("layout", ["mcap of rosbag2", "sqlite3, messages in zstd"])
def test_a_damaged_metadata_yaml_ends_in_frames_or_one_sentence(layout, tmp_path):
    path = LAYOUTS[layout](tmp_path, plain())
    try_seeds(f"metadata.yaml of {layout}", PER_LAYOUT, damage_file(path / "metadata.yaml"), lambda: read(path))
