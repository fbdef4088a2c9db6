"""A frame's images, together and one before the other: uploaded once, depth filtered once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.latency import StageTimer
from rfdetr_foundationpose.pipeline.intake import Intake
from rfdetr_foundationpose.types import CameraIntrinsics, Frame

CAMERA = CameraIntrinsics(60.0, 60.0, 32.0, 24.0, 64, 48)


class Filter:
    """As PoseEstimator on a GPU: it filters, unless it is given what it filtered before."""

    def __init__(self) -> None:
        self.filtered = 0

    def filter_depth(self, raw, scale):
        self.filtered += 1
        return raw.to(torch.float32) * scale

    def prepare(self, image, filtered=None):
        return self.filter_depth(image.raw_depth, image.frame.depth_scale) if filtered is None else filtered


@pytest.fixture()
def made():
    filter = Filter()
    timer = StageTimer()
    return Intake(filter, torch.device("cpu"), timer), filter, timer


def frame(value: int = 500) -> Frame:
    return Frame(0, "", np.zeros((48, 64, 3), np.uint8), np.full((48, 64), value, np.uint16), 0.001, CAMERA)


def test_early_depth_is_filtered_once_and_for_its_own_frame_alone(made):
    intake, filter, timer = made
    first, other = frame(500), frame(700)
    for shown, filtered in ((first, 1), (first, 2), (other, 3)):
        if filtered == 1:
            intake.upload_early(None, first.depth, first.depth_scale)
        found = intake.prepare(intake.upload(shown))
        assert filter.filtered == filtered and timer.stats()["preprocess"].count == filtered
        torch.testing.assert_close(found, torch.full((48, 64), float(shown.depth[0, 0]) * 0.001))
    intake.wait()


def test_an_early_image_is_left_where_another_frame_comes_or_another_unit(made):
    intake, _, _ = made
    early = frame(500)
    for shown in (frame(700), replace(early, depth_scale=0.0001), replace(early, depth=early.depth.copy())):
        intake.upload_early(None, early.depth, early.depth_scale)
        found = intake.prepare(intake.upload(shown))
        torch.testing.assert_close(found, torch.full((48, 64), float(shown.depth[0, 0]) * shown.depth_scale))


def test_of_early_colour_nothing_is_filtered(made):
    intake, filter, _ = made
    shown = frame()
    intake.upload_early(shown.rgb, None, 1.0)
    assert filter.filtered == 0
    intake.prepare(intake.upload(shown))
    assert filter.filtered == 1
