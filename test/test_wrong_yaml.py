"""Wrong objects.yaml and settings files: one sentence that names file, key and value, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfdetr_foundationpose.config import ConfigError, load_yaml
from rfdetr_foundationpose.objects import load_objects
from rfdetr_foundationpose.yaml_files import parse_yaml
from support.cli_runs import run_cli

MUG = "name: mug, mesh: mug.obj"
LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
)


def entry(more: str, base: str = MUG) -> str:
    return f"objects: [{{{base}, {more}}}]\n"


OBJECTS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "must hold a list under 'objects'"),
    "a list": ("- name: mug\n  mesh: a.obj\n", "must hold a list under 'objects'"),
    "a word": ("mug", "must hold a list under 'objects'"),
    "a number": ("3", "must hold a list under 'objects'"),
    "no objects": ("things: []", "unknown key 'things'; known are objects"),
    "misspelt objects": ("object: [{name: mug, mesh: a.obj}]", "unknown key 'object'; did you mean 'objects'?"),
    "null objects": ("objects:", "non-empty list under 'objects'"),
    "empty list": ("objects: []", "non-empty list under 'objects'"),
    "mapping of objects": ("objects: {mug: {mesh: a.obj}}", "non-empty list under 'objects'"),
    "objects is a word": ("objects: mug", "non-empty list under 'objects'"),
    "entry is a word": ("objects: [mug]", "entry 1 of objects needs 'name' and 'mesh', found 'mug'"),
    "entry is null": ("objects: [~]", "entry 1 of objects needs 'name' and 'mesh', found None"),
    "second entry without mesh": ("objects: [{name: a, mesh: a.obj}, {name: b}]", "entry 2 of objects needs"),
    "no name": ("objects: [{mesh: a.obj}]", "entry 1 of objects needs 'name' and 'mesh'"),
    "name is a number": (entry("scale: 1", "name: 5, mesh: a.obj"), "name=5 must be a text"),
    "name is on": (entry("scale: 1", "name: on, mesh: a.obj"), "name=True must be a text"),
    "name is null": (entry("scale: 1", "name: ~, mesh: a.obj"), "name=None must be a text"),
    "name has a slash": (entry("scale: 1", "name: a/b, mesh: a.obj"), "object name 'a/b' must be a letter"),
    "name has a blank": (entry("scale: 1", "name: my mug, mesh: a.obj"), "object name 'my mug'"),
    "name begins with a digit": (entry("scale: 1", "name: 3d, mesh: a.obj"), "object name '3d'"),
    "name is endless": (entry("scale: 1", f"name: {'a' * 3000}, mesh: a.obj"), "up to 63"),
    "name in another script": (entry("scale: 1", "name: чашка, mesh: a.obj"), "must be a letter"),
    "mesh is a number": (entry("scale: 1", "name: mug, mesh: 5"), "object mug: mesh=5 must be a text"),
    "mesh is a list": (entry("scale: 1", "name: mug, mesh: [a.obj]"), "object mug: mesh=['a.obj'] must be a text"),
    "mesh is empty": (entry("scale: 1", "name: mug, mesh: ''"), "object mug: mesh='' must be a text"),
    "mesh with a zero byte": (entry("scale: 1", 'name: mug, mesh: "a\\0b"'), "object mug: mesh="),
    "mesh does not exist": (f"objects: [{{{MUG}}}]", "mug.obj does not exist"),
    "mesh of another machine": ("objects: [{name: mug, mesh: 'https://host/a.obj'}]", "is no file of this machine"),
    "mesh of a package that is not there": ("objects: [{name: mug, mesh: 'package://no_such/a.obj'}]", "no_such"),
    "mesh is a folder": ("objects: [{name: mug, mesh: .}]", "object mug"),
    "label is a number": (entry("label: 3"), "object mug: label=3 must be a text"),
    "label is empty": (entry("label: ''"), "object mug: label='' must be a text"),
    "scale is a word": (entry("scale: big"), "object mug: scale='big' must be a number in (0, 1000]"),
    "scale in quotes": (entry("scale: '0.001'"), "object mug: scale='0.001' must be a number"),
    "scale is zero": (entry("scale: 0"), "object mug: scale=0 must be in (0, 1000] metres per mesh unit"),
    "scale is negative": (entry("scale: -0.001"), "object mug: scale=-0.001 must be in (0, 1000]"),
    "scale is NaN": (entry("scale: .nan"), "object mug: scale=nan must be in (0, 1000]"),
    "scale is infinite": (entry("scale: .inf"), "object mug: scale=inf must be in (0, 1000]"),
    "scale is true": (entry("scale: true"), "object mug: scale=True must be a number"),
    "scale is a list": (entry("scale: [1, 1, 1]"), "object mug: scale=[1, 1, 1] must be a number"),
    "scale of hundreds of digits": (entry(f"scale: {'9' * 400}"), "object mug: scale="),
    "scale of thousands of digits": (entry(f"scale: {'9' * 6000}"), "not valid YAML"),
    "colour by name": (entry("color: red"), "object mug: color='red' must be three numbers in [0, 255]"),
    "colour of two": (entry("color: [1, 2]"), "object mug: color=[1, 2] must be three numbers"),
    "colour above 255": (entry("color: [256, 0, 0]"), "object mug: color=256 must be a whole number in [0, 255]"),
    "colour from 0 to 1": (entry("color: [0.5, 0.5, 0.5]"), "object mug: color=0.5 must be a whole number"),
    "threshold above one": (entry("threshold: 50"), "object mug: threshold=50 must be in [0, 1]"),
    "threshold in per cent": (entry("threshold: 50%"), "object mug: threshold='50%' must be a number in [0, 1]"),
    "no instances": (entry("max_instances: 0"), "object mug: max_instances=0 must be a whole number in [1, 100]"),
    "a billion instances": (entry("max_instances: 1000000000"), "object mug: max_instances=1000000000 must be a whole"),
    "half an instance": (entry("max_instances: 1.5"), "object mug: max_instances=1.5 must be a whole number"),
    "instances is true": (entry("max_instances: true"), "object mug: max_instances=True must be a whole number"),
    "unknown key": (entry("colour: [1, 2, 3]"), "object mug: unknown key 'colour'; did you mean 'color'?"),
    "symmetries is a word": (entry("symmetries_discrete: yes"), "object mug: symmetries_discrete=True must be a list"),
    "symmetry without axis": (entry("symmetries_discrete: [{fold: 2}]"), "symmetries_discrete needs an 'axis'"),
    "symmetry without fold": (entry("symmetries_discrete: [{axis: [0, 0, 1]}]"), "symmetries_discrete needs 'fold'"),
    "axis by name": (entry("symmetries_continuous: [{axis: z}]"), "symmetries_continuous: axis='z' must be three"),
    "axis of two": (entry("symmetries_continuous: [{axis: [0, 1]}]"), "axis=[0, 1] must be three numbers"),
    "axis is zero": (entry("symmetries_continuous: [{axis: [0, 0, 0]}]"), "axis=[0, 0, 0] has no direction"),
    "axis is NaN": (entry("symmetries_continuous: [{axis: [.nan, 0, 1]}]"), "axis=nan must be in"),
    "fold of one": (
        entry("symmetries_discrete: [{axis: [0, 0, 1], fold: 1}]"),
        "fold=1 must be a whole number in [2, 120]",
    ),
    "fold of a million": (entry("symmetries_discrete: [{axis: [0, 0, 1], fold: 1000000}]"), "fold=1000000 must be"),
    "fold of a half": (entry("symmetries_discrete: [{axis: [0, 0, 1], fold: 2.5}]"), "fold=2.5 must be a whole number"),
    "point of four": (entry("symmetries_continuous: [{axis: [0, 0, 1], point: [1, 2, 3, 4]}]"), "point=[1, 2, 3, 4]"),
    "continuous with fold": (entry("symmetries_continuous: [{axis: [0, 0, 1], fold: 2}]"), "unknown key 'fold'"),
    "three axes of any turn": (
        entry("symmetries_continuous: [{axis: [0, 0, 1]}, {axis: [0, 1, 0]}, {axis: [1, 0, 0]}]"),
        "object mug: two axes of symmetries_continuous make it a ball",
    ),
    "one name twice": (
        "objects: [{name: a, mesh: a.obj}, {name: a, mesh: b.obj}]",
        "object name 'a' is used more than once",
    ),
    "an instance called like an object": (
        "objects: [{name: box_1, mesh: a.obj}, {name: box, mesh: b.obj, max_instances: 2}]",
        "object box_1 and an instance of box would both be called 'box_1'",
    ),
    "key twice": (
        "objects:\n  - name: a\n    mesh: a.obj\n    mesh: b.obj\n",
        ":4: not valid YAML: 'mesh' is given twice",
    ),
    "tab": ("objects:\n\t- name: mug\n", ":2: not valid YAML"),
    "bracket left open": ("objects: [{name: mug, mesh: a.obj}\n", "not valid YAML"),
    "bad indentation": ("objects:\n  - name: mug\n   mesh: a.obj\n", ":3: not valid YAML"),
    "two documents": ("objects: []\n---\nobjects: []\n", ":2: not valid YAML"),
    "code": ("objects: !!python/object/apply:os.system [touch /tmp/never]\n", ":1: not valid YAML"),
    "unknown alias": ("objects: *nothing\n", ":1: not valid YAML"),
    "date that is none": (entry("label: 2026-99-99"), "not valid YAML"),
    "made of itself": ("objects: &a [*a]\n", "entry 1 of objects needs"),
    "a billion laughs": (f"{LAUGHS}\nobjects: *a9\n", "unknown key"),
    "nested without end": ("[" * 5000, "nested too deeply"),
    "list as a key": ("? [a, b]\n: c\n", ":1: not valid YAML: a key must be a word"),
    "no text": (b"\xff\xfe\x00\x01objects", "is no text in UTF-8"),
    "control bytes": (b"objects: \x07\n", "not valid YAML"),
    "a mesh": (b"glTF\x02\x00\x00\x00\x10\x00\x00\x00", "YAML"),
}
SETTINGS: dict[str, tuple[str | bytes, str]] = {
    "a list": ("- detector\n", "must hold settings like"),
    "a word": ("detector", "must hold settings like"),
    "group is a number": ("detector: 5", "detector=5 must be a group of settings"),
    "group is a list": ("detector: [threshold, 0.5]", "detector=['threshold', 0.5] must be a group"),
    "unknown group": (
        "detektor: {threshold: 0.5}",
        "unknown setting 'detektor.threshold'; did you mean 'detector.threshold'?",
    ),
    "unknown setting": (
        "detector: {treshold: 0.5}",
        "unknown setting 'detector.treshold'; did you mean 'detector.threshold'?",
    ),
    "setting without its group": ("threshold: 0.5", "unknown setting 'threshold'; did you mean 'detector.threshold'?"),
    "too large": ("detector: {threshold: 50}", "detector.threshold=50.0 must be in [0.0, 1.0]"),
    "NaN": ("detector: {threshold: .nan}", "detector.threshold=nan must be in [0.0, 1.0]"),
    "infinite": ("input: {max_age: .inf}", "input.max_age=inf must be in"),
    "a text for a number": ("detector: {threshold: high}", "detector.threshold='high' must be a number"),
    "a number for a text": ("pose: {weights: 5}", "pose.weights=5 must be a text"),
    "a fraction for a whole number": (
        "pose: {track_iterations: 2.5}",
        "pose.track_iterations=2.5 must be a whole number",
    ),
    "true for a number": ("pose: {track_iterations: true}", "pose.track_iterations=True must be a whole number"),
    "null": ("pose: {track_iterations: }", "pose.track_iterations=None must be a whole number"),
    "a text for a switch": ("output: {tf: sometimes}", "output.tf='sometimes' must be true or false"),
    "one for a switch": ("output: {tf: 1}", "output.tf=1 must be true or false"),
    "no choice": ("pose: {renderer: opengl}", "pose.renderer='opengl' must be one of warp, nvdiffrast"),
    "unknown backend": ("pose: {backend: warp9}", "pose.backend='warp9' must be one of"),
    "schedule that grows": ("pose: {register_schedule: '8,16'}", "pose.register_schedule='8,16' must hold counts"),
    "schedule of words": ("pose: {register_schedule: fast}", "pose.register_schedule='fast' must be"),
    "limits that cross": (
        "pose: {min_depth: 3.0, max_depth: 2.0}",
        "pose.min_depth=3.0 must be below pose.max_depth=2.0",
    ),
    "deep": ("pose: {a: {b: {c: {d: {e: {f: {g: {h: {i: {j: 1}}}}}}}}}}", "is nested too deeply"),
    "made of itself": ("detector: &a {source: rf-detr, x: *a}", "nested too deeply"),
    "two nodes": ("a: {ros__parameters: {}}\nb: {ros__parameters: {}}\n", "the parameters of one node"),
    "parameters are a list": ("n: {ros__parameters: [1]}", "n: ros__parameters must hold settings, found [1]"),
    "unknown parameter": ("n: {ros__parameters: {pose: {wieghts: x}}}", "unknown setting 'pose.wieghts'; did you mean"),
    "key twice": ("pose: {}\npose: {}\n", ":2: not valid YAML: 'pose' is given twice"),
    "syntax": ("pose: {weights: default\n", "not valid YAML"),
    "no text": (b"\x80\x81", "is no text in UTF-8"),
}


def write(folder: Path, content: str | bytes) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The sentence that a command refuses with."""
    code, text = run_cli(capsys, *arguments)
    assert code == 2, text
    assert "Traceback" not in text
    assert len(text) < 1000
    return text


@pytest.mark.parametrize("case", OBJECTS)
def test_objects_files(case, tmp_path, capsys):
    content, words = OBJECTS[case]
    path = write(tmp_path, content)
    text = refusal(capsys, "generate", "recording", "--objects-file", str(path), "--out", str(tmp_path / "out"))
    assert words in text and str(tmp_path) in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_files(case, tmp_path, capsys):
    content, words = SETTINGS[case]
    path = write(tmp_path, content)
    text = refusal(capsys, "replay", str(tmp_path / "none"), "--config", str(path))
    assert words in text and str(path) in text


def test_files_that_cannot_be_read(tmp_path, capsys):
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(20_000_000)
    for path, words in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory"), (large, "has 20 MB")):
        assert words in refusal(capsys, "replay", str(tmp_path / "none"), "--config", str(path))
    for path, words in ((tmp_path / "none.yaml", "does not exist"), (tmp_path, "Is a directory"), (large, "has 20 MB")):
        assert words in refusal(capsys, "generate", "coco", "--objects-file", str(path), "--out", str(tmp_path / "out"))


def test_nothing_of_a_file_is_run(tmp_path):
    ran = tmp_path / "ran"
    path = write(tmp_path, f"objects: !!python/object/apply:os.system ['touch {ran}']\n")
    for load in (load_objects, load_yaml):
        with pytest.raises(ConfigError, match="mine.yaml:1"):
            load(path)
    assert not ran.exists()


def test_what_is_right_is_read(tmp_path):
    (tmp_path / "mesh.ply").touch()
    path = write(
        tmp_path,
        "objects:\n  - &base {name: cup, mesh: mesh.ply, scale: 1e-3, max_instances: 2}\n"
        "  - {<<: *base, name: can, label: tin can, color: [1, 2, 3], threshold: 1,\n"
        "     symmetries_continuous: [{axis: [0, 0, 2], point: [0, 0.5, 0]}]}\n",
    )
    cup, can = load_objects(path)
    assert (cup.name, cup.label, cup.scale, cup.max_instances) == ("cup", "cup", 0.001, 2)
    assert cup.mesh == (tmp_path / "mesh.ply").resolve()
    assert (can.name, can.label, can.color, can.threshold) == ("can", "tin can", (1, 2, 3), 1.0)
    assert can.continuous[0].axis == (0.0, 0.0, 1.0) and can.continuous[0].point == (0.0, 0.5, 0.0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", 0.5),
        ("detector:\n", 0.5),
        ("detector: {threshold: 3e-1}", 0.3),
        ("detector.threshold: 1", 1.0),
        ("/**: {ros__parameters: {detector: {threshold: 0.25}}}", 0.25),
        ("/**: {ros__parameters: {detector: {threshold: 0.2}}}\nn: {ros__parameters: {detector.threshold: 0.4}}", 0.4),
        ("n: {ros__parameters: }", 0.5),
    ],
)
def test_settings_files_of_every_form(tmp_path, content, expected):
    assert load_yaml(write(tmp_path, content)).detector.threshold == expected


@pytest.mark.parametrize("number", ["1e-3", "1E3", "-2.5e+4", ".5e2", "1.e2"])
def test_numbers_with_an_exponent_are_numbers(number):
    assert parse_yaml(f"x: {number}", "here") == {"x": float(number)}


def test_meshes_of_packages_as_robot_descriptions_name_them(tmp_path, monkeypatch):
    source = tmp_path / "src" / "a mug.glb"
    installed = tmp_path / "install" / "share" / "my_objects" / "meshes" / source.name
    installed.parent.mkdir(parents=True)
    source.parent.mkdir()
    source.write_bytes(b"")
    installed.symlink_to(source)  # as colcon build --symlink-install does
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'other'}:{tmp_path / 'install'}")
    (tmp_path / "objects.yaml").write_text(
        f"""objects:
  - {{name: a, mesh: "package://my_objects/meshes/a%20mug.glb"}}
  - {{name: b, mesh: "{source.as_uri()}"}}
  - {{name: c, mesh: "src/a mug.glb"}}
"""
    )
    assert [spec.mesh for spec in load_objects(tmp_path / "objects.yaml")] == [installed, source, source]


def test_what_entries_share_is_kept_under_a_key_of_its_own(tmp_path):
    (tmp_path / "objects.yaml").write_text(
        """x-common: &common {scale: 0.001, max_instances: 2}
objects:
  - {<<: *common, name: mug, mesh: a.glb}
  - {<<: *common, name: can, mesh: b.glb, scale: 1.0}
"""
    )
    found = load_objects(tmp_path / "objects.yaml")
    assert [(s.name, s.scale, s.max_instances) for s in found] == [("mug", 0.001, 2), ("can", 1.0, 2)]
