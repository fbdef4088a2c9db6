"""The package is what it says: entry points resolve, dependencies are declared, the wheel carries its data."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rfdetr_foundationpose"
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="needs the source checkout")

# Import name -> what declares it in setup.py, where the two differ.
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "warp": "warp-lang",
    "collada": "pycollada",
    "fast_simplification": "fast-simplification",
    "mapbox_earcut": "mapbox-earcut",
    "pxr": "usd-core",
    "OpenEXR": "OpenEXR",
    "rerun": "rerun-sdk",
    "rosbags": "rosbags",
}
ROS_FROM_PYPI = {"rclpy": "ros-kilted-rclpy", "sensor_msgs": "ros-kilted-sensor-msgs"}
# Packages that exist on ROS installs only; each is an optional import (ros/compat.py) or a launch file's.
ROS_ONLY = {"tf2_ros", "vision_msgs", "message_filters", "cv_bridge", "launch", "launch_ros", "ament_index_python"}


def imported() -> set[str]:
    """Top-level modules that the package imports, other than its own and the standard library's."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {PACKAGE.name}


def declared() -> set[str]:
    """Names of all requirements in setup.py, extras included, in lower case; what is installed may be of an older one."""
    (call,) = (
        n
        for n in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if getattr(getattr(n, "func", None), "id", "") == "setup"
    )
    given = {k.arg: k.value for k in call.keywords}
    lists = [ast.literal_eval(given["install_requires"]), *ast.literal_eval(given["extras_require"]).values()]
    return {re.split(r"[ ;<>=!~\[]", r, maxsplit=1)[0].lower() for names in lists for r in names}


def manifest() -> ElementTree.Element:
    return ElementTree.parse(ROOT / "package.xml").getroot()


def test_versions_agree():
    import rfdetr_foundationpose

    assert version("rfdetr_foundationpose") == rfdetr_foundationpose.__version__ == manifest().findtext("version")


def test_entry_points_resolve():
    points = {p.name: p for p in entry_points(group="console_scripts") if p.value.startswith("rfdetr_foundationpose.")}
    assert set(points) == {"rfdetr-foundationpose", "pose_node"}
    assert callable(points["rfdetr-foundationpose"].load())
    if importlib.util.find_spec("rclpy") is not None:
        assert callable(points["pose_node"].load())


def test_every_import_is_declared_for_pip():
    optional = {"tensorrt", "nvdiffrast", "transformers", "supervision"}  # extras, or brought by rfdetr
    known = declared()
    for name in sorted(imported() - ROS_ONLY - optional):
        candidates = {name, DISTRIBUTIONS.get(name, name), ROS_FROM_PYPI.get(name, f"ros-{name.replace('_', '-')}")}
        assert {c.lower() for c in candidates} & known, f"{name} is imported but not in setup.py"


def test_every_ros_import_is_declared_for_rosdep():
    depends = {e.text for e in manifest().iter("exec_depend")}
    for name in imported():
        if name in ROS_ONLY or name == "rclpy" or name.endswith(("_msgs", "_srvs")) or name == "builtin_interfaces":
            assert name in depends, f"{name} is imported but not in package.xml"
    assert manifest().find("export/build_type").text == "ament_python"


def test_ament_layout():
    assert (ROOT / "resource" / "rfdetr_foundationpose").is_file()
    setup_cfg = (ROOT / "setup.cfg").read_text()
    assert "install_scripts=$base/lib/rfdetr_foundationpose" in setup_cfg.replace(" ", "")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the sources to build in."""
    source = tmp_path_factory.mktemp("source")
    for name in ("rfdetr_foundationpose", "config", "models", "launch", "resource"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    return source


def test_colcon_installs_it_as_an_ament_package(source, tmp_path):
    """The command that colcon runs for build type ament_python."""
    pytest.importorskip("setuptools")
    prefix = tmp_path / "install"
    command = [sys.executable, "-W", "ignore", "setup.py", "-q", "egg_info", "--egg-base", str(tmp_path)]
    command += ["build", "--build-base", str(tmp_path / "build"), "install", "--prefix", str(prefix)]
    command += ["--record", str(tmp_path / "record"), "--single-version-externally-managed"]
    subprocess.run(command, check=True, timeout=300, capture_output=True, cwd=source)
    assert (prefix / "share/ament_index/resource_index/packages/rfdetr_foundationpose").is_file()
    for program in ("pose_node", "rfdetr-foundationpose"):
        assert (prefix / "lib/rfdetr_foundationpose" / program).stat().st_mode & 0o111  # where ros2 run looks
    share = prefix / "share/rfdetr_foundationpose"
    assert (share / "package.xml").is_file()
    assert sorted(p.name for p in (share / "launch").iterdir()) == sorted(
        p.name for p in (ROOT / "launch").glob("*.py")
    )
    assert (share / "config/objects.yaml").is_file()


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> zipfile.ZipFile:
    """A wheel, without network: the build backend comes from this environment."""
    pytest.importorskip("setuptools")
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(out),
        str(source),
    ]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_code_data_and_marker(wheel):
    names = wheel.namelist()
    data = "rfdetr_foundationpose-{}.data/data/share".format(version("rfdetr_foundationpose"))
    assert f"{data}/ament_index/resource_index/packages/rfdetr_foundationpose" in names
    assert f"{data}/rfdetr_foundationpose/package.xml" in names
    assert "rfdetr_foundationpose/py.typed" in names
    for folder in ("config", "models", "launch"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{data}/rfdetr_foundationpose/{path.relative_to(ROOT).as_posix()}" in names
    for path in PACKAGE.rglob("*.py"):
        assert path.relative_to(ROOT).as_posix() in names
    assert not [n for n in names if n.startswith("test/") or "__pycache__" in n]


def test_an_installed_wheel_finds_its_data_without_the_checkout(wheel, tmp_path):
    """As pip lays it out: code in lib/pythonX.Y/site-packages, data in share."""
    site = tmp_path / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in wheel.namelist():
        _, marker, tail = name.partition(".data/data/")
        target = tmp_path / tail if marker else site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(wheel.read(name))
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "import rfdetr_foundationpose\nfrom rfdetr_foundationpose.resources import default_objects_file, models_dir\n"
        "print(rfdetr_foundationpose.__file__); print(default_objects_file()); print(models_dir())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=240, check=True, cwd=tmp_path
    )
    assert all(line.startswith(str(tmp_path)) for line in done.stdout.splitlines()), done.stdout


def test_makefile_and_ci_are_runnable():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    listed = subprocess.run(["make", "-n", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert listed.index("ruff check") < listed.index("mypy") < listed.index("pytest")
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make demo") < readme.index("make test") < 500
