"""The command line's tree: every sub-command loads and explains itself, and a broken one breaks alone."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from rfdetr_foundationpose.cli import main as cli
from rfdetr_foundationpose.cli.main import COMMANDS, Command, build_app, main


def paths() -> list[tuple[str, ...]]:
    """Every sub-command as the words that name it."""
    found: list[tuple[str, ...]] = []
    for name, entry in COMMANDS.items():
        found += [(name,)] if isinstance(entry, Command) else [(name, sub) for sub in entry]
    return found


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main(words)
    captured = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), captured.out + captured.err


@pytest.mark.parametrize("words", paths(), ids=" ".join)
def test_every_subcommand_has_help(words, capsys):
    code, text = run(capsys, *words, "--help")
    assert code == 0, text
    assert "Usage" in text
    assert words[0] in text
    assert "only the named sub-command" not in text


def test_top_level_help_lists_all_and_imports_none():
    script = (
        "import sys\nfrom rfdetr_foundationpose.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = [m for m in ('torch', 'warp', 'rfdetr', 'rclpy', 'cv2', 'numpy') if m in sys.modules]\n"
        "print('HEAVY', heavy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "HEAVY []" in done.stdout
    for name in COMMANDS:
        assert name in done.stdout


def test_version(capsys):
    code, text = run(capsys, "--version")
    assert code == 0
    assert text.startswith("rfdetr-foundationpose ")
    assert text.split()[1][0].isdigit()


def test_unknown_command_is_refused(capsys):
    code, text = run(capsys, "no-such-command")
    assert code == 2
    assert "no-such-command" in text


def test_a_missing_package_breaks_only_its_own_command(monkeypatch, capsys):
    broken = {**COMMANDS, "bench": Command("cli.no_such_module:app", "Broken.")}
    monkeypatch.setattr(cli, "COMMANDS", broken)
    code, text = run(capsys, "bench")
    assert code == 1
    assert "no_such_module" in text
    code, text = run(capsys, "--help")
    assert code == 0
    assert "Broken." in text
    monkeypatch.setitem(sys.modules, "rosbags", None)
    monkeypatch.setattr(cli, "COMMANDS", {"x": Command("cli.main:nothing", "No such attribute.")})
    code, text = run(capsys, "x")
    assert code == 1
    assert "has no 'nothing'" in text


def test_a_third_party_package_is_named_with_the_remedy(monkeypatch, capsys):
    def load(self: Command) -> None:
        raise ModuleNotFoundError("No module named 'rclpy'", name="rclpy")

    monkeypatch.setattr(Command, "load", load)
    code, text = run(capsys, "demo")
    assert code == 1
    assert "'rclpy' is missing" in text
    assert "rfdetr_foundationpose[ros]" in text


def test_groups_mount_typer_apps_and_functions():
    app = build_app(["train", "refiner"])
    assert isinstance(app, typer.Typer)
    names = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    assert names == set(COMMANDS)
