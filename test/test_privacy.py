"""Nothing that is used phones home: no name is looked up, and no file of a telemetry appears.

``make privacy`` also watches a whole demo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import no_network

pytestmark = pytest.mark.skipif(not no_network.available(), reason="needs unshare, and the right to use it")

# onnxruntime looks its collector up nine seconds after it was imported (1.32, measured).
USE_EVERYTHING = """
import time
import rfdetr_foundationpose
import onnxruntime, rfdetr, supervision, transformers, huggingface_hub, matplotlib, trimesh, rosbags, warp
from rfdetr_foundationpose.detect import rfdetr_library
rfdetr_library.construct("nano", "cpu", num_classes=2)
import rfdetr_foundationpose.pipeline, rfdetr_foundationpose.evaluate.bench_report, rfdetr_foundationpose.ros.signals
time.sleep(13)
"""


def watch(folder: Path, command: list[str], timeout: float = 200, **environment: str) -> tuple[list[str], list[str]]:
    """Names that a command looks up, and files that it makes in the user's cache folder, but for Warp's and torch's."""
    (folder / "home").mkdir(parents=True)
    cache = folder / "cache"
    cache.mkdir()
    own = {"HOME": str(folder / "home"), "XDG_CACHE_HOME": str(cache), "OMP_NUM_THREADS": "1"}
    # onnxruntime sends nothing where CI is set, which would hide what it sends to users.
    inherited = {k: v for k, v in os.environ.items() if k != "CI"}
    done = no_network.run(folder / "names", command, {**inherited, **own, **environment}, timeout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    made = sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file())
    names = (folder / "names").read_text().split()
    return names, [f for f in made if f.split("/")[0] not in ("warp", "torch", "matplotlib", "fontconfig")]


@pytest.mark.slow
def test_nothing_phones_home(tmp_path):
    python = [sys.executable, "-c"]
    bare = "import time, onnxruntime; time.sleep(13)"
    with ThreadPoolExecutor() as pool:
        ours = pool.submit(watch, tmp_path / "ours", [*python, USE_EVERYTHING])
        chosen = pool.submit(watch, tmp_path / "chosen", [*python, bare], ORT_DISABLE_TELEMETRY="0")
    assert ours.result() == ([], [])
    # That the watch sees what there is to see.
    import onnxruntime

    if tuple(int(v) for v in onnxruntime.__version__.split(".")[:2]) >= (1, 29):
        names, files = chosen.result()
        assert any("microsoft" in name for name in names)
        assert any("deviceid" in name for name in files)


def test_what_the_user_has_set_stays(tmp_path):
    script = "import os, rfdetr_foundationpose; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for value, expected in ((None, "1"), ("0", "0")):
        environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
        environment |= {} if value is None else {"ORT_DISABLE_TELEMETRY": value}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240, check=True
        )
        assert done.stdout.split() == [expected]


@pytest.mark.skipif(not os.environ.get("PRIVACY_DEMO"), reason="minutes; make privacy sets PRIVACY_DEMO")
@pytest.mark.timeout(1800)
def test_a_whole_demo_phones_nobody(tmp_path):
    pytest.importorskip("rclpy")
    demo = [sys.executable, "-m", "rfdetr_foundationpose.cli.main", "demo", "--frames", "10", "--device", "cpu"]
    names, files = watch(tmp_path / "run", [*demo, "--out", str(tmp_path / "out")], timeout=1700)
    ours = {name for name in files if name.startswith("rfdetr_foundationpose/onnx/")}  # exported networks
    assert names == [] and set(files) == ours
