"""Depth that a CPU filters only where it is looked at: to the last bit what filtering the whole image gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pose import depth as depth_module
from rfdetr_foundationpose.pose.depth import REACH, TILE, DepthFilter
from rfdetr_foundationpose.pose.estimator import PoseEstimator, TrackRequest
from rfdetr_foundationpose.pose.hypotheses import bounding_box, guess_translation
from rfdetr_foundationpose.pose.observation import Observation
from rfdetr_foundationpose.pose.renderer import WarpRenderer
from rfdetr_foundationpose.pose.runners import Networks
from support.pose_scenes import object_of, prepared, random_pose, scene_of, textured_box
from support.runners import FakeRunner

LIMITS = (0.1, 4.0)


def measured(rows: int, columns: int, kind: type, seed: int = 0) -> torch.Tensor:
    """Raw depth with noise, an edge, holes, and where it can hold such, what is no number."""
    rng = np.random.default_rng(seed)
    z = 800 + rng.normal(0, 1.0, (rows, columns)) + 300 * (np.arange(columns) > columns // 2)
    z[rng.random(z.shape) < 0.2] = 0
    if kind is np.float32:
        z[rng.random(z.shape) < 0.02] = np.nan
    return torch.from_numpy(z.astype(kind))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
@pytest.mark.parametrize("size", [(200, 330), (64, 128), (5, 9)])
def test_a_window_has_what_the_whole_image_has(size, kind):
    raw = measured(*size, kind)
    whole = DepthFilter("cpu", *LIMITS)(raw, 0.001)
    rng = np.random.default_rng(1)
    for _ in range(20):
        parts = DepthFilter("cpu", *LIMITS).where_needed(raw, 0.001)
        corners = rng.uniform(-30, max(size) + 30, (2, 2)).astype(np.float32)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        parts.cover(np.array([[left, top, right, bottom]]))
        inside = np.s_[max(int(top), 0) : max(int(bottom) + 1, 0), max(int(left), 0) : max(int(right) + 1, 0)]
        assert torch.equal(parts.filtered[inside], whole[inside])
        done = parts.filtered != 0
        assert torch.equal(parts.filtered[done], whole[done]), "elsewhere it is right, or not there yet"


def test_windows_add_up_to_the_whole_image():
    raw = measured(200, 330, np.uint16)
    parts = DepthFilter("cpu", *LIMITS).where_needed(raw, 0.001)
    with torch.inference_mode():
        for left in range(0, 330, 25):
            parts.cover(np.array([[left, 0, left + 25, 90], [left, 90, left + 25, 200]], np.float32))
    assert torch.equal(parts.filtered, DepthFilter("cpu", *LIMITS)(raw, 0.001))


def test_only_the_tiles_of_a_window_are_filtered(monkeypatch):
    launched = []
    run = depth_module.launch
    monkeypatch.setattr(depth_module, "launch", lambda k, dim, *a, **b: (launched.append(dim), run(k, dim, *a, **b)))
    parts = DepthFilter("cpu", *LIMITS).where_needed(measured(640, 960, np.uint16), 0.001)
    window = np.array([[2 * TILE + 10, TILE + 10, 3 * TILE - 10, 2 * TILE - 10]], np.float32)
    parts.cover(window)
    assert launched == [(TILE + 2 * REACH,) * 2, (TILE, TILE)]
    parts.cover(window)
    assert len(launched) == 2, "once"


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e9, 1e9])
def test_a_window_of_a_pose_that_went_astray_is_no_error(value):
    """What it shows is filtered or lies outside of the image."""
    raw = measured(100, 90, np.uint16)
    for row in ([value, 0, 50, 50], [0, 0, value, value], [value] * 4, [-value, -value, value, value]):
        parts = DepthFilter("cpu", *LIMITS).where_needed(raw, 0.001)
        parts.cover(np.array([row], np.float32))
        done = parts.filtered != 0
        assert torch.equal(parts.filtered[done], DepthFilter("cpu", *LIMITS)(raw, 0.001)[done])


def test_tracking_and_registration_ask_at_the_same_time():
    """Each in its own thread, of the same frame."""
    raw = measured(500, 500, np.uint16)
    whole = DepthFilter("cpu", *LIMITS)(raw, 0.001)
    rng = np.random.default_rng(2)
    for _ in range(5):
        parts = DepthFilter("cpu", *LIMITS).where_needed(raw, 0.001)

        def ask(window, parts=parts):
            parts.cover(window[None])
            x0, y0, x1, y1 = window.astype(int)
            return torch.equal(parts.filtered[y0:y1, x0:x1], whole[y0:y1, x0:x1])

        corners = rng.uniform(0, 300, (16, 2)).astype(np.float32)
        windows = np.hstack([corners, corners + rng.uniform(10, 200, (16, 2))]).astype(np.float32)
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, windows))


def test_a_detached_observation_outlives_the_images():
    """As a registration in the background does with images that are the caller's."""
    raw = measured(200, 200, np.uint16)
    rgb = torch.full((200, 200, 3), 7, dtype=torch.uint8)
    parts = DepthFilter("cpu", *LIMITS).where_needed(raw, 0.001)
    observation = Observation(rgb, parts.filtered, torch.ones(1, 4), parts)
    observation.need(torch.tensor([[0.0, 0.0, 20.0, 20.0]]))
    kept = observation.detached()
    expected = DepthFilter("cpu", *LIMITS)(raw, 0.001)
    raw.zero_()
    rgb.zero_()
    assert torch.equal(kept.everywhere().depth, expected)
    assert int(kept.rgb.min()) == 7


def test_poses_are_those_of_depth_that_was_filtered_everywhere():
    """With networks whose answers are made of every pixel of the crops."""
    item, T = object_of(textured_box()), random_pose(3)
    frame, mask = scene_of(item, T)
    frame = replace(
        frame, depth=frame.depth + np.random.default_rng(0).normal(0, 5e-4, frame.depth.shape).astype(np.float32)
    )
    refiner = FakeRunner(lambda r, o: ((o - r)[:, 3:].mean((2, 3)), 0.1 * (o - r)[:, :3].mean((2, 3))))
    scorer = FakeRunner(lambda r, o: (-(o - r).abs().mean((1, 2, 3)),))
    estimator = PoseEstimator(
        [item], WarpRenderer([item], "cpu"), Networks(refiner, refiner, scorer), PoseConfig(), torch.device("cpu")
    )
    found = []
    for ask in (lambda o: o, lambda o: o.everywhere()):
        observation = ask(prepared(estimator, frame))
        both = [estimator.register(observation, "thing", mask)]
        both += estimator.track(observation, [TrackRequest("thing", item.from_centered(T))])
        found.append(both)
        assert observation.parts is not None
        assert observation.parts._done.all() == (len(found) == 2)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.T_cam_obj, b.T_cam_obj)
        np.testing.assert_array_equal(a.features, b.features)


@pytest.mark.parametrize("place", [np.s_[10:30, 50:90], np.s_[0:1, 0:1], np.s_[0:0, 0:0]])
def test_the_first_guess_needs_the_mask_s_box_alone(place):
    depth = torch.rand(60, 100) + 0.5
    mask = torch.zeros(60, 100, dtype=torch.bool)
    mask[place] = torch.rand(60, 100)[place] > 0.3
    K = torch.tensor([[100.0, 0, 50], [0, 100, 30], [0, 0, 1]])
    rows, columns = bounding_box(mask)
    assert int(mask[rows, columns].sum()) == int(mask.sum())
    reach = torch.tensor([0.1])
    whole, part = guess_translation(depth, mask, K, reach), guess_translation(depth, mask, K, reach, (rows, columns))
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a, b) or (not mask.any() and bool(a.isnan().any()) == bool(b.isnan().any()))
