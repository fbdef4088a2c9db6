"""A start without a detector: somebody says where the object is, and it is tracked from there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import Config, ConfigError, from_flat
from rfdetr_foundationpose.detect.build import build_detector
from rfdetr_foundationpose.detect.starts import NoDetector, Start, Starts
from rfdetr_foundationpose.device_frame import DeviceFrame
from rfdetr_foundationpose.types import CameraIntrinsics, Frame, InputError
from support.pipeline_world import ScriptedEstimator, World, make, spec, step

BOX = np.array([70, 50, 90, 70], np.float32)  # around the image's middle


class FromMasks(ScriptedEstimator):
    """Registers what lies where the middle of the mask looks at, a metre away."""

    def register(self, frame, object, mask, *, outlined=True):
        rows, columns = torch.nonzero(mask, as_tuple=True)
        at = torch.tensor([(columns.float().mean() - 80) / 200, (rows.float().mean() - 60) / 200, 1.0])
        return super().register(frame, object, at, outlined=outlined)


def pipeline_without_detector(world: World, *specs, **settings):
    pipeline = make(world, list(specs), background=False, **settings)
    pipeline._detector, pipeline._estimator = NoDetector(), FromMasks(world)
    pipeline._registration.worker._estimator = pipeline._estimator
    return pipeline


def tracked(pipeline) -> dict[str, str]:
    return pipeline.status().states


def test_nothing_is_looked_for_until_somebody_says_where(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = pipeline_without_detector(world, spec("mug"))
    said = [event for _ in range(3) for event in step(pipeline).events]
    assert tracked(pipeline) == {"mug": "searching"} and world.registers == []
    assert said == ["waiting for somebody to say where mug is"]
    pipeline.start_at(Start("mug", BOX))
    assert any(e.startswith("mug registered") for e in step(pipeline).events)
    for _ in range(40):
        step(pipeline)
    assert tracked(pipeline) == {"mug": "tracking"} and len(world.registers) == 1


def test_no_detector_is_no_word_against_a_track(world):
    """A doubtful track goes on: nobody looked for it."""
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = pipeline_without_detector(world, spec("mug"), **{"detector.period_frames": 1})
    pipeline.start_at(Start("mug", BOX))
    step(pipeline)
    world.confidence = 0.4  # between lost_confidence and accept_confidence
    for _ in range(40):
        step(pipeline)
    assert tracked(pipeline) == {"mug": "tracking"}


def test_a_second_start_moves_the_track_to_where_it_says(world):
    world.things = [("mug", (0.0, 0.0, 1.0)), ("mug", (0.25, 0.0, 1.0))]
    pipeline = pipeline_without_detector(world, spec("mug"))
    pipeline.start_at(Start("mug", BOX))
    step(pipeline)
    pipeline.start_at(Start("mug", BOX + (50, 0, 50, 0)))
    for _ in range(3):
        result = step(pipeline)
    assert [p.T_cam_obj[0, 3] for p in result.poses] == [pytest.approx(0.25)]


def test_starts_that_are_none_are_said_and_the_frame_goes_on(world):
    world.things = [("mug", (0.0, 0.0, 1.0))]
    pipeline = pipeline_without_detector(world, spec("mug"))
    pipeline.start_at(Start("mug", np.array([500, 10, 600, 40], np.float32)))
    pipeline.start_at(Start("mug", mask=np.ones((4, 4), bool)))
    said = step(pipeline).events
    assert any("covers less than" in e for e in said) and any("is 4x4, the image 160x120" in e for e in said)
    with pytest.raises(ConfigError, match="object 'cup' is not known; there are mug"):
        pipeline.start_at(Start("cup", BOX))


def image() -> DeviceFrame:
    depth = np.full((120, 160), 2000, np.uint16)
    depth[50:70, 70:90] = 1000
    frame = Frame(0, "c", np.zeros((120, 160, 3), np.uint8), depth, 0.001, CameraIntrinsics(200, 200, 80, 60, 160, 120))
    from rfdetr_foundationpose.device_frame import Uploader

    return Uploader(torch.device("cpu"))(frame)


def test_a_box_is_sharpened_by_depth_and_a_mask_is_taken_as_it_is():
    found = Start("mug", np.array([66, 46, 94, 74], np.float32)).detection(image())
    assert found.depth == pytest.approx(1.0) and int(found.mask.sum()) == 400
    assert (found.score, found.source) == (1.0, "start")
    mask = np.zeros((120, 160), bool)
    mask[55:60, 75:90] = True
    found = Start("mug", mask=mask).detection(image())
    assert int(found.mask.sum()) == 75 and found.box.tolist() == [75, 55, 90, 60]
    with pytest.raises(InputError, match="covers less than 4 pixels"):
        Start("mug", mask=np.zeros((120, 160), bool)).detection(image())


def test_starts_come_before_what_a_detector_says_and_once():
    starts = Starts()
    starts.add(Start("mug", BOX))
    report, wrong = starts.join(NoDetector().detect(image()), image())
    assert [d.source for d in report.detections] == ["start"] and not report.judges and not wrong
    assert starts.join(report, image()) == (report, [])


def test_the_setting_chooses_it():
    found = build_detector(from_flat({"detector.source": "none"}, Config()), [spec("tea_box")], torch.device("cpu"))
    assert isinstance(found, NoDetector)
