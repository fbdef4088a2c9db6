"""Shipped files are found from a checkout, from a wheel's share folder and from an ament prefix."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rfdetr_foundationpose import resources


def fake_install(site: Path, share: Path) -> None:
    """The package's resources module in ``site``, its data files in ``share``."""
    package = site / "rfdetr_foundationpose"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    shutil.copy(resources.__file__, package / "resources.py")
    (share / "config").mkdir(parents=True)
    (share / "models").mkdir()
    (share / "config" / "objects.yaml").write_text("objects: []\n")


def found(site: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "from rfdetr_foundationpose.resources import share_dir; print(share_dir())"
    env = {k: v for k, v in os.environ.items() if k != "AMENT_PREFIX_PATH"}
    env.update(environment, PYTHONPATH=str(site))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=site, check=False)


def test_checkout() -> None:
    assert resources.default_objects_file().is_file()
    assert (resources.models_dir() / "demo" / "mug.glb").is_file()


def test_wheel(tmp_path: Path) -> None:
    site, share = tmp_path / "lib" / "python3" / "site-packages", tmp_path / "share" / "rfdetr_foundationpose"
    fake_install(site, share)
    (site / "config").mkdir()  # another package's folders must not be taken for ours
    (site / "models").mkdir()
    assert found(site).stdout.strip() == str(share)


def test_ament_prefix(tmp_path: Path) -> None:
    site, prefix = tmp_path / "elsewhere", tmp_path / "install" / "rfdetr_foundationpose"
    fake_install(site, prefix / "share" / "rfdetr_foundationpose")
    run = found(site, AMENT_PREFIX_PATH=f"/nowhere{os.pathsep}{prefix}")
    assert run.stdout.strip() == str(prefix / "share" / "rfdetr_foundationpose")


def test_missing_files_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_roots", lambda: iter([tmp_path]))
    with pytest.raises(FileNotFoundError, match=f"none of: {tmp_path}; install the package"):
        resources.share_dir()
