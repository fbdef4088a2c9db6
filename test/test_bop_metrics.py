"""The BOP challenge's errors and score: numbers that bop_toolkit gives for the same cases, and the results file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from rfdetr_foundationpose.evaluate.attempts import Attempt
from rfdetr_foundationpose.evaluate.bop_metrics import BopImage, ScoredPose, average_recall, mspd, mssd, vsd
from rfdetr_foundationpose.evaluate.bop_scores import BopScores, write_results
from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.bop_models import BopModel
from support.bop_folder import EGGBOX, make_bop

SYMMETRIES = [
    {},
    {"symmetries_discrete": [EGGBOX]},
    {"symmetries_continuous": [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]},
    {
        "symmetries_continuous": [{"axis": [0, 1, 0], "offset": [3, 0, -5]}],
        "symmetries_discrete": [[-1, 0, 0, 6, 0, 1, 0, 0, 0, 0, -1, -10, 0, 0, 0, 1]],
    },
]
K = np.array([[700.0, 0, 320], [0, 710, 240], [0, 0, 1]])
# By bop_toolkit (commit cea62d6): symmetries, MSSD (mm), MSPD (px), VSD for the ten tolerances.
TOOLKIT = [
    (1, 24.062035815, 20.828957921, [0.65625, 0.325892857, 0.15625, *[0.133928571] * 7]),
    (2, 76.586238438, 46.400514485, [0.559090909, 0.272727273, *[0.159090909] * 8]),
    (315, 12.057498262, 8.919009321, [1.0, 0.913875598, 0.406698565, *[0.177033493] * 7]),
    (630, 70.354356491, 59.748238763, [1.0, 1.0, 1.0, 0.75, 0.419811321, *[0.259433962] * 5]),
]


def rotation(a: float, b: float, c: float) -> np.ndarray:
    (ca, cb, cc), (sa, sb, sc) = np.cos([a, b, c]), np.sin([a, b, c])
    x = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    y = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    return x @ y @ np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])


def case(i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, true and estimated pose, metres."""
    n = np.arange(40)
    points = np.stack([50 * np.sin(1.3 * n + i), 30 * np.cos(2.1 * n), 20 * np.sin(0.7 * n * n)], 1) / 1000
    truth, estimate = np.eye(4), np.eye(4)
    truth[:3, :3], truth[:3, 3] = rotation(0.3 + i, 1.1, -0.4 * i), np.array([20.0, -30 + 5 * i, 600 + 40 * i]) / 1000
    estimate[:3, :3] = rotation(0.3 + i + 0.1, 1.0, -0.4 * i + 0.2 + i)
    estimate[:3, 3] = truth[:3, 3] + np.array([4.0, -3.0, 7.0]) / 1000
    return points, truth, estimate


def depths(i: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Camera matrix; depth of the estimate, of the truth, and as measured, metres."""
    y, x = np.mgrid[:24, :32]
    truth = np.where((x - 15) ** 2 + (y - 11) ** 2 < 70, 500 + 3 * x + 2 * y, 0.0)
    estimate = np.where((x - 15 - i) ** 2 + (y - 12) ** 2 < 75, 503 + 4 * x + i * y, 0.0)
    measured = np.where((x * 7 + y * 5) % 11 < 2, 0.0, 505 + 2.5 * x + 2 * y - np.where(x > 20, 80, 0))
    return np.array([[40.0, 0, 15.6], [0, 41, 11.7], [0, 0, 1]]), [d / 1000 for d in (estimate, truth, measured)]


@pytest.mark.parametrize("i", range(4))
def test_errors_are_those_of_bop_toolkit(i):
    count, surface, projection, visible = TOOLKIT[i]
    symmetries = BopModel(1, Path("a"), Path("a"), SYMMETRIES[i]).symmetries()
    assert len(symmetries) == count
    points, truth, estimate = case(i)
    assert mssd(estimate, truth, points, symmetries) * 1000 == pytest.approx(surface, abs=1e-8)
    assert mspd(estimate, truth, K, points, symmetries) == pytest.approx(projection, abs=1e-8)
    camera, images = depths(i)
    assert vsd(*images, camera, 0.14) == pytest.approx(visible, abs=1e-8)


def test_a_right_pose_has_no_error_and_an_absent_one_all_of_it():
    points, truth, _ = case(1)
    assert mssd(truth, truth, points, np.eye(4)[None]) == 0
    assert mspd(truth, truth, K, points, np.eye(4)[None]) == 0
    camera, (_, seen, measured) = depths(0)
    assert vsd(seen, seen, measured, camera, 0.14) == [0.0] * 10
    assert vsd(np.zeros_like(seen), np.zeros_like(seen), measured, camera, 0.14) == [1.0] * 10


def estimate(score: float, *errors: float) -> ScoredPose:
    return ScoredPose(score, {i: ([e] * 10, e, 100 * e) for i, e in enumerate(errors)})


def test_average_recall_is_the_mean_over_thresholds():
    """An error of 0.22 diameters (22 px) is below six of the ten thresholds 0.05 ... 0.5 (5 ... 50)."""
    one = BopImage("a", [0], [estimate(0.9, 0.22)])
    assert average_recall([one]) == pytest.approx({"ar": 0.6, "ar_vsd": 0.6, "ar_mssd": 0.6, "ar_mspd": 0.6})
    nothing = BopImage("a", [0, 1])
    assert average_recall([one, nothing])["ar"] == pytest.approx(0.2)
    assert average_recall([])["ar"] == 0.0


def test_estimates_take_the_nearest_free_instance_surest_first():
    # The surer estimate takes instance 0, for which the other would have been better.
    image = BopImage("a", [0, 1], [estimate(0.5, 0.01, 0.6), estimate(0.9, 0.04, 0.3)])
    assert average_recall([image])["ar_mssd"] == pytest.approx(0.5)
    image = BopImage("a", [0, 1], [estimate(0.9, 0.01, 0.6), estimate(0.5, 0.04, 0.3)])
    # 0.3 is below 0.35 ... 0.5: four of ten.
    assert average_recall([image])["ar_mssd"] == pytest.approx((10 + 4) / 20)
    assert average_recall([BopImage("a", [0], [estimate(0.9, 0.2), estimate(0.8, 0.01)])])["ar_mssd"] == 1.0


def test_a_data_set_is_scored_and_written_for_bop_toolkit(tmp_path):
    dataset = BopDataset(make_bop(tmp_path / "tiny_set"))
    scores = BopScores(dataset, "cpu")
    attempts: list[Attempt] = []
    for scene, image, frame, instances in dataset:
        (instance,) = instances
        near = instance.T_cam_obj.copy()
        near[0, 3] += 0.001
        pose = near if image else None
        made = [Attempt(scene, image, instance.object, "register", 40.0 + image, confidence=0.8, T_cam_obj=pose)]
        scores.add(frame, instances, made)
        attempts += made
    figures = scores.figures()
    assert figures["all"]["targets"] == 3
    assert figures["all"]["ar_mssd"] == figures["by_object"]["obj_000001"]["ar_mssd"] == pytest.approx(2 / 3)
    assert figures["all"]["ar_vsd"] == pytest.approx(2 / 3)
    (file,) = write_results(tmp_path / "out", dataset, attempts)
    assert file.name == "rfdetr-foundationpose_tiny-set-test.csv"
    rows = list(csv.reader(file.open()))
    assert rows[0] == ["scene_id", "im_id", "obj_id", "score", "R", "t", "time"]
    assert [row[:3] for row in rows[1:]] == [["1", "1", "1"], ["1", "2", "1"]]
    assert [float(v) for v in rows[1][4].split()] == pytest.approx(np.eye(3).ravel())
    assert [float(v) for v in rows[1][5].split()] == pytest.approx([1.0, 0.0, 550.0])
    assert float(rows[2][6]) == pytest.approx(0.042)


def test_depth_is_rendered_where_bop_toolkit_has_it(tmp_path):
    """A face at 500 mm before a camera whose pixel i shows i + 0.5 of the image plane: edges fall between pixels so."""
    dataset = BopDataset(make_bop(tmp_path / "a"))
    scores = BopScores(dataset, "cpu")
    ((_, _, frame, _), *_) = list(dataset)
    T = np.eye(4)
    T[2, 3] = 0.53
    depth = scores.depth("obj_000001", T, frame.camera)
    assert depth.shape == (120, 160)
    assert np.unique(np.round(depth, 5)).tolist() == pytest.approx([0.0, 0.5])
    rows, columns = np.nonzero(depth)
    # The box is 100 x 80 x 60 mm: 30 px wide about 80, 24 high about 60, at 150 px and 0.5 m.
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (65, 94, 48, 71)
