"""A recording through the pipeline: every colour image is processed, or dropped for a reason."""

from __future__ import annotations

import json
import sqlite3
from types import SimpleNamespace

import pytest

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.errors import InputError
from rfdetr_foundationpose.replay.judge import Judge
from rfdetr_foundationpose.replay.offline import run_offline
from rfdetr_foundationpose.replay.playback import Playback
from rfdetr_foundationpose.replay.recording import Recording
from rfdetr_foundationpose.replay.result import check_same_recording, compare, read_baseline
from support.bags import DEPTH, RGB, plain, storage_file, write_rosbag2
from support.figures import FIGURES


class Pipeline:
    """Takes every frame but the third."""

    timer = SimpleNamespace(stats=dict)

    def __init__(self) -> None:
        self.seen = 0

    def warm_up(self, camera) -> None:
        self.camera = camera

    def process(self, frame):
        self.seen += 1
        if self.seen == 3:
            raise InputError("no_depth", "nothing measured")
        return SimpleNamespace(events=[], poses=[])


@pytest.fixture
def tape(tmp_path) -> Recording:
    """Twelve colour images: of two the depth is missing, one is damaged, the calibration fits all."""
    sent = [s for i, s in enumerate(plain(12)) if not (s.topic == DEPTH and i // 3 in (4, 7))]
    path = write_rosbag2(tmp_path / "bag", sent, "sqlite3")
    with sqlite3.connect(storage_file(path)) as db:
        (topic,) = db.execute("SELECT id FROM topics WHERE name=?", (RGB,)).fetchone()
        rows = [r[0] for r in db.execute("SELECT id FROM messages WHERE topic_id=? ORDER BY id", (topic,))]
        db.execute("UPDATE messages SET data=substr(data, 1, 500) WHERE id=?", (rows[9],))
    return Recording(path)


def test_published_is_processed_and_dropped(tape):
    run = run_offline(Pipeline(), Playback(tape, []), Judge({}, {}))
    assert (run.published, run.processed) == (12, 8)
    assert run.dropped == {"no_depth": 1, "unmatched": 2, "damaged_message": 1}
    assert run.published == run.processed + sum(run.dropped.values())


@pytest.mark.parametrize("count", range(1, 10))
def test_the_sum_holds_wherever_the_run_ends(tape, count):
    run = run_offline(Pipeline(), Playback(tape, [], count), Judge({}, {}))
    assert run.processed + run.dropped["no_depth"] == min(count, 9)
    assert run.published == run.processed + sum(run.dropped.values())


def result(**changes):
    return {**FIGURES, **changes}


NOTHING = {"translation_error_mm": {"p50": None, "p95": None}, "rotation_error_deg": {"p50": None, "p95": None}}


@pytest.mark.parametrize(
    "broken",
    [
        {"translation_error_mm": {"p50": None, "p95": 5.0}},
        {"translation_error_mm": {"p50": float("nan"), "p95": 5.0}},
        {"rotation_error_deg": {"p50": 1.0, "p95": float("inf")}},
        {"adds_recall_0.1d": None},
        {"adds_recall_0.1d": "1.0"},
        {"poses": None},
        {"lost": True},
        {"poses": 10**400},
        NOTHING,
    ],
)
def test_a_baseline_without_its_figures_is_refused(broken, tmp_path):
    with pytest.raises(ValueError, match="no number: that run had nothing to measure"):
        compare(result(), result(**broken))
    file = tmp_path / "baseline.json"
    file.write_text(json.dumps(result(**broken)))
    with pytest.raises(ConfigError, match=r"--baseline .*baseline\.json: the baseline's .* no number"):
        read_baseline(file, result()["recording_id"], judged=True)


def test_a_recording_without_ground_truth_has_no_errors_to_compare(tmp_path):
    bare = result(**NOTHING, **{"adds_recall_0.1d": None})
    assert {row.name for row in compare(bare, bare)} == {"poses", "lost"}
    (tmp_path / "b.json").write_text(json.dumps(bare))
    assert read_baseline(tmp_path / "b.json", bare["recording_id"])["poses"] == 5


def test_a_result_that_is_not_a_number_is_a_regression():
    worse = result(translation_error_mm={"p50": float("nan"), "p95": 5.0})
    assert [row.name for row in compare(worse, result()) if row.regressed] == ["translation_error_mm.p50"]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"digest": "b"}, r"another recording \(b\)"),
        ({"topics": ["/rgb", "/other", "/info"]}, "other topics"),
        ({"frames": 7}, r"another number of frames \(7\) than this run \(10\)"),
    ],
)
def test_a_baseline_of_another_recording_is_refused(other, words, tmp_path):
    baseline = result(recording_id={**result()["recording_id"], **other})
    with pytest.raises(ValueError, match=words):
        compare(result(), baseline)
    (tmp_path / "b.json").write_text(json.dumps(baseline))
    with pytest.raises(ConfigError, match="with the same --frames and topics"):
        read_baseline(tmp_path / "b.json", result()["recording_id"])


def test_a_baseline_that_does_not_say_of_what_it_is_compares():
    bare = {k: v for k, v in result().items() if k != "recording_id"}
    check_same_recording(result(), bare)
    assert not any(row.regressed for row in compare(result(), bare))
