"""Several instances of one object: which detection, registration and track is whose. DuplicateTracks as in the scheduling test."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from rfdetr_foundationpose.detect.detector import DetectionReport
from rfdetr_foundationpose.types import TrackState
from support.pipeline_world import ScriptedDetector, ScriptedEstimator, make, spec, step, use_estimator, wait_registered

LEFT, RIGHT = ("mug", (-0.2, 0.0, 1.0)), ("mug", (0.2, 0.0, 1.0))


def test_registration_under_way_does_not_go_over_to_the_tracked_instance(world):
    """The detector misses the one that is being registered; the other, tracked, is not it."""
    world.things = [LEFT]
    pipeline = make(world, [spec("mug", max_instances=2)])
    step(pipeline)
    world.hold = threading.Event()
    world.things = [LEFT, RIGHT]
    step(pipeline)
    world.seen = [LEFT]
    for _ in range(3):
        step(pipeline)
    for i in range(6):
        world.seen = world.things = [LEFT, ("mug", (0.2 + 0.02 * i, 0.0, 1.0))]
        step(pipeline)
    world.hold.set()
    wait_registered(pipeline)
    poses = {p.name: (p.state, round(p.T_cam_obj[0, 3], 3)) for p in step(pipeline).poses}
    assert poses == {"mug": (TrackState.TRACKING, -0.2), "mug_1": (TrackState.TRACKING, 0.3)}
    pipeline.close()


def test_registration_under_way_does_not_go_over_to_another_new_instance(world):
    world.things = [LEFT]
    pipeline = make(world, [spec("mug", max_instances=3)])
    step(pipeline)
    world.hold = threading.Event()
    world.things = [LEFT, RIGHT]
    step(pipeline)
    third = ("mug", (0.2, 0.2, 1.0))
    world.things, world.seen = [LEFT, RIGHT, third], [LEFT, third]
    step(pipeline)
    world.seen = None
    step(pipeline)
    world.hold.set()
    wait_registered(pipeline)
    places = {p.name: tuple(p.T_cam_obj[:2, 3]) for p in step(pipeline).poses}
    assert places == {"mug": (-0.2, 0.0), "mug_1": (0.2, 0.0)}
    pipeline.close()


@pytest.mark.parametrize("background", [False, True])
def test_a_thing_keeps_its_id_when_a_second_box_of_it_registers_better(world, background):
    """Two boxes of one mug that overlap too little to be known as such; the second registration is the surer one."""
    world.things = [LEFT]
    pipeline = make(world, [spec("mug", max_instances=2)], background=background)
    step(pipeline)
    world.register_confidence = 0.99
    world.seen = [LEFT, ("mug", (-0.16, 0.0, 1.0))]
    states = set()
    for _ in range(6):
        result = step(pipeline)
        if background and pipeline._registration.worker.busy:
            wait_registered(pipeline)
        states |= {(p.name, p.state) for p in result.poses}
    assert states == {("mug", TrackState.TRACKING)}
    counters = pipeline.status().counters
    assert counters["registration_duplicate"] >= 1 and "duplicate_tracks" not in counters
    # A true second instance is still found: what was refused is tried after everything else.
    world.things = [LEFT, RIGHT]
    world.seen = [LEFT, ("mug", (-0.16, 0.0, 1.0)), RIGHT]
    for _ in range(20):
        result = step(pipeline)
        if background and pipeline._registration.worker.busy:
            wait_registered(pipeline)
    places = {p.name: round(float(p.T_cam_obj[0, 3]), 3) for p in result.poses}
    assert places == {"mug": -0.2, "mug_1": 0.2}
    np.testing.assert_equal(pipeline.status().states, {"mug": "tracking", "mug_1": "tracking"})
    pipeline.close()


class Doubtful(ScriptedDetector):
    """score: of every detection."""

    score = 0.9

    def detect(self, frame) -> DetectionReport:
        report = super().detect(frame)
        return replace(report, detections=[replace(d, score=self.score) for d in report.detections])


def test_a_doubtful_detection_of_one_frame_is_not_registered(world):
    pipeline = make(world, [spec("mug")])
    detector = pipeline._detector = Doubtful(world)
    detector.score = 0.6
    for seen in ([LEFT], [], [RIGHT], [LEFT], []):
        world.things = seen
        assert step(pipeline).poses == []
    assert world.registers == [] and pipeline.status().counters["detections_unconfirmed"] == 3
    # Two runs in a row show it, moved by half its size.
    world.things = [LEFT]
    assert step(pipeline).poses == []
    world.things = [("mug", (-0.15, 0.0, 1.0))]
    assert [p.name for p in step(pipeline).poses] == ["mug"]
    pipeline.reset()
    assert step(pipeline).poses == []
    pipeline.reset()
    detector.score = 0.75  # half way between the threshold of 0.5 and 1
    assert [p.name for p in step(pipeline).poses] == ["mug"]


@pytest.mark.parametrize("background", [False, True])
def test_one_that_cannot_be_registered_holds_up_none_of_twenty(world, background):
    """Refusals are counted for each thing: backing off from one leaves the others their turn."""
    hopeless = (-0.35, -0.25, 1.0)
    places = [(x, y, 1.0) for y in (-0.25, -0.1, 0.05, 0.2) for x in (-0.35, -0.2, -0.05, 0.1, 0.25)]
    world.things = [("can", p) for p in places]

    class Doubtful(ScriptedEstimator):
        def register(self, frame, object, mask, *, outlined=True):
            found = super().register(frame, object, mask, outlined=outlined)
            return replace(found, confidence=0.01) if np.allclose(found.T_cam_obj[:3, 3], hopeless) else found

    pipeline = make(world, [spec("can", max_instances=20)], background=background)
    use_estimator(pipeline, Doubtful(world))
    for _ in range(60):
        result = step(pipeline)
        if background and pipeline._registration.worker.busy:
            wait_registered(pipeline)
    found = {tuple(np.round(p.T_cam_obj[:3, 3], 3)) for p in result.poses}
    assert found == set(places) - {hopeless}
    assert len({p.name for p in result.poses}) == 19
    counters = pipeline.status().counters
    assert counters["registered"] == 19 and counters["registrations_refused"] <= 7
    pipeline.close()
