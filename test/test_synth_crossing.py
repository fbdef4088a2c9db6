"""Bars across objects: they cut what is seen, stay clear of the camera, and leave scenes without them as they were."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from rfdetr_foundationpose.synth.crossing import NEAREST, put_across, random_bar
from rfdetr_foundationpose.synth.demo_objects import demo_objects
from rfdetr_foundationpose.synth.scene import SceneBatch, SceneContent, SceneSampler

SIZE = (120, 160)


def scenes(crossed: float) -> SceneBatch:
    return SceneSampler(demo_objects(), "cpu", SIZE, 3, SceneContent(8, 8, crossed=crossed)).sample(48)


@pytest.fixture(scope="module")
def pair() -> tuple[SceneBatch, SceneBatch]:
    return scenes(0.0), scenes(1.0)


def cut_in_two(batch: SceneBatch) -> int:
    """Instances of which at least two pieces with an eighth of their pixels or more are in sight."""
    count = 0
    ids = batch.instance.numpy()
    for scene in range(len(ids)):
        for m in np.flatnonzero(batch.label[scene].numpy() >= 0):
            seen = (ids[scene] == m).astype(np.uint8)
            areas = np.sort(cv2.connectedComponentsWithStats(seen)[2][1:, cv2.CC_STAT_AREA])
            count += int(seen.sum() >= 40 and len(areas) > 1 and areas[-2] >= seen.sum() / 8)
    return count


def test_bars_cut_objects_in_two(pair):
    plain, crossed = (cut_in_two(batch) for batch in pair)
    assert crossed >= 3 * max(plain, 1)


def test_a_bar_is_nothing_to_be_found(pair):
    plain, crossed = pair
    assert crossed.label.shape[1] == plain.label.shape[1] + 1
    assert (crossed.label[:, -1] == -1).all()
    shown = crossed.instance == crossed.label.shape[1] - 1
    assert shown.flatten(1).any(1).float().mean() > 0.5, "most of the scenes have an object, and so a bar"
    assert crossed.names == plain.names


def test_a_share_of_none_changes_no_scene(pair):
    again = SceneSampler(demo_objects(), "cpu", SIZE, 3, SceneContent(8, 8)).sample(48)
    assert torch.equal(again.rgb, pair[0].rgb)


def test_bars_lie_between_camera_and_object_and_never_on_the_camera():
    rng = np.random.default_rng(0)
    count = 400
    T = np.tile(np.eye(4), (count, 2, 1, 1))
    T[:, :, :3, 3] = rng.normal(0, 0.2, (count, 2, 3))
    mesh = np.stack([np.zeros(count, int), np.where(rng.random(count) < 0.5, 1, -1)], 1)
    mesh[:40] = -1
    radius = np.array([0.05, 0.2])
    eye = T[:, 0, :3, 3] + rng.normal(0, 0.4, (count, 3))
    pose, there = put_across(rng, T, mesh, radius, eye, share=0.5)
    assert not there[:40].any()
    assert 0.3 < there[40:].mean() < 0.55
    R = pose[:, :3, :3]
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.tile(np.eye(3), (count, 1, 1)), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(R), 1.0)
    position = pose[there, :3, 3]
    # Beside the line of sight by at most four standard deviations of the larger object's radius.
    assert (np.linalg.norm(eye[there] - position, axis=1) > NEAREST - 4 * 0.15 * 0.2).all()
    nearest = np.linalg.norm(T[there, :, :3, 3] - position[:, None], axis=2).min(1)
    assert (nearest < 1.3 * 0.2 + 0.03 + 4 * 0.15 * 0.2 * np.sqrt(3)).all()


def test_bars_are_long_and_thin():
    rng = np.random.default_rng(1)
    extents = np.array([np.sort(np.ptp(np.asarray(random_bar(rng).mesh.vertices), axis=0)) for _ in range(40)])
    assert (extents[:, 2] >= 0.29).all() and (extents[:, 2] <= 0.81).all()
    assert (extents[:, 1] <= 0.051).all() and (extents[:, 0] >= 0.002).all()
