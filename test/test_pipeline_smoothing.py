"""Smoothed poses lag by what the setting says, and begin anew where a track does."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.config import PoseConfig
from rfdetr_foundationpose.pipeline.extent import ObjectExtent
from rfdetr_foundationpose.pipeline.smoothing import PoseSmoother
from rfdetr_foundationpose.pipeline.tracks import Track
from rfdetr_foundationpose.types import Frame, TrackState
from support.pipeline_world import CAMERA, CUBE, make, pose_at, spec, step

LAG = 0.2
VELOCITY = np.array([0.3, -0.1, 0.2])  # m/s
SPIN = np.array([0.4, 2.0, -1.0])  # rad/s about a fixed axis of the object
# The mesh's origin is far from its middle, as in files of CAD programs.
EXTENT = ObjectExtent.from_vertices(CUBE + (0.5, 0.2, -0.3))


def pose(seconds: float) -> np.ndarray:
    """Turns at a constant rate about its middle, which moves at a constant velocity."""
    T = np.eye(4)
    T[:3, :3] = (
        Rotation.from_euler("xyz", (1.0, 0.5, -0.8)).as_matrix() @ Rotation.from_rotvec(seconds * SPIN).as_matrix()
    )
    T[:3, 3] = (0.1, 0.2, 1.0) + seconds * VELOCITY - T[:3, :3] @ EXTENT.center
    return T


def frame(seconds: float) -> Frame:
    rgb, depth = np.zeros((120, 160, 3), np.uint8), np.ones((120, 160), np.float32)
    return Frame(round(seconds * 1e9), "camera", rgb, depth, 1.0, CAMERA)


def track_at(T: np.ndarray) -> Track:
    track = Track("mug", 0)
    track.start(T, 0.9, 1.0, 0.9, 0)
    return track


def given(
    smoother: PoseSmoother, track: Track, seconds: float, T: np.ndarray | None = None, lag: float = LAG
) -> np.ndarray:
    track.update(pose(seconds) if T is None else T, 0.9, 1.0, PoseConfig(), round(seconds * 1e9))
    (found,) = smoother.poses([track], frame(seconds), lag)
    return found.T_cam_obj


def times(uneven: bool) -> np.ndarray:
    steps = np.random.default_rng(1).uniform(0.01, 0.1, 100) if uneven else np.full(150, 1 / 30)
    return np.cumsum(steps)


@pytest.mark.parametrize("uneven", [False, True])
def test_what_moves_and_turns_evenly_is_given_as_it_was_the_lag_before(uneven):
    smoother, track = PoseSmoother({"mug": EXTENT}), track_at(pose(0.0))
    for seconds in times(uneven):
        found = given(smoother, track, seconds)
    np.testing.assert_allclose(found, pose(seconds - LAG), atol=1e-6)
    np.testing.assert_allclose(found[:3, :3] @ found[:3, :3].T, np.eye(3), atol=1e-9)


def test_noise_gets_smaller_by_what_is_stated():
    rng = np.random.default_rng(0)
    smoother, track = PoseSmoother({"mug": EXTENT}), track_at(pose(0.0))
    moved, turned, raw = [], [], []
    for index in range(3000):
        T = pose(0.0)
        T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec(rng.normal(0, 0.02, 3)).as_matrix()
        T[:3, 3] += pose(0.0)[:3, :3] @ EXTENT.center - T[:3, :3] @ EXTENT.center + rng.normal(0, 0.002, 3)
        found = given(smoother, track, 0.05 * (index + 1), T)
        if index > 100:
            raw.append(EXTENT.center_in_camera(T))
            moved.append(EXTENT.center_in_camera(found))
            turned.append(Rotation.from_matrix(pose(0.0)[:3, :3].T @ found[:3, :3]).as_rotvec())
    expected = 0.05 / (2 * LAG + 0.05)
    assert np.var(moved, 0).mean() / np.var(raw, 0).mean() == pytest.approx(expected, rel=0.2)
    assert np.var(turned, 0).mean() / 0.02**2 == pytest.approx(expected, rel=0.2)


@pytest.mark.parametrize("again", ["registered", "corrected", "stamps go back", "uncertain meanwhile", "another track"])
def test_it_begins_anew_with_the_track(again):
    smoother, track = PoseSmoother({"mug": EXTENT}), track_at(pose(0.0))
    for seconds in times(False):
        found = given(smoother, track, seconds)
    assert not np.allclose(found, pose(seconds), atol=1e-3)
    later = seconds + 1 / 30
    if again == "registered":
        track.lose("gone")
        track.start(pose(later), 0.9, 1.0, 0.9, round(later * 1e9))
    elif again == "corrected":
        track.correct(pose(later), 0.9, 1.0, round(later * 1e9))
    elif again == "stamps go back":
        later = 0.5
    elif again == "uncertain meanwhile":
        assert smoother.poses([], frame(seconds + 1 / 60), LAG) == []
    else:
        track = track_at(pose(later))
    np.testing.assert_array_equal(given(smoother, track, later), pose(later))


def test_of_what_looks_the_same_the_nearest_is_followed():
    half = np.eye(4)
    half[:3, :3] = Rotation.from_euler("z", 180, degrees=True).as_matrix()
    extent = ObjectExtent(EXTENT.points, np.zeros(3), 0.2, EXTENT.hull, np.stack([np.eye(4), half]))
    smoother, track = PoseSmoother({"mug": extent}), track_at(pose_at(0.0))
    for index in range(6):
        T = pose_at(0.0) @ (half if index % 2 else np.eye(4))
        np.testing.assert_allclose(given(smoother, track, 0.1 * (index + 1), T), pose_at(0.0), atol=1e-12)


def test_off_it_gives_poses_as_they_are_measured_to_the_last_bit():
    smoother, track = PoseSmoother({"mug": EXTENT}), track_at(pose(0.0))
    for seconds in times(False)[:5]:
        np.testing.assert_array_equal(given(smoother, track, seconds, lag=0.0), pose(seconds))


def test_through_the_pipeline_it_is_a_live_setting_and_the_tracker_goes_on_from_what_it_measured(world):
    pipeline = make(world, [spec("mug")], background=False)

    def shown(settings: float, frames: int) -> list[tuple[float, float]]:
        """Published x, and the track's own."""
        pipeline.config.output.smoothing = settings
        pipeline.apply(pipeline.config)
        found = []
        for _ in range(frames):
            x = world.things[0][1][0] + 0.003
            world.things = [("mug", (x, 0.0, 1.0))]
            result = step(pipeline)
            found += [(p.T_cam_obj[0, 3], x) for p in result.tracking]
        return found

    world.things = [("mug", (-0.25, 0.0, 1.0))]
    assert all(published == measured for published, measured in shown(0.0, 10))
    lagging = shown(0.1, 60)
    published, measured = lagging[-1]
    assert measured - published == pytest.approx(0.003 / 0.033 * 0.1, rel=1e-3)
    assert pipeline._tracks.tracking()[0].T_cam_obj[0, 3] == measured
    # Away and back: registered again, without a lag from where it was.
    world.things = []
    while not any(p.state is TrackState.LOST for p in step(pipeline).poses):
        pass
    world.things = [("mug", (0.1, 0.0, 1.0))]
    for _ in range(30):
        tracking = step(pipeline).tracking
        if tracking:
            break
    assert tracking[0].T_cam_obj[0, 3] == 0.1
