"""BOP folders as people have them: other names, splits and sensors; what is missing or broken is left out and counted."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.evaluate.bop_metrics import mssd
from rfdetr_foundationpose.replay.bop import BopDataset, is_bop
from rfdetr_foundationpose.replay.bop_models import BopError
from rfdetr_foundationpose.replay.metrics import symmetry_group
from support.bop_folder import EGGBOX, edit, make_bop, scene_of


def images(dataset: BopDataset) -> list[int]:
    return [image for _, image, _, _ in dataset]


@pytest.mark.parametrize("mesh", ["obj_000001.ply", "obj_01.ply", "obj_1.ply"])
@pytest.mark.parametrize("models", ["models", "models_cad", "models_eval", "models_reconst"])
def test_models_are_found_and_named_by_their_number(mesh, models, tmp_path):
    dataset = BopDataset(make_bop(tmp_path / "a", mesh=mesh, models=models))
    assert [s.name for s in dataset.specs] == ["obj_000001"]
    assert [i.object for *_, instances in dataset for i in instances] == ["obj_000001"] * 3
    assert dataset.models[0].diameter() == pytest.approx(0.1414)
    assert dataset.notes == []


def test_colour_is_taken_from_one_folder_and_bop_measures_with_another(tmp_path):
    folder = make_bop(tmp_path / "a", models="models_eval", info={"diameter": 150.0})
    (folder / "models_cad").mkdir()
    trimesh.creation.box((100, 80, 60)).export(folder / "models_cad" / "obj_000001.ply")
    (model,) = BopDataset(folder).models
    assert model.file.parent.name == "models_cad" and model.eval_file.parent.name == "models_eval"
    assert model.diameter() == pytest.approx(0.15)


def test_without_models_info_diameters_are_measured(tmp_path):
    folder = make_bop(tmp_path / "a")
    (folder / "models" / "models_info.json").unlink()
    dataset = BopDataset(folder)
    assert dataset.models[0].diameter() == pytest.approx(np.linalg.norm([0.1, 0.08, 0.06]))
    assert "no symmetry is known" in dataset.notes[0]


@pytest.mark.parametrize("split", ["test_primesense", "test_kinect", "val", "train_pbr"])
def test_the_only_split_is_taken_and_others_are_named(split, tmp_path):
    dataset = BopDataset(make_bop(tmp_path / "a", split=split))
    assert dataset.split == split and images(dataset) == [0, 1, 2] and is_bop(tmp_path / "a")
    make_bop(tmp_path / "a", split="train_real")
    assert BopDataset(tmp_path / "a", split).split == split
    if split.startswith("test"):
        assert BopDataset(tmp_path / "a").split == split
    else:
        with pytest.raises(BopError, match="there are scenes in train_"):
            BopDataset(tmp_path / "a")
    with pytest.raises(BopError, match=f"a/other holds no .*{split}"):
        BopDataset(tmp_path / "a", "other")


def test_each_sensor_of_a_scene_is_read_by_itself(tmp_path):
    folder = make_bop(tmp_path / "a", suffix="_cam1")
    make_bop(folder, suffix="_cam2", images=2)
    scene = scene_of(folder)
    (scene / "rgb_cam2").rename(scene / "gray_cam2")
    (scene / "scene_gt_polar.json").write_text("{}")
    (scene / "scene_gt_coco_cam1.json").write_text("{}")
    dataset = BopDataset(folder)
    assert Counter(scene for scene, *_ in dataset) == {"000001/cam1": 3, "000001/cam2": 2}
    assert "polar" in dataset.notes[0]
    assert [s for s, *_ in BopDataset(folder, sensor="cam2")] == ["000001/cam2"] * 2
    with pytest.raises(BopError, match="no sensor 'cam9'; it has cam1, cam2"):
        BopDataset(folder, sensor="cam9")


def convert(folder: Path, suffix: str, flags: int = cv2.IMREAD_UNCHANGED) -> None:
    for file in list(folder.glob("*.png")):
        cv2.imwrite(str(file.with_suffix(suffix)), cv2.imread(str(file), flags))
        file.unlink()


def test_other_image_files_are_read(tmp_path):
    folder = make_bop(tmp_path / "a")
    scene = scene_of(folder)
    convert(scene / "depth", ".tif")
    (scene / "rgb").rename(scene / "gray")
    convert(scene / "gray", ".tif", cv2.IMREAD_GRAYSCALE)
    for file in (scene / "mask_visib").iterdir():
        file.rename(file.with_name(file.name.replace("00000", "00", 1)))
    frames = [frame for _, _, frame, _ in BopDataset(folder)]
    assert len(frames) == 3
    assert frames[0].depth.dtype == np.uint16 and frames[0].depth[60, 80] == 520
    assert np.ptp(frames[0].rgb[60, 80]) == 0
    for file in (scene / "depth").iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(np.float32))
    assert next(iter(BopDataset(folder)))[2].depth.dtype == np.float32


def drop(name: str):
    return lambda scene: (scene / name).unlink()


def cut(name: str):
    return lambda scene: (scene / name).write_bytes((scene / name).read_bytes()[:40])


def write(name: str, pixels: np.ndarray):
    return lambda scene: cv2.imwrite(str(scene / name), pixels)


def change(name: str, how):
    return lambda scene: edit(scene / f"{name}.json", how)


def poison(tree: dict, value: object) -> None:
    tree["1"] = value


@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (drop("rgb/000001.png"), "rgb that is missing"),
        (drop("depth/000001.png"), "depth that is missing"),
        (drop("mask_visib/000001_000000.png"), "mask that is missing"),
        (cut("rgb/000001.png"), "image of bad_image"),
        (cut("depth/000001.png"), "image of bad_image"),
        (cut("mask_visib/000001_000000.png"), "mask that is no image"),
        (write("depth/000001.png", np.zeros((120, 160), np.uint8)), "image of bad_depth"),
        (write("depth/000001.png", np.zeros((60, 80), np.uint16)), "image of size_mismatch"),
        (write("mask_visib/000001_000000.png", np.zeros((60, 80), np.uint8)), "mask of another size than its image"),
        (change("scene_camera", lambda t: t.pop("1")), "image without a camera"),
        (change("scene_camera", lambda t: t["1"].pop("cam_K")), "image without a camera"),
        (change("scene_camera", lambda t: t["1"].update(cam_K=[0] * 9)), "image of bad_camera_info"),
        (change("scene_camera", lambda t: t["1"].update(cam_K=[1, 2])), "image whose camera cannot be used"),
        (change("scene_camera", lambda t: t["1"].update(depth_scale=0)), "image whose camera cannot be used"),
        (change("scene_gt", lambda t: t["1"][0].pop("cam_R_m2c")), "instance whose pose cannot be read"),
        (change("scene_gt", lambda t: t["1"][0].update(cam_R_m2c=[1] * 9)), "instance whose pose is none"),
        (change("scene_gt", lambda t: t["1"][0].update(obj_id=7)), "instance of an object without a model"),
    ],
)
def test_one_bad_image_is_left_out_and_counted(spoil, kind, tmp_path):
    folder = make_bop(tmp_path / "a")
    spoil(scene_of(folder))
    dataset = BopDataset(folder)
    assert images(dataset) == [0, 2]
    assert dataset.left_out.counts == {kind: 1}
    (sentence,) = dataset.left_out.sentences()
    assert kind in sentence and str(folder) in sentence


def packed(runs: list[int]) -> str:
    """Runs as COCO packs them: differences to the run before the last, five bits a letter."""
    text = ""
    for i, run in enumerate(runs):
        value, more = run - (runs[i - 2] if i > 2 else 0), True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + bits + 32 * more)
    return text


@pytest.mark.parametrize("form", ["runs", "packed", "polygon"])
def test_masks_of_coco_annotations(form, tmp_path):
    folder = make_bop(tmp_path / "d")
    scene, wanted = scene_of(folder), None
    entries = []
    for path in sorted((scene / "mask_visib").iterdir()):
        wanted = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) > 0
        flat = wanted.ravel(order="F")
        ends = [*(np.flatnonzero(np.diff(flat)) + 1), flat.size]
        runs = np.diff([0, *ends]).tolist()
        shape = {"size": list(wanted.shape), "counts": packed(runs) if form == "packed" else runs}
        if form == "polygon":
            shape = [[66, 49, 94, 49, 94, 71, 66, 71]]
        entries.append({"image_id": int(path.stem[:6]), "segmentation": shape})
        path.unlink()
    (scene / "scene_gt_coco.json").write_text(json.dumps({"annotations": entries}))
    dataset = BopDataset(folder)
    masks = [instances[0].mask for *_, instances in dataset]
    assert len(masks) == 3 and all((mask == wanted).all() for mask in masks)
    entries[1]["segmentation"] = {"size": [120, 160], "counts": [7, 8]}
    (scene / "scene_gt_coco.json").write_text(json.dumps({"annotations": entries}))
    dataset = BopDataset(folder)
    assert images(dataset) == [0, 2] and dataset.left_out.counts == {"mask that cannot be decoded": 1}


def test_whole_masks_are_taken_where_there_are_no_others_and_that_is_said(tmp_path):
    folder = make_bop(tmp_path / "d")
    (scene_of(folder) / "mask_visib").rename(scene_of(folder) / "mask")
    dataset = BopDataset(folder)
    assert images(dataset) == [0, 1, 2] and any("mask/ is read, which shows hidden parts" in n for n in dataset.notes)


def test_the_camera_of_the_data_set_serves_scenes_without(tmp_path):
    folder = make_bop(tmp_path / "d")
    (scene_of(folder) / "scene_camera.json").unlink()
    (folder / "camera.json").write_text(json.dumps({"fx": 150, "fy": 151, "cx": 80, "cy": 60, "depth_scale": 0.1}))
    frames = [frame for _, _, frame, _ in BopDataset(folder)]
    assert len(frames) == 3 and frames[0].camera.fy == 151 and frames[0].depth_scale == pytest.approx(1e-4)
    (folder / "camera.json").write_text(json.dumps({"fx": 150}))
    dataset = BopDataset(folder)
    assert images(dataset) == [] and "camera.json has no 'cx'" in dataset.left_out.sentences()[0]


@pytest.mark.parametrize("name", ["obj_000001.PLY", "OBJ_01.ply"])
def test_models_of_other_case(name, tmp_path):
    assert images(BopDataset(make_bop(tmp_path / "d", mesh=name))) == [0, 1, 2]


def test_of_several_instances_only_the_bad_one_is_left_out(tmp_path):
    folder = make_bop(tmp_path / "a")
    change("scene_gt", lambda t: t["1"].append(dict(t["1"][0])))(scene_of(folder))
    dataset = BopDataset(folder)
    assert [len(instances) for *_, instances in dataset] == [1, 1, 1]
    assert dataset.left_out.counts == {"mask that is missing": 1}


def test_an_image_without_instances_stays(tmp_path):
    folder = make_bop(tmp_path / "a")
    change("scene_gt", lambda t: poison(t, []))(scene_of(folder))
    assert [len(instances) for *_, instances in BopDataset(folder)] == [1, 0, 1]


def test_a_scene_whose_json_is_broken_is_left_out(tmp_path):
    folder = make_bop(tmp_path / "a")
    other = scene_of(folder).with_name("000002")
    (folder / "test" / "000001").rename(other)
    make_bop(folder)
    (other / "scene_gt.json").write_text('{"0": [')
    dataset = BopDataset(folder)
    assert images(dataset) == [0, 1, 2] and len(dataset) == 3
    assert dataset.left_out.counts == {"scene whose JSON is broken": 1}
    (scene_of(folder) / "scene_gt_info.json").write_text("[1")
    assert [i.visibility for *_, instances in BopDataset(folder) for i in instances] == [None] * 3


@pytest.mark.parametrize(
    "object", [{"symmetries_discrete": [EGGBOX]}, {"symmetries_discrete": [np.ravel(EGGBOX).tolist()]}]
)
def test_the_eggbox_of_lm_is_read_as_it_is(object, tmp_path):
    """The pipeline has a half turn; BOP's errors use the transform that is listed."""
    dataset = BopDataset(make_bop(tmp_path / "a", info=object))
    (spec,), (model,) = dataset.specs, dataset.models
    assert [turn.fold for turn in spec.discrete] == [2] and dataset.notes == []
    assert len(symmetry_group(spec.discrete)) == 2
    listed = np.reshape(EGGBOX, (4, 4))
    symmetries = model.symmetries()
    np.testing.assert_allclose(symmetries[1][:3, :3], listed[:3, :3])
    np.testing.assert_allclose(symmetries[1][:3, 3] * 1000, listed[:3, 3])
    T = np.eye(4)
    T[2, 3] = 0.6
    assert mssd(T @ symmetries[1], T, model.vertices(), symmetries) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("off", [0.0, 0.005, 0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("fold", [2, 3, 4, 6])
def test_a_turn_that_was_fitted_is_taken_as_the_fraction_it_means(fold, off, tmp_path):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, 360 / fold - off], degrees=True).as_matrix()
    dataset = BopDataset(make_bop(tmp_path / "a", info={"symmetries_discrete": [T.ravel().tolist()]}))
    assert [turn.fold for turn in dataset.specs[0].discrete] == [fold]


def test_fitted_axes_that_are_not_quite_square_close(tmp_path):
    turns = []
    for axis in ((0, 0.004, 1), (1, 0.01, 0.005), (-0.01, 1, 0.002)):
        T = np.eye(4)
        T[:3, :3] = Rotation.from_rotvec(np.pi * np.array(axis) / np.linalg.norm(axis)).as_matrix()
        T[:3, 3] = (np.eye(3) - T[:3, :3]) @ [1.0, 2.0, 3.0]
        turns.append(T.ravel().tolist())
    dataset = BopDataset(make_bop(tmp_path / "a", info={"symmetries_discrete": turns}))
    assert dataset.notes == []
    assert len(symmetry_group(dataset.specs[0].discrete)) == 4


def test_a_turn_that_never_closes_costs_the_symmetry_alone(tmp_path):
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec([0, 0, 77.77], degrees=True).as_matrix()
    dataset = BopDataset(make_bop(tmp_path / "a", info={"symmetries_discrete": [T.ravel().tolist(), EGGBOX]}))
    assert [turn.fold for turn in dataset.specs[0].discrete] == [2]
    assert (
        "obj_000001" in dataset.notes[0]
        and "77.7700 degrees" in dataset.notes[0]
        and "within 1 degree" in dataset.notes[0]
    )
    assert len(dataset.models[0].symmetries()) == 3


@pytest.mark.parametrize(
    "info",
    [
        {"symmetries_discrete": [[1, 2, 3]]},
        {"symmetries_discrete": [np.diag([1.0, 1, -1, 1]).ravel().tolist()]},
        {"symmetries_discrete": 5},
        {"symmetries_continuous": [{"axis": [0, 0, 0]}]},
        {"symmetries_continuous": [{"offset": [0, 0, 0]}]},
    ],
)
def test_what_is_no_symmetry_is_one_sentence(info, tmp_path):
    with pytest.raises(ConfigError, match="obj_000001: symmetries of models_info.json cannot be read"):
        BopDataset(make_bop(tmp_path / "a", info=info))


def test_what_is_no_data_set_is_one_sentence(tmp_path):
    with pytest.raises(BopError, match="does not exist"):
        BopDataset(tmp_path / "none")
    folder = make_bop(tmp_path / "a")
    (folder / "models" / "obj_000001.ply").unlink()
    with pytest.raises(BopError, match="separate archive"):
        BopDataset(folder)
    with pytest.raises(BopError, match="a/test is a split: name the folder above it"):
        BopDataset(folder / "test")
    folder = make_bop(tmp_path / "b")
    (folder / "models" / "models_info.json").write_text("{")
    with pytest.raises(BopError, match=r"models_info\.json cannot be read as JSON"):
        BopDataset(folder)
    assert not is_bop(tmp_path / "none")
