"""A track in doubt: blur passes, what is gone is lost, and a registration corrects a pose only where it is surer.
Doubles as in the scheduling test."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from rfdetr_foundationpose.pipeline.tracks import Track
from rfdetr_foundationpose.types import TrackState
from support.pipeline_world import (
    ScriptedEstimator,
    World,
    make,
    pose_at,
    spec,
    step,
    use_estimator,
    wait_registered,
)

PLACE = ("mug", (0.0, 0.0, 1.0))
AWAY = ("mug", (0.4, 0.0, 1.0))
FRAME = 1 / 30


class Blur(ScriptedEstimator):
    """blurred: nothing tracked is recognized, and the tracker goes astray by 3 cm a frame. lost_sight: tracking finds nothing
    again by itself, wherever it begins."""

    blurred = False
    lost_sight = False

    def track(self, frame, requests):
        estimates = super().track(frame, requests)
        if self.lost_sight:
            return [
                replace(e, T_cam_obj=r.T_cam_obj, confidence=0.05) for e, r in zip(estimates, requests, strict=True)
            ]
        if self.blurred:
            astray = [r.T_cam_obj @ pose_at(0.03, 0.0, 0.0) for r in requests]
            return [replace(e, T_cam_obj=T, confidence=0.1) for e, T in zip(estimates, astray, strict=True)]
        return estimates


def tracked(world: World, background: bool = False, max_instances: int = 1, **settings):
    """A mug at PLACE."""
    world.things = [PLACE]
    pipeline = make(
        world, [spec("mug", max_instances=max_instances)], background, **{"pose.lost_seconds": 0.5, **settings}
    )
    estimator = use_estimator(pipeline, Blur(world))
    assert [p.state for p in step(pipeline, FRAME).poses] == [TrackState.TRACKING]
    return pipeline, estimator


def state(pipeline) -> str:
    return pipeline.status().states["mug"]


def test_blur_is_not_loss(world):
    """Ten frames in which nothing is recognized, by tracker and detector; the tracker goes astray by 30 cm meanwhile."""
    pipeline, estimator = tracked(world)
    estimator.blurred, world.seen = True, []
    results = [step(pipeline, FRAME) for _ in range(10)]
    assert [len(r.poses) for r in results] == [1, 1] + [0] * 8, "a pose in doubt is held back"
    assert state(pipeline) == "uncertain"
    assert "mug uncertain" in results[2].events[0] and "searched near where it was" in results[2].events[0]
    estimator.blurred, world.seen = False, None
    found = step(pipeline, FRAME)
    assert [p.state for p in found.poses] == [TrackState.TRACKING]
    np.testing.assert_allclose(found.poses[0].T_cam_obj[:3, 3], PLACE[1])
    assert [e for e in found.events if "found again" in e] == ["mug found again: confidence 0.90 after 0.27 s"]
    counters = pipeline.status().counters
    assert "lost" not in counters and (counters["uncertain"], counters["found_again"]) == (1, 1)
    assert len(world.registers) == 1


def test_short_blur_does_not_even_hold_a_pose_back(world):
    pipeline, estimator = tracked(world)
    for _ in range(5):
        estimator.blurred = True
        assert all(len(step(pipeline, FRAME).poses) == 1 for _ in range(2))
        estimator.blurred = False
        result = step(pipeline, FRAME)
        np.testing.assert_allclose(result.poses[0].T_cam_obj[:3, 3], PLACE[1])
    assert "uncertain" not in pipeline.status().counters


@pytest.mark.parametrize("rate", [10, 30, 100])
def test_what_is_gone_is_lost_after_the_same_time_at_any_rate(world, rate):
    pipeline, _ = tracked(world)
    world.things = []
    times, said = [], []
    for i in range(2 * rate):
        result = step(pipeline, 1 / rate)
        times += [(i + 1) / rate for p in result.poses if p.state is TrackState.LOST]
        said += result.events
    assert len(times) == 1 and times[0] == pytest.approx(3 / rate + 0.5, abs=1.5 / rate)
    assert len([e for e in said if "lost: not found again near where it was within pose.lost_seconds=0.5" in e]) == 1
    assert pipeline.status().counters["lost"] == 1


def test_a_slow_camera_gives_a_track_as_many_frames(world):
    """At one frame a second half a second is over with the next one: that one alone may be blurred too."""
    pipeline, estimator = tracked(world)
    estimator.blurred, world.seen = True, []
    for _ in range(5):
        step(pipeline, 1.0)
    assert state(pipeline) == "uncertain"
    estimator.blurred = False
    assert [p.state for p in step(pipeline, 1.0).poses] == [TrackState.TRACKING]


def test_what_moved_on_under_blur_is_found_again_where_it_may_have_come(world):
    """Nothing tracked finds it again, but the detector sees it near: it is registered again and stays the same instance."""
    pipeline, estimator = tracked(world, max_instances=2)
    estimator.lost_sight = True
    world.things = [("mug", (0.15, 0.0, 1.0))]  # beyond what the tracker reaches, within a diameter of 17 cm
    results = [step(pipeline, FRAME) for _ in range(3)]
    assert [p.name for p in results[-1].poses] == ["mug"] and len(results[1].poses) == 1
    assert [e for r in results for e in r.events if "corrected" in e] == [
        "mug corrected by a registration: confidence 0.05 -> 0.90, 150 mm and 0 deg from where it surely was last"
    ]
    estimator.lost_sight = False
    result = step(pipeline, FRAME)
    assert {p.name: round(float(p.T_cam_obj[0, 3]), 3) for p in result.poses} == {"mug": 0.15}
    counters = pipeline.status().counters
    assert counters["corrected"] == 1 and "lost" not in counters and counters["registered"] == 1


def test_what_shows_up_elsewhere_is_lost_and_registered_there(world):
    pipeline, _ = tracked(world)
    world.things = [AWAY]
    said = [e for _ in range(10) for e in step(pipeline, FRAME).events]
    assert any("mug lost: the detector sees it elsewhere" in e for e in said)
    assert {p.name: round(float(p.T_cam_obj[0, 3]), 3) for p in step(pipeline, FRAME).poses} == {"mug": 0.4}


FLIPPED = np.diag([-1.0, 1.0, -1.0, 1.0])


@pytest.mark.parametrize("fresh, other, corrected", [(0.9, True, True), (0.9, False, False), (0.55, True, False)])
def test_a_registration_that_comes_late_replaces_a_pose_only_where_it_is_surer(world, fresh, other, corrected):
    """The tracker has found the object again by itself, with a confidence of 0.7, when the registration is done."""
    pipeline, estimator = tracked(world, background=True)
    world.hold, estimator.lost_sight = threading.Event(), True
    for _ in range(4):
        step(pipeline, FRAME)
    deadline = time.monotonic() + 60
    while len(world.registers) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert world.registers[1:] == [("mug", True)]
    estimator.lost_sight = False
    world.confidence = 0.7
    assert [p.state for p in step(pipeline, FRAME).poses] == [TrackState.TRACKING]
    world.register_confidence = fresh
    world.hold.set()
    wait_registered(pipeline)
    plain = estimator.track

    def own_and_registered(frame, requests):
        own, registered = plain(frame, requests)
        T = registered.T_cam_obj @ (FLIPPED if other else np.eye(4))
        return [replace(own, confidence=0.7), replace(registered, T_cam_obj=T, confidence=fresh)]

    estimator.track = own_and_registered
    result = step(pipeline, FRAME)
    assert any("corrected" in e for e in result.events) is corrected
    assert any("keeps its pose" in e for e in result.events) is (fresh < 0.8)
    assert [p.confidence for p in result.poses] == [fresh if corrected else 0.7]
    pipeline.close()


def flipped_track(world, background=False, fresh=0.9):
    """A mug that was registered flipped, with a confidence of 0.3 by which it is tracked; a registration now is right."""
    pipeline, estimator = tracked(world, background, **{"detector.period_frames": 5, "pose.lost_confidence": 0.1})
    (track,) = list(pipeline._tracks)
    track.T_cam_obj = track.T_cam_obj @ FLIPPED
    plain = estimator.track

    def track_both(frame, requests):
        return [
            replace(
                e,
                T_cam_obj=pose_at(*e.T_cam_obj[:3, 3]) @ (FLIPPED if (wrong := r.T_cam_obj[0, 0] < 0) else np.eye(4)),
                confidence=0.3 if wrong else fresh,
            )
            for e, r in zip(plain(frame, requests), requests, strict=True)
        ]

    estimator.track = track_both
    world.register_confidence = fresh
    return pipeline, estimator


@pytest.mark.parametrize("background", [False, True])
def test_a_doubtful_pose_is_corrected_by_a_surer_registration_of_the_same_thing(world, background):
    pipeline, _ = flipped_track(world, background)
    said = []
    for _ in range(12):
        result = step(pipeline, FRAME)
        assert [p.state for p in result.poses] == [TrackState.TRACKING], "it is given out all the time"
        said += result.events
        if background and pipeline._registration.worker.busy:
            wait_registered(pipeline)
    assert said == [
        "mug corrected by a registration: confidence 0.30 -> 0.90, 0 mm and 180 deg from where it surely was last"
    ]
    assert result.poses[0].T_cam_obj[0, 0] == 1.0 and result.poses[0].confidence == 0.9
    pipeline.close()


def test_a_doubtful_pose_is_not_replaced_by_one_that_is_hardly_surer_and_tried_less_and_less(world):
    pipeline, _ = flipped_track(world, fresh=0.51)  # at least pose.accept_confidence, and less than 0.1 above 0.45
    (track,) = list(pipeline._tracks)
    plain = pipeline._estimator.track
    pipeline._estimator.track = lambda frame, requests: [replace(e, confidence=0.45) for e in plain(frame, requests)]
    tries = []
    for i in range(200):
        before = len(world.registers)
        step(pipeline, FRAME)
        tries += [i] * (len(world.registers) - before)
    assert np.diff(tries).tolist() == [15, 30, 60]
    assert track.T_cam_obj[0, 0] == -1.0 and track.tracking
    counters = pipeline.status().counters
    assert counters["corrections_refused"] == 4 and "corrected" not in counters and counters["registered"] == 1


def test_a_pose_of_high_confidence_is_not_registered_again(world):
    pipeline, _ = tracked(world, **{"detector.period_frames": 1})
    for _ in range(50):
        step(pipeline, FRAME)
    assert len(world.registers) == 1


def test_a_registration_that_corrects_a_track_follows_its_detection(world):
    """While it goes on the detector goes on seeing the thing, which moves: it supports the track all the same."""
    pipeline, estimator = tracked(world, background=True, **{"pose.lost_seconds": 5.0})
    world.hold, estimator.lost_sight = threading.Event(), True
    for i in range(20):
        world.things = [("mug", (0.005 * i, 0.0, 1.0))]
        step(pipeline, FRAME)
    (track,) = list(pipeline._tracks)
    assert track.state is TrackState.UNCERTAIN and track.unsupported == 0
    job = pipeline._registration.under_way
    assert job is not None and job.track is track and job.seen is not job.detection
    world.hold.set()
    wait_registered(pipeline)
    estimator.lost_sight = False
    result = step(pipeline, FRAME)
    assert {p.name: round(float(p.T_cam_obj[0, 3]), 3) for p in result.poses} == {"mug": 0.095}
    pipeline.close()


def test_a_correction_keeps_the_look_of_a_symmetric_object(world):
    """The fresh pose is turned by half about an axis of symmetry: the published orientation does not jump."""
    pipeline, estimator = tracked(world)
    half = np.diag([-1.0, -1.0, 1.0, 1.0])
    extent = replace(pipeline._extents["mug"], symmetries=np.stack([np.eye(4), half]))
    pipeline._extents["mug"] = pipeline._registration._extents["mug"] = extent
    register = estimator.register
    estimator.register = lambda *args, **more: replace(
        found := register(*args, **more), T_cam_obj=found.T_cam_obj @ half
    )
    estimator.lost_sight = True
    for _ in range(4):
        step(pipeline, FRAME)
    assert pipeline.status().counters["corrected"] == 1
    (track,) = list(pipeline._tracks)
    np.testing.assert_allclose(track.T_cam_obj[:3, :3], np.eye(3), atol=1e-9)


def test_where_a_track_in_doubt_may_be_grows_with_its_speed():
    from rfdetr_foundationpose.config import PoseConfig

    track, settings = Track("mug", 0), PoseConfig()
    track.start(pose_at(0.0), 0.9, 1.0, 0.9, 0)
    for i in range(1, 6):  # 1 m/s
        track.update(pose_at(0.1 * i), 0.9, 1.0, settings, i * 100_000_000)
    assert track.expected(600_000_000) == (track.T_cam_obj, 0.0)
    for i in range(6, 9):
        track.update(pose_at(5.0), 0.0, 1.0, settings, i * 100_000_000)
    assert track.state is TrackState.UNCERTAIN
    place, moved = track.expected(1_000_000_000)
    np.testing.assert_allclose(place, pose_at(0.5))
    assert moved == pytest.approx(0.5)


def test_a_confidence_at_the_limit_is_not_below_it():
    from rfdetr_foundationpose.config import PoseConfig

    track, settings = Track("mug", 0), PoseConfig()
    track.start(pose_at(0.0), 0.9, 1.0, 0.9, 0)
    assert track.update(pose_at(0.0), settings.lost_confidence, 1.0, settings, 100_000_000) is None
    assert track.low_frames == 0 and not track.in_doubt
    track.update(pose_at(0.0), settings.lost_confidence - 1e-6, 1.0, settings, 200_000_000)
    assert track.low_frames == 1 and track.in_doubt


def test_lost_seconds_of_zero_loses_at_once(world):
    pipeline, estimator = tracked(world, **{"pose.lost_seconds": 0.0})
    estimator.blurred, world.seen = True, []
    states = [[p.state.value for p in step(pipeline, FRAME).poses] for _ in range(3)]
    assert states == [["tracking"], ["tracking"], ["lost"]]
