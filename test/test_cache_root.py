"""Where caches go when the user has no home to write to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rfdetr_foundationpose import resources
from rfdetr_foundationpose.resources import cache_directory


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """No home, and a temporary directory of the test alone."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file / "cache"))  # below a file nobody can write, root neither
    monkeypatch.setattr(resources.tempfile, "tempdir", str(tmp_path))
    resources._own_folder.cache_clear()
    yield tmp_path
    resources._own_folder.cache_clear()


def test_the_user_s_cache_is_used_where_it_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "made"))
    assert resources.cache_root() == tmp_path / "made"
    assert cache_directory().parent == tmp_path / "made"


def test_without_a_home_it_is_a_folder_of_this_user_alone(homeless):
    path = resources.cache_root()
    assert path == homeless / f"rfdetr_foundationpose-{os.getuid()}"
    assert path.stat().st_mode & 0o777 == 0o700
    resources._own_folder.cache_clear()
    assert resources.cache_root() == path, "the next process finds it again"


@pytest.mark.parametrize("taken", ["writable by all", "a link", "a file", "another user's"])
def test_what_others_may_have_written_is_not_used(homeless, taken, monkeypatch):
    """Kernels and engines in there are run."""
    name = homeless / f"rfdetr_foundationpose-{os.getuid()}"
    if taken == "a file":
        name.touch()
    elif taken == "a link":
        (homeless / "elsewhere").mkdir()
        name.symlink_to(homeless / "elsewhere")
    else:
        name.mkdir()
        if taken == "writable by all":
            name.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(name, 65534, 65534)
        else:
            pytest.skip("needs root")
    path = resources.cache_root()
    assert path != name and path.parent == homeless and path.stat().st_mode & 0o777 == 0o700
    assert resources.cache_root() == path, "one folder a process"


def test_warp_starts_without_a_home(tmp_path):
    """As a container's user does whose number has no home."""
    file = tmp_path / "file"
    file.touch()
    done = subprocess.run(
        [sys.executable, "-c", "from rfdetr_foundationpose import warp_setup as w; w.start(); print(w.wp.config.kernel_cache_dir)"],
        env={**os.environ, "HOME": str(file / "home"), "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(str(tmp_path / "rfdetr_foundationpose-"))
