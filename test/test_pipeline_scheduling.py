"""Who runs when. The detector and the estimator here are doubles that look at a scripted world."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from rfdetr_foundationpose.config import ConfigError, from_flat
from rfdetr_foundationpose.pipeline import Pipeline
from rfdetr_foundationpose.pose.estimator import RegistrationError
from rfdetr_foundationpose.types import TrackState
from support.pipeline_world import (
    make,
    spec,
    step,
    wait_registered,
)


def test_registers_inline_then_tracks_with_one_detection_per_period(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 5})
    first = step(pipeline)
    assert [p.state for p in first.poses] == [TrackState.TRACKING]
    assert world.registers == [("mug", False)]
    assert "registered" in first.events[0]
    results = [step(pipeline) for _ in range(10)]
    assert [r.detections is not None for r in results] == [False, False, False, False, True] * 2
    assert world.detector_runs == 3
    assert pipeline.status().counters["detector_runs"] == 3


@pytest.mark.parametrize("period, runs", [(0, 1), (1, 11)])
def test_detector_period_never_and_always(world, period, runs):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": period})
    for _ in range(11):
        step(pipeline)
    assert world.detector_runs == runs


def runs(pipeline: Pipeline, steps: list[float]) -> list[bool]:
    """On which of the frames, each so many seconds after the last one, the detector ran."""
    return [step(pipeline, seconds).detections is not None for seconds in steps]


def test_detector_runs_after_so_many_seconds_by_the_stamps(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 0, "detector.period_seconds": 0.5})
    assert runs(pipeline, [0.1] * 11) == [True, *([False] * 4 + [True]) * 2]
    # A slow camera: later than asked for, but on the first frame that is due.
    assert runs(pipeline, [0.3, 0.3, 2.0, 0.0, 0.3]) == [False, True, True, False, False]


def test_steady_camera_does_not_slip_by_a_frame_through_rounded_stamps(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 0, "detector.period_seconds": 0.1})
    ran = runs(pipeline, [1 / 30 - 1e-9] * 31)
    assert np.flatnonzero(ran).tolist() == list(range(0, 31, 3))


def test_of_two_periods_the_first_to_come_counts_and_never_twice_for_one_frame(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 4, "detector.period_seconds": 0.2})
    assert runs(pipeline, [0.01] * 9) == [True, False, False, False, True, False, False, False, True]
    assert runs(pipeline, [0.1] * 4) == [False, True, False, True]
    before = world.detector_runs
    assert runs(pipeline, [0.01, 0.01, 0.01, 0.2, 0.01]) == [False, False, False, True, False]
    assert world.detector_runs == before + 1


def test_time_that_jumps_back_does_not_stop_the_detector(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 0, "detector.period_seconds": 0.3})
    assert runs(pipeline, [0.1, 0.1]) == [True, False]
    assert runs(pipeline, [-0.15, 0.1, 0.1, 0.1]) == [True, False, False, True]


def test_seconds_are_a_live_setting_and_reset_makes_the_next_frame_due(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 0})
    assert runs(pipeline, [1.0] * 4) == [True, False, False, False]
    pipeline.apply(from_flat({"detector.period_seconds": 2.0}, pipeline.config))
    assert runs(pipeline, [0.1, 0.1, 1.9, 0.1]) == [True, False, True, False]
    pipeline.reset()
    assert runs(pipeline, [0.01, 0.01]) == [True, False]
    with pytest.raises(ConfigError, match="period_seconds"):
        from_flat({"detector.period_seconds": -1.0}, pipeline.config)


def test_detector_runs_on_every_frame_while_something_is_searched(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug"), spec("can")])
    results = [step(pipeline) for _ in range(5)]
    assert all(r.detections is not None for r in results)
    assert pipeline.status().states == {"mug": "tracking", "can": "searching"}


def test_loss_is_said_once_and_searched_again(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"pose.lost_frames": 3})
    step(pipeline)
    world.confidence = 0.2
    states = [[p.state.value for p in step(pipeline).poses] for _ in range(3)]
    assert states == [["tracking"], ["tracking"], ["lost"]]
    world.confidence = 0.9
    again = step(pipeline)
    assert [p.state.value for p in again.poses] == ["tracking"]
    assert "registered again" in again.events[0]
    assert pipeline.status().counters["lost"] == 1
    assert pipeline.status().counters["registered_again"] == 1


def test_hysteresis_keeps_a_track_through_short_dips(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"pose.lost_frames": 3})
    step(pipeline)
    for confidence in (0.2, 0.2, 0.3, 0.2, 0.2, 0.4):
        world.confidence = confidence
        assert step(pipeline).poses[0].state is TrackState.TRACKING


def test_a_confidence_at_the_threshold_is_not_below_it(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"pose.lost_frames": 3, "pose.lost_confidence": 0.25})
    step(pipeline)
    world.confidence = 0.25
    assert all(step(pipeline).poses[0].state is TrackState.TRACKING for _ in range(10))
    world.confidence = 0.249
    assert [step(pipeline).poses[0].state.value for _ in range(3)] == ["tracking", "tracking", "lost"]


def test_a_track_is_not_contested_while_another_instance_is_searched(world):
    """A second mug is seen where none is tracked: with an instance left for it, it says nothing against the first one."""
    place, elsewhere = ("mug", (0.0, 0.0, 1.0)), ("mug", (0.35, 0.2, 1.0))
    world.things = [place]
    settings = {"detector.period_frames": 1, "pose.lost_frames": 2}
    for instances, state in ((2, TrackState.TRACKING), (1, TrackState.LOST)):
        pipeline = make(world, [spec("mug", max_instances=instances)], background=False, **settings)
        world.seen, world.register_confidence = None, 0.9
        step(pipeline)
        world.seen, world.register_confidence = [elsewhere], 0.1  # what is seen there cannot be registered
        results = [step(pipeline) for _ in range(2)]
        assert [p.state for p in results[-1].poses] == [state], instances
        assert ("elsewhere" in " ".join(results[-1].events)) is (state is TrackState.LOST)


def test_background_registration_does_not_stop_tracking_and_catches_up(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug"), spec("can")])
    step(pipeline)
    world.hold = threading.Event()
    for i in range(12):  # the can moves 24 cm while it is registered; tracking alone reaches 8 cm
        world.things = [("mug", (0.0, 0.0, 1.0)), ("can", (-0.3 + 0.02 * i, 0.2, 1.0))]
        result = step(pipeline)
        assert [p.object for p in result.poses] == ["mug"]
    world.hold.set()
    wait_registered(pipeline)
    assert world.registers == [("mug", False), ("can", True)]
    poses = {p.object: p for p in step(pipeline).poses}
    assert set(poses) == {"mug", "can"}
    np.testing.assert_allclose(poses["can"].T_cam_obj[:3, 3], (-0.08, 0.2, 1.0), atol=1e-6)
    pipeline.close()


def test_stale_background_registration_is_refused(world):
    world.things = [("mug", (0.0, 0.0, 1.0)), ("can", (-0.3, 0.2, 1.0))]
    world.seen = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug"), spec("can")])
    step(pipeline)
    world.hold = threading.Event()
    world.seen = None
    step(pipeline)
    world.things, world.seen = [("mug", (0.0, 0.0, 1.0)), ("can", (0.3, -0.2, 1.0))], [("mug", (0.0, 0.0, 1.0))]
    world.hold.set()
    wait_registered(pipeline)
    result = step(pipeline)
    assert [p.object for p in result.poses] == ["mug"]
    assert pipeline.status().counters["registration_stale"] == 1
    pipeline.close()


def test_refused_registration_backs_off(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    world.register_confidence = 0.1
    pipeline = make(world, [spec("mug")])
    tries = []
    for _ in range(120):
        before = len(world.registers)
        step(pipeline)
        tries.append(len(world.registers) - before)
    frames = np.flatnonzero(tries)
    assert list(np.diff(frames)[:5]) == [2, 3, 5, 9, 17]
    assert max(np.diff(frames)) == 31
    counters = pipeline.status().counters
    assert counters["registrations_refused"] == counters["registration_low_confidence"] == len(frames)
    assert counters["registrations_backed_off"] == 120 - len(frames)


def test_registration_error_is_counted_under_its_kind_and_other_errors_surface(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    world.fail = RegistrationError("no_depth", "mug: no valid depth inside the mask")
    pipeline = make(world, [spec("mug")])
    assert "no valid depth" in step(pipeline).events[0]
    assert pipeline.status().counters["registration_no_depth"] == 1
    world.fail = RuntimeError("device fault")
    with pytest.raises(RuntimeError, match="device fault"):
        for _ in range(3):
            step(pipeline)


def test_two_instances_keep_their_ids_when_they_pass_each_other(world):
    pipeline = make(world, [spec("mug", max_instances=2)], background=False, **{"detector.period_frames": 2})
    ids: dict[str, set[int]] = {"left": set(), "right": set()}
    for i in range(30):
        x = -0.3 + 0.02 * i
        world.things = [("mug", (x, -0.1, 1.0)), ("mug", (-x, 0.12, 1.3))]
        for pose in step(pipeline).poses:
            near_first = np.linalg.norm(pose.T_cam_obj[:3, 3] - world.things[0][1]) < 1e-6
            ids["left" if near_first else "right"].add(pose.instance_id)
    assert ids["left"] and ids["right"] and ids["left"] | ids["right"] == {0, 1}
    assert len(ids["left"]) == len(ids["right"]) == 1
    assert pipeline.status().counters["registered"] == 2


def test_lost_instance_found_again_gets_its_id_back(world):
    a, b = ("mug", (-0.2, 0.0, 1.0)), ("mug", (0.2, 0.0, 1.0))
    world.things = [a, b]
    pipeline = make(world, [spec("mug", max_instances=2)], background=False)
    step(pipeline)
    names = {p.name: p.T_cam_obj[0, 3] for p in step(pipeline).poses}
    assert set(names) == {"mug", "mug_1"}
    keep = a if names["mug_1"] == -0.2 else b
    world.things = [keep]
    for _ in range(5):
        step(pipeline)
    assert pipeline.status().states == {"mug": "searching", "mug_1": "tracking"}
    world.things = [a, b]
    step(pipeline)
    assert {p.name: p.T_cam_obj[0, 3] for p in step(pipeline).poses} == names


def test_track_whose_object_is_seen_elsewhere_is_lost(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 1, "pose.lost_frames": 2})
    step(pipeline)
    world.seen = [("mug", (0.35, 0.2, 1.0))]
    assert step(pipeline).poses[0].state is TrackState.TRACKING
    result = step(pipeline)
    assert result.poses[0].state is TrackState.LOST
    assert "elsewhere" in result.events[0]


def test_occluded_but_confident_track_survives_a_blind_detector(world):
    world.things, world.seen = [("mug", (0.0, 0.0, 1.0))], None
    pipeline = make(world, [spec("mug")], **{"detector.period_frames": 1})
    step(pipeline)
    world.seen = []
    assert all(step(pipeline).poses[0].state is TrackState.TRACKING for _ in range(10))
    world.confidence = 0.4
    assert any(p.state is TrackState.LOST for _ in range(4) for p in step(pipeline).poses)


def test_no_detection_is_explained_but_not_on_every_frame(world):
    pipeline = make(world, [spec("mug")])
    events = [e for _ in range(20) for e in step(pipeline).events]
    assert events == ["no detection of mug at or above its threshold 0.50: its best score is 0.20"]
    status = pipeline.status()
    assert status.best_below == {"mug": 0.2, "can": 0.2}
    assert status.counters["no_detection"] == 20


def test_reset_forgets_tracks_and_late_registrations(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug"), spec("can")])
    step(pipeline)
    world.hold = threading.Event()
    world.things.append(("can", (0.2, 0.0, 1.0)))
    step(pipeline)
    pipeline.reset()
    assert pipeline.status().states == {"mug": "searching", "can": "searching"}
    world.hold.set()
    wait_registered(pipeline)
    assert pipeline._registration.worker.poll() is None
    assert pipeline.status().counters["registrations_dropped"] == 1
    assert [p.object for p in step(pipeline).poses] == ["mug"]
    pipeline.close()


def test_a_reset_at_the_very_end_of_a_frame_counts_for_the_next_one(world):
    """It finds the pipeline still taken, by a thread that looks no more for what is asked of it."""

    class Lock:
        def __init__(self) -> None:
            self._lock = threading.Lock()
            self.acquire = self._lock.acquire
            self.last_moment = [pipeline.reset]

        def release(self) -> None:
            while self.last_moment:
                other = threading.Thread(target=self.last_moment.pop(), daemon=True)
                other.start()
                other.join(60)
            self._lock.release()

        def __enter__(self) -> None:
            self.acquire()

        def __exit__(self, *_) -> None:
            self.release()

    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")])
    pipeline._lock = Lock()
    assert [p.state for p in step(pipeline).poses] == [TrackState.TRACKING]
    assert pipeline.status().states == {"mug": "searching"}
    assert pipeline.status().counters["resets"] == 1


def test_apply_takes_live_settings_and_names_fixed_ones(world):
    pipeline = make(world, [spec("mug")])
    pipeline.apply(from_flat({"detector.threshold": 0.7}))
    assert pipeline._detector.applied == [0.7]
    with pytest.raises(ConfigError, match="pose.track_iterations"):
        pipeline.apply(from_flat({"pose.track_iterations": 5}))


def test_unusable_pose_ends_the_track(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = make(world, [spec("mug")])
    step(pipeline)
    world.confidence = float("nan")
    result = step(pipeline)
    assert result.poses[0].state is TrackState.LOST
    assert np.isfinite(result.poses[0].T_cam_obj).all()


def test_no_detector_is_left_at_work_on_the_images_of_a_frame_that_failed(world, monkeypatch):
    """Images in the GPU's memory go back to their owner then."""
    pipeline = make(world, [spec("mug")], background=False, **{"detector.period_frames": 1})
    world.things = [("mug", (0.0, 0.0, 1.0))]
    step(pipeline), step(pipeline)
    start, waited = pipeline._side.start, []

    def begin(detector, image):
        collect = start(detector, image)
        return lambda: (waited.append(True), collect())[1]

    def fail(*_):
        raise RuntimeError("the tracker failed")

    monkeypatch.setattr(pipeline._side, "start", begin)
    with monkeypatch.context() as broken:
        broken.setattr(pipeline._tracker, "move", fail)
        with pytest.raises(RuntimeError, match="the tracker failed"):
            step(pipeline)
    assert waited == [True]
    assert step(pipeline).tracking and waited == [True, True]
