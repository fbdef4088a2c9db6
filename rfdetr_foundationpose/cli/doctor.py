"""``doctor``: what is installed, which weights are found, what is missing and how to get it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .console import sayer
from .findings import Finding, Verdict
from .options import ObjectsFile, Settings
from .outputs import AlsoJson, Overwrite, claim
from .settings import read_settings

if TYPE_CHECKING:
    from ..config import Config
    from ..objects import ObjectSpec


MARKS = {
    Verdict.OK: "[green]ok[/green]",
    Verdict.OPTIONAL: "[yellow]optional[/yellow]",
    Verdict.MISSING: "[red]missing[/red]",
}
EXTRAS = {
    "xatlas": ("scan", "no `object scan`: it textures the mesh"),
    "rerun": ("rerun", "no `--rerun` recordings"),
    "pxr": ("usd", "no USD meshes"),
    "OpenEXR": ("exr", "no depth images in EXR"),
}
"""Modules of this package's extras -> the extra, and what is missing without it."""
PIP_ROS = "source your ROS install, or pip install 'rfdetr_foundationpose[ros]'"
OFFICIAL_WEIGHTS = """\
Official FoundationPose weights (NVIDIA Source Code License, non-commercial; not shipped here) drop in:
  1. From the project page of NVlabs/FoundationPose ("Data prepare" in its README) download the two folders
     2023-10-28-18-33-37 (refiner) and 2024-01-11-20-02-45 (scorer); each holds model_best.pth and config.yml.
  2. Put both into one directory and set pose.weights to it.
RF-DETR: set detector.weights to your fine-tuned checkpoint, or to 'published' for the COCO weights (Apache-2.0,
downloaded by the rfdetr package at the first start)."""


def doctor(
    json_file: AlsoJson = None,
    objects_file: ObjectsFile = None,
    bag: Annotated[Path | None, typer.Option(help="A recording to check too.")] = None,
    pose_weights: Annotated[
        str | None, typer.Option(help="Value of pose.weights to check; default: the settings'.")
    ] = None,
    detector_weights: Annotated[
        str | None, typer.Option(help="Value of detector.weights to check; default: the settings'.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of settings, or a ROS parameter file.")] = None,
    setting: Settings = None,
    overwrite: Overwrite = False,
) -> None:
    """Load what the node would load; say what is installed, in use and missing. Exits 1 when the node cannot run."""
    from ..config import from_flat

    settings = read_settings(config, setting or [], objects_file)
    named = {"pose.weights": pose_weights, "detector.weights": detector_weights}
    settings = from_flat({name: value for name, value in named.items() if value is not None}, settings)
    outputs = claim("doctor", json_file=json_file, overwrite=overwrite)
    console = Console()
    with console.status("loading what the node would load"):
        found = findings(settings, bag)
    table = Table(
        title="rfdetr-foundationpose doctor", title_justify="left", box=None, pad_edge=False, show_header=False
    )
    for column in ("", "", ""):
        table.add_column(column, overflow="fold")
    for f in found:
        table.add_row(f.name, MARKS[f.verdict], escape(f.value))
        if f.fix:
            table.add_row("", "", f"[bold]→ {escape(f.fix)}[/bold]")
    say = sayer(console)
    console.print(table)
    say(OFFICIAL_WEIGHTS)
    can_run = not any(f.verdict is Verdict.MISSING for f in found)
    say("The node can run here." if can_run else "The node cannot run like this: see the lines marked missing.")
    if json_file is not None:
        outputs.write({"can_run": can_run, "findings": [asdict(f) for f in found]})
    raise typer.Exit(0 if can_run else 1)


def findings(config: Config, bag: Path | None = None) -> list[Finding]:
    """Every check, in reading order. A check that itself fails is reported, not raised."""
    from ..resources import default_objects_file
    from . import doctor_inputs as inputs

    specs: list[ObjectSpec] = []

    def objects() -> list[Finding]:
        lines, found = inputs.objects(Path(config.objects_file or default_objects_file()))
        specs.extend(found)
        return lines

    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", _python),
        ("torch", _torch),
        ("GPU driver", _driver),
        ("warp", _warp),
        ("rfdetr", _rfdetr),
        ("libraries", _libraries),
        ("extras", _extras),
        ("tensorrt", _tensorrt),
        ("onnxruntime", _onnxruntime),
        ("triton", _triton),
        ("ROS", _ros),
        ("shared memory", inputs.shared_memory),
        ("objects", objects),
        ("pose weights", lambda: inputs.pose_weights(config)),
        ("detector", lambda: inputs.detector_weights(config, specs)),
    ]
    if bag is not None:
        checks.append(("recording", lambda: inputs.recording(bag, config)))
    found: list[Finding] = []
    for name, check in checks:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other packages' deprecations are no findings
                found += check()
        except Exception as error:  # a broken install must not hide the rest of the table
            found.append(Finding(name, Verdict.MISSING, f"{type(error).__name__}: {error}"))
    return found


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _python() -> list[Finding]:
    verdict = Verdict.OK if sys.version_info >= (3, 10) else Verdict.MISSING
    where = "virtual environment" if sys.prefix != sys.base_prefix else "system"
    return [
        Finding(
            "python", verdict, f"{platform.python_version()} ({where}, {platform.machine()}, {os.cpu_count()} CPUs)"
        )
    ]


def _torch() -> list[Finding]:
    import torch

    lines = [
        Finding("torch", Verdict.OK, f"{torch.__version__}, built for CUDA {torch.version.cuda or '– (CPU only)'}")
    ]
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            lines.append(
                Finding(f"GPU {i}", Verdict.OK, f"{p.name}, {p.total_memory / 2**30:.0f} GiB, sm_{p.major}{p.minor}")
            )
    else:
        fix = "" if torch.version.cuda is None else "check the driver (nvidia-smi)"
        lines.append(
            Finding(
                "GPU", Verdict.OPTIONAL, "none usable: runs on the CPU, some ten frames a second of one object", fix
            )
        )
    importlib.import_module("torchvision")
    lines.append(Finding("torchvision", Verdict.OK, str(_installed("torchvision"))))
    return lines


def _driver() -> list[Finding]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return [Finding("GPU driver", Verdict.OPTIONAL, "nvidia-smi not found")]
    query = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    lines = answer.stdout.strip().splitlines()
    if answer.returncode != 0 or not lines:
        return [Finding("GPU driver", Verdict.OPTIONAL, (answer.stderr or answer.stdout).strip() or "no answer")]
    return [Finding("GPU driver", Verdict.OK, lines[0])]


def _warp() -> list[Finding]:
    from .. import warp_setup
    from ..warp_setup import wp

    warp_setup.start()
    devices = ", ".join(str(d) for d in wp.get_devices())
    return [Finding("warp", Verdict.OK, f"{wp.config.version} on {devices}")]


def _rfdetr() -> list[Finding]:
    found = _installed("rfdetr")
    if found is None:
        return [Finding("rfdetr", Verdict.MISSING, "not installed", "pip install 'rfdetr>=1.9'")]
    from rfdetr.detr import RFDETR

    names = [n for n in ("inference", "optimize_for_inference") if hasattr(RFDETR, n)]
    if not names:
        return [Finding("rfdetr", Verdict.OPTIONAL, f"{found}: neither inference() nor optimize_for_inference()")]
    return [Finding("rfdetr", Verdict.OK, f"{found}, optimized through {names[0]}()")]


def _libraries() -> list[Finding]:
    lines = []
    for package, module in (
        ("numpy", "numpy"),
        ("scipy", "scipy"),
        ("opencv", "cv2"),
        ("trimesh", "trimesh"),
        ("rosbags", "rosbags"),
        ("onnx", "onnx"),
    ):
        try:
            loaded: Any = importlib.import_module(module)
        except ImportError as error:
            needed = package != "onnx"
            fix = (
                "apt install libgl1 libglib2.0-0"
                if "lib" in str(error) and module == "cv2"
                else f"pip install {package}"
            )
            lines.append(Finding(package, Verdict.MISSING if needed else Verdict.OPTIONAL, str(error), fix))
            continue
        lines.append(
            Finding(package, Verdict.OK, getattr(loaded, "__version__", None) or _installed(package) or "found")
        )
    return lines


def _extras() -> list[Finding]:
    lines = []
    for module, (extra, without) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            fix = f"pip install 'rfdetr_foundationpose[{extra}]'"
            lines.append(Finding(module, Verdict.OPTIONAL, f"not installed: {without}", fix))
            continue
        loaded: Any = importlib.import_module(module)
        found = getattr(loaded, "__version__", None) or _installed(module) or "found"
        lines.append(Finding(module, Verdict.OK, f"{found}"))
    return lines


def _tensorrt() -> list[Finding]:
    """The two libraries behind the backend tensorrt: usable, a stub or missing, and whether this GPU is one of theirs."""
    import torch

    from ..accel.base import BackendUnavailable
    from ..backends import TENSORRT_LIBRARIES
    from ..engines.tensorrt_library import gpu_target, import_library

    lines = []
    for name in TENSORRT_LIBRARIES:
        try:
            library = import_library(name)
        except BackendUnavailable as error:
            lines.append(Finding(name, Verdict.OPTIONAL, str(error)))
            continue
        target = gpu_target(torch.device("cuda")) if torch.cuda.is_available() else None
        refusal = "" if target is None else library.refusal(target)
        known = f"{library.version}; builds for {', '.join(library.targets)}" if library.targets else library.version
        lines.append(Finding(name, Verdict.OPTIONAL if refusal else Verdict.OK, refusal or known))
    return lines


def _onnxruntime() -> list[Finding]:
    if importlib.util.find_spec("onnxruntime") is None:
        return [Finding("onnxruntime", Verdict.OPTIONAL, "not installed", "pip install onnxruntime or onnxruntime-gpu")]
    ort: Any = importlib.import_module("onnxruntime")
    providers = ", ".join(p.removesuffix("ExecutionProvider") for p in ort.get_available_providers())
    return [Finding("onnxruntime", Verdict.OK, f"{ort.__version__}: {providers}")]


def _triton() -> list[Finding]:
    """What pose.backend fp8 is written in."""
    if importlib.util.find_spec("triton") is None:
        fix = "comes with torch's builds for CUDA; else pip install 'rfdetr_foundationpose[fp8]'"
        return [Finding("triton", Verdict.OPTIONAL, "not installed", fix)]
    return [Finding("triton", Verdict.OK, str(importlib.import_module("triton").__version__))]


def _ros() -> list[Finding]:
    if importlib.util.find_spec("rclpy") is None:
        return [Finding("rclpy", Verdict.MISSING, "not installed", PIP_ROS)]
    rclpy: Any = importlib.import_module("rclpy")
    distro = os.environ.get("ROS_DISTRO") or ("PyPI wheels" if _installed("ros-rclpy") else "unknown distribution")
    rmw = (
        rclpy.get_rmw_implementation_identifier() if hasattr(rclpy, "get_rmw_implementation_identifier") else "default"
    )
    lines = [Finding("rclpy", Verdict.OK, f"{_installed('rclpy') or ''} ({distro}), {rmw}".strip())]
    needed = (
        "sensor_msgs",
        "geometry_msgs",
        "std_msgs",
        "std_srvs",
        "diagnostic_msgs",
        "visualization_msgs",
        "lifecycle_msgs",
    )
    absent = [n for n in needed if importlib.util.find_spec(n) is None]
    if absent:
        lines.append(Finding("ROS messages", Verdict.MISSING, f"without {', '.join(absent)}", PIP_ROS))
    else:
        lines.append(Finding("ROS messages", Verdict.OK, ", ".join(needed)))
    from ..ros import compat

    missing = {sentence.split(" ", 1)[0]: sentence for sentence in compat.missing()}
    for name in ("tf2_ros", "vision_msgs"):
        if name in missing:
            sentence, _, package = missing[name].rpartition(" (apt install ")
            lines.append(Finding(name, Verdict.OPTIONAL, sentence, f"apt install {package.rstrip(')')}"))
        else:
            lines.append(Finding(name, Verdict.OK, "found"))
    return lines
