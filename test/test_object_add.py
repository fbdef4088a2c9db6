"""``object add``: what it says of a mesh, the symmetries it finds, the picture, and the entry that it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import SimpleMaterial

from rfdetr_foundationpose.cli.main import main
from rfdetr_foundationpose.config import ConfigError
from rfdetr_foundationpose.object_tools.entry import entry_text, write_entry
from rfdetr_foundationpose.object_tools.mesh_check import check_mesh, suggest_scale
from rfdetr_foundationpose.object_tools.six_views import render_sides
from rfdetr_foundationpose.object_tools.symmetry_search import find_symmetries
from rfdetr_foundationpose.objects import ContinuousSymmetry, DiscreteSymmetry, ObjectSpec, load_objects
from rfdetr_foundationpose.pose.mesh import load_object, make_object, read_object
from rfdetr_foundationpose.pose.symmetry import rotation_angle, symmetry_transforms
from rfdetr_foundationpose.resources import models_dir


def model(mesh, name="thing", scale=1.0):
    return make_object(ObjectSpec(name, Path("made"), scale=scale), mesh)


def painted(mesh, paint):
    """Vertex colours by a function of the vertices, on a mesh fine enough to carry them."""
    while mesh.edges_unique_length.max() > 0.01:
        mesh = mesh.subdivide()
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=paint(np.asarray(mesh.vertices)))
    return mesh


def grey(vertices):
    return np.tile(np.array([[120, 120, 120, 255]], np.uint8), (len(vertices), 1))


def bands(vertices):
    colours = grey(vertices)
    colours[vertices[:, 2] > 0.02, :3] = (200, 30, 30)
    return colours


def spot(vertices):
    colours = grey(vertices)
    colours[(vertices[:, 0] > 0) & (np.abs(vertices[:, 1]) < 0.015), :3] = (240, 240, 20)
    return colours


def turns_of(found) -> int:
    return len(symmetry_transforms(found.discrete, [], np.zeros(3)))


def test_a_plain_can_may_turn_about_its_axis_and_stand_on_its_head():
    found = find_symmetries(model(painted(trimesh.creation.cylinder(0.033, 0.1, sections=48), grey)))
    assert [s.axis for s in found.continuous] == [(0, 0, 1)]
    assert [(s.fold, abs(s.axis[2]) < 0.01) for s in found.discrete] == [(2, True)]
    assert found.shape_only == ()


def test_bands_forbid_the_head_stand_and_a_spot_the_turn():
    can = trimesh.creation.cylinder(0.033, 0.1, sections=48)
    banded = find_symmetries(model(painted(can.copy(), bands)))
    assert [s.axis for s in banded.continuous] == [(0, 0, 1)] and banded.discrete == ()
    assert any(s.startswith("turns of 180") for s in banded.shape_only)
    spotted = find_symmetries(model(painted(can.copy(), spot)))
    assert spotted.continuous == () and any(s.startswith("any turns about (0, 0, 1)") for s in spotted.shape_only)


@pytest.mark.parametrize("extents, order", [((0.06, 0.06, 0.06), 24), ((0.06, 0.06, 0.1), 8), ((0.05, 0.07, 0.1), 4)])
def test_boxes_have_the_turns_of_their_kind_wherever_they_lie(extents, order):
    rng = np.random.default_rng(4)
    box = painted(trimesh.creation.box(extents), grey)
    box.apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
    box.apply_translation((0.3, -0.1, 0.2))
    found = find_symmetries(model(box))
    assert turns_of(found) == order and found.continuous == ()
    for s in found.discrete:
        np.testing.assert_allclose(s.point, (0.3, -0.1, 0.2), atol=1e-3)


def test_a_ball_turns_about_two_axes_and_a_lying_cone_about_its_own():
    ball = find_symmetries(model(painted(trimesh.creation.icosphere(3, 0.04), grey)))
    assert len(ball.continuous) == 2
    cone = painted(trimesh.creation.cone(0.03, 0.08, sections=64), grey)
    cone.apply_transform(trimesh.transformations.rotation_matrix(0.7, (0.3, 1, 0.2)))
    axis = trimesh.transformations.rotation_matrix(0.7, (0.3, 1, 0.2))[:3, 2]
    found = find_symmetries(model(cone))
    assert found.discrete == () and len(found.continuous) == 1
    assert abs(np.asarray(found.continuous[0].axis) @ axis) > np.cos(np.deg2rad(0.5))


@pytest.mark.parametrize("name", ["mug", "drill", "soup_can", "cereal_box", "spray_bottle"])
def test_the_demo_objects_have_none_that_their_prints_leave(name):
    found = find_symmetries(load_object(ObjectSpec(name, models_dir() / "demo" / f"{name}.glb")))
    assert found.discrete == () and found.continuous == ()


def test_found_symmetries_are_those_the_pose_stage_takes():
    box = model(painted(trimesh.creation.box((0.05, 0.05, 0.1)), grey))
    found = find_symmetries(box)
    spec = replace(ObjectSpec("box", Path("made")), discrete=found.discrete, continuous=found.continuous)
    turned = make_object(spec, trimesh.creation.box((0.05, 0.05, 0.1)))
    angles = np.rad2deg(rotation_angle(turned.symmetries[:, :3, :3]))
    assert sorted({round(a) for a in angles}) == [0, 90, 180]


@pytest.mark.parametrize(
    "units, suffix, told, scale, remark",
    [
        (0.12, ".obj", None, 1.0, ""),
        (120.0, ".stl", None, 0.001, ""),
        (12.0, ".obj", None, 0.01, "--scale 0.0254 if it is in inches"),
        (30.0, ".obj", None, 0.001, "--scale 0.01 if it is in centimetres"),
        (120.0, ".glb", None, 0.001, "in metres by definition"),
        (1e6, ".ply", None, 1.0, ""),
        (4.0, ".dae", 0.0254, 0.0254, ""),
        (0.4, ".3mf", 0.3048, 0.3048, ""),
        (30.0, ".3mf", 0.001, 0.001, ""),
        (120.0, ".dae", 1.0, 0.001, "got its unit wrong"),
    ],
)
def test_scale_is_suggested_and_a_guess_is_called_one(units, suffix, told, scale, remark):
    found, said = suggest_scale(units, suffix, told)
    assert found == scale
    assert remark in said and bool(remark) == bool(said)


def write(mesh, path):
    mesh.export(path)
    return path


def test_a_mesh_whose_last_vertex_ends_one_face_alone(tmp_path):
    """As CAD exports them: every corner of every face is a vertex."""
    (tmp_path / "m.obj").write_text("v 0 0 0\nv 0.1 0 0\nv 0 0.1 0\nv 0 0 0.1\nf 1 2 3\nf 1 2 4\n")
    assert any("2 triangles" in line for line in check_mesh(tmp_path / "m.obj", "m").good)


def test_an_origin_far_away_is_said_and_symmetries_keep_their_place(tmp_path):
    box = trimesh.creation.box((0.05, 0.05, 0.1))
    box.apply_translation((456789.123, 5432100.456, 123.4))
    path = tmp_path / "m.obj"
    path.write_text(trimesh.exchange.obj.export_obj(box, digits=6))
    report = check_mesh(path, "m")
    assert any("its origin is 5.451e+06 m from its middle" in line for line in report.advice)
    found = find_symmetries(report.model)
    text = entry_text("m", path, tmp_path / "objects.yaml", discrete=found.discrete)
    assert "point: [456789.123, 5432100.456, 123.4]" in text
    box.apply_translation(-box.bounds.mean(0) + (0, 0, 0.05))
    box.export(path)
    assert not any("its origin is" in line for line in check_mesh(path, "m").advice)


def test_what_is_wrong_with_a_mesh_is_said(tmp_path):
    box = trimesh.creation.box((80, 60, 120))
    report = check_mesh(write(box, tmp_path / "box.stl"), "box")
    assert report.scale == 0.001 and "80 x 60 x 120 mm" in " ".join(report.good)
    assert "closed surface" in report.good
    assert any("neither texture nor vertex colours" in line for line in report.advice)
    assert any("no usual size" in line for line in check_mesh(tmp_path / "box.stl", "box", scale=0.03).advice)

    opened = box.copy()
    opened.update_faces(np.arange(len(opened.faces)) > 1)
    assert any("edges are open" in line for line in check_mesh(write(opened, tmp_path / "open.stl"), "o").advice)
    inside_out = box.copy()
    inside_out.invert()
    assert any(
        "12 were inside out and are turned" in line
        for line in check_mesh(write(inside_out, tmp_path / "in.stl"), "i").good
    )
    speck = trimesh.creation.icosphere(1, 1.0)
    speck.apply_translation((200, 0, 0))
    with_speck = trimesh.util.concatenate([trimesh.creation.box((80, 60, 120)), speck])
    assert any("specks" in line for line in check_mesh(write(with_speck, tmp_path / "speck.stl"), "s").advice)


def test_a_coarse_texture_is_advised_against(tmp_path):
    mesh = trimesh.creation.box((0.2, 0.2, 0.2))
    uv = np.random.default_rng(0).random((len(mesh.vertices), 2))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
    mesh.visual = TextureVisuals(uv=uv, material=SimpleMaterial(image=picture))
    (tmp_path / "t").mkdir()
    report = check_mesh(write(mesh, tmp_path / "t" / "box.obj"), "box")
    assert any("texture 16 x 16" in line and "coarse" in line for line in report.advice)


def test_six_sides_show_the_side_that_they_name():
    mesh = trimesh.creation.box((0.1, 0.1, 0.1)).subdivide().subdivide()
    corner = np.asarray(mesh.vertices)
    colours = np.full((len(corner), 4), 255, np.uint8)
    colours[:, 0] = np.where(corner[:, 0] > 0.049, 255, 0)
    colours[:, 1] = np.where(corner[:, 2] > 0.049, 255, 0)
    colours[:, 2] = 0
    mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colours)
    sides = dict(render_sides(model(mesh)))
    inside = (slice(150, 180), slice(150, 180))  # beside the axes, which are drawn over the middle
    assert sides["from +x"][inside][..., 0].mean() > 200 > 60 > sides["from -x"][inside][..., 0].mean()
    assert sides["from +z (above)"][inside][..., 1].mean() > 200 > 60 > sides["from -z (below)"][inside][..., 1].mean()
    # Seen from +x, up is z: the green top is above.
    rows = sides["from +x"][..., 1].astype(int) - sides["from +x"][..., 2]
    assert rows[:140].max() > 100


def test_entry_is_added_without_touching_comments_and_replaced_only_when_asked(tmp_path):
    file = tmp_path / "objects.yaml"
    mesh = write(trimesh.creation.box((0.1, 0.1, 0.2)), tmp_path / "meshes_box.stl")
    one = entry_text("box", mesh, file, discrete=(DiscreteSymmetry((0, 0, 1), 4, (0, 0, 0.05)),))
    assert write_entry(file, "box", one) == "added"
    file.write_text("# mine\n" + file.read_text().replace("- name: box", "- name: box  # the blue one"))
    two = entry_text("tin", mesh, file, label="tin: large", scale=0.001)
    assert write_entry(file, "tin", two) == "added"
    text = file.read_text()
    assert text.startswith("# mine\n") and "# the blue one" in text
    box, tin = load_objects(file)
    assert box.discrete == (DiscreteSymmetry((0, 0, 1), 4, (0, 0, 0.05)),) and box.mesh == mesh
    assert (tin.label, tin.scale) == ("tin: large", 0.001)
    with pytest.raises(ConfigError, match="has an object 'tin' already"):
        write_entry(file, "tin", two)
    three = entry_text("tin", mesh, file, continuous=(ContinuousSymmetry((0, 0, 1)),))
    assert write_entry(file, "tin", three, overwrite=True) == "replaced"
    assert load_objects(file)[1].continuous == (ContinuousSymmetry((0, 0, 1)),) and "# the blue one" in file.read_text()


def test_files_whose_list_is_not_the_end_are_left_alone(tmp_path):
    file = tmp_path / "objects.yaml"
    file.write_text("objects: [{name: a, mesh: a.stl}]\n")
    with pytest.raises(ConfigError, match="add this by hand"):
        write_entry(file, "b", entry_text("b", tmp_path / "b.stl", file))
    file.write_text("objects:\n- name: a\n  mesh: a.stl\nother:\n  x: 1\n")
    before = file.read_text()
    with pytest.raises(ConfigError, match="unknown key 'other'"):
        write_entry(file, "b", entry_text("b", tmp_path / "b.stl", file))
    assert file.read_text() == before


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    return int(ended.value.code or 0)


def test_command_adds_draws_and_says_what_next(tmp_path, capsys):
    mesh = write(trimesh.creation.box((80, 60, 120)), tmp_path / "Tea Box-2.stl")
    file = tmp_path / "objects.yaml"
    assert run("object", "add", str(mesh), "--objects-file", str(file)) == 0
    said = capsys.readouterr().out
    assert "train detector --objects-file" in said and "turns below" in said
    (spec,) = load_objects(file)
    assert (spec.name, spec.scale) == ("tea_box_2", 0.001) and spec.discrete
    assert np.asarray(Image.open(tmp_path / "tea_box_2.sides.png")).shape[1] == 3 * 420
    assert run("object", "add", str(mesh), "--objects-file", str(file)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("object", "add", str(tmp_path / "none.obj"), "--objects-file", str(file)) == 2
    assert "does not exist" in capsys.readouterr().err
    assert (
        run("object", "add", str(mesh), "--objects-file", str(tmp_path / "b.yaml"), "--dry-run", "--no-symmetries") == 0
    )
    assert not (tmp_path / "b.yaml").exists()


def test_unit_and_symmetries_of_bop_are_those_that_it_lists(tmp_path, capsys):
    """Which the search would not find: the box is a metre by its size, and turned by half about one axis alone."""
    trimesh.creation.box((900.0, 500.0, 300.0)).export(tmp_path / "obj_000007.ply")
    turn = [-1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    info = {"7": {"diameter": 1072.4, "symmetries_discrete": [turn]}, "8": {"diameter": 1.0}}
    (tmp_path / "models_info.json").write_text(json.dumps(info))
    file = tmp_path / "objects.yaml"
    assert run("object", "add", str(tmp_path / "obj_000007.ply"), "--objects-file", str(file)) == 0
    (found,) = load_objects(file)
    assert (found.scale, found.continuous) == (0.001, ())
    assert [(s.axis, s.fold) for s in found.discrete] == [((0.0, 0.0, 1.0), 2)]
    assert "unit and symmetries as" in capsys.readouterr().out
    run(
        "object", "add", str(tmp_path / "obj_000007.ply"), "--objects-file", str(file), "--overwrite", "--no-symmetries"
    )
    assert load_objects(file)[0].discrete == ()


def test_the_readmes_objects_file_configures_the_pipelines_parts_as_pasted(tmp_path):
    """Meshes load, labels are classes of the shipped detector, symmetries that are suggested there would be read."""
    import re
    import shutil

    import torch
    import yaml

    from rfdetr_foundationpose.config import DetectorConfig
    from rfdetr_foundationpose.detect.checkpoint import load_model
    from rfdetr_foundationpose.detect.classes import map_classes

    readme = Path(__file__).resolve().parents[1] / "README.md"
    blocks = [b for b in re.findall(r"```yaml\n(.*?)```", readme.read_text(), re.DOTALL) if b.startswith("objects:")]
    assert len(blocks) == 1
    (tmp_path / "models").mkdir()
    shutil.copytree(models_dir() / "demo", tmp_path / "models" / "demo")
    file = tmp_path / "objects.yaml"
    file.write_text(blocks[0])
    specs = load_objects(file)
    models = [read_object(spec) for spec in specs]
    sizes = [model.diameter for model in models]
    assert len(specs) == 2 and all(0.05 < size < 0.3 for size in sizes)
    assert all("colour: texture" in model.description and not model.warnings for model in models)
    known = load_model("default", DetectorConfig.variant, torch.device("cpu"))
    assert sorted(map_classes(known.class_names, specs, known.description).objects.values()) == ["mug", "soup_can"]
    # What is commented out there is read as well.
    file.write_text(re.sub(r"^    # (color|symmetries)", r"    \1", blocks[0], flags=re.MULTILINE))
    full = load_objects(file)[1]
    assert full.color and full.discrete and full.continuous
    assert yaml.safe_load(file.read_text())["objects"][1]["max_instances"] == full.max_instances == 2
