"""The command line's tree: every sub-command loads and explains itself, and a broken one breaks alone."""

from __future__ import annotations

import inspect
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

import pytest
import typer

from rfdetr_foundationpose.cli import main as cli
from rfdetr_foundationpose.cli.console import open_console
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


def test_commands_show_what_the_package_logs_once(capsys):
    logger = logging.getLogger("rfdetr_foundationpose.anywhere")
    before = list(logging.getLogger("rfdetr_foundationpose").handlers)
    try:
        open_console()
        open_console()  # a second command in one process, as here
        logger.info("size [m/s] %d", 3)
        logger.warning("tensorrt failed")
        logger.debug("not for users")
    finally:
        logging.getLogger("rfdetr_foundationpose").handlers[:] = before
    assert capsys.readouterr().out.splitlines() == ["size [m/s] 3", "tensorrt failed"]


def load_without(package: str) -> Callable[[Command], None]:
    def load(self: Command) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    return load


def test_a_missing_package_breaks_only_its_own_command(monkeypatch, capsys):
    monkeypatch.setattr(Command, "load", load_without("rosbags"))
    code, text = run(capsys, "replay")
    assert code == 2
    assert "rfdetr-foundationpose replay: No module named 'rosbags'; 'rfdetr-foundationpose doctor'" in text
    code, text = run(capsys, "--help")
    assert code == 0
    assert COMMANDS["replay"].help in " ".join(text.split())


def test_without_ros_the_remedy_is_said(monkeypatch, capsys):
    monkeypatch.setattr(Command, "load", load_without("rclpy"))
    code, text = run(capsys, "demo")
    assert code == 2
    assert "'rclpy'" in text
    assert "rfdetr_foundationpose[ros]" in text


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch):
    for module in ("cli.no_such_module:nothing", "cli.main:nothing"):
        monkeypatch.setattr(cli, "COMMANDS", {"x": Command(module, "Broken.")})
        with pytest.raises(ImportError, match="nothing|no_such_module"):
            main(["x"])


@pytest.mark.parametrize(
    ("words", "function"),
    [(["bench"], "stages"), (["bench", "--device", "cpu"], "stages"), (["bench", "networks"], "networks")],
)
def test_bench_alone_measures_the_stages(monkeypatch, words, function):
    seen = []
    monkeypatch.setattr(Command, "load", lambda self: lambda device="auto": seen.append((self.target, device)))
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert [target.rpartition(":")[2] for target, _ in seen] == [function]


def test_options_of_bench_alone_do_not_reach_a_sub_command(capsys):
    code, text = run(capsys, "bench", "--device", "cpu", "networks")
    assert code == 2
    assert "networks" in text


def test_short_help(capsys):
    for words in (["-h"], ["bench", "-h"], ["bench", "networks", "-h"], ["replay", "-h"]):
        code, text = run(capsys, *words)
        assert code == 0
        assert "Usage" in text


def every_help(capsys) -> Iterator[tuple[Command, str]]:
    for words in paths():
        entry = COMMANDS[words[0]]
        yield (entry if isinstance(entry, Command) else entry[words[1]]), run(capsys, *words, "--help")[1]


def test_help_keeps_every_word_of_the_options(capsys):
    """Units stand in brackets, which a terminal's markup would swallow."""
    for command, text in every_help(capsys):
        shown = re.sub(r"[\s-]+", "", text)  # lines are broken at spaces and hyphens
        for parameter in inspect.signature(command.load(), eval_str=True).parameters.values():
            option = parameter.annotation.__metadata__[0]
            assert option.help, f"{command.target}: {parameter.name} has no help"
            assert re.sub(r"[\s-]+", "", option.help) in shown, f"{command.target}: {parameter.name}"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_can_complete(monkeypatch, capsys, shell):
    def completed(line: str) -> str:
        monkeypatch.setenv(cli.COMPLETION, f"complete_{shell}")
        monkeypatch.setenv("COMP_WORDS", line if shell == "bash" else "")
        monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - (not line.endswith(" "))))
        monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
        return run(capsys)[1]

    assert "replay" in completed("rfdetr-foundationpose rep")
    assert "networks" in completed("rfdetr-foundationpose bench ")
    assert "--baseline" in completed("rfdetr-foundationpose replay --ba")
    assert "--batches" in completed("rfdetr-foundationpose bench networks --ba")


def test_groups_mount_typer_apps_and_functions():
    app = build_app(["train", "refiner"])
    assert isinstance(app, typer.Typer)
    names = {c.name for c in app.registered_commands} | {g.name for g in app.registered_groups}
    assert names == set(COMMANDS)


def options() -> dict[str, dict[str, Any]]:
    """Option -> command -> what it takes: annotation without default."""
    found: dict[str, dict[str, Any]] = {}
    for words in paths():
        entry = COMMANDS[words[0]]
        command = entry if isinstance(entry, Command) else entry[words[1]]
        for name, parameter in inspect.signature(command.load(), eval_str=True).parameters.items():
            declared = parameter.annotation.__metadata__[0]
            if isinstance(declared, typer.models.OptionInfo):
                # Inside of Annotated, typer's first name stands where its default would.
                named = [str(d) for d in (declared.default, *(declared.param_decls or ()))]
                names = [d for d in named if d.startswith("--")] or [f"--{name.replace('_', '-')}"]
                for one in names:
                    found.setdefault(one, {})[" ".join(words)] = parameter.annotation.__origin__
    return found


def taken(kind: Any) -> Any:
    """The type of a value that is given: that of "int | None" is int."""
    parts = [t for t in get_args(kind) if t is not NoneType]
    return parts[0] if get_origin(kind) is UnionType and len(parts) == 1 else kind


def test_an_option_takes_the_same_in_every_command():
    several = {}
    for option, by_command in options().items():
        kinds = {taken(kind) for kind in by_command.values()}
        if len(kinds) > 1:
            several[option] = by_command
    assert several == {}


def test_every_command_that_uses_objects_takes_an_objects_file():
    without = {"evaluate bop", "evaluate ycbv"}  # whose data sets bring their objects
    without |= {
        "export",
        "build-engines",
        "bench networks",
        "train refiner",
        "train first-pass",
        "train scorer",
    }  # which need none
    without |= {"generate objects", "object board"}  # which make them
    have = set(options()["--objects-file"])
    assert {" ".join(words) for words in paths()} - have == without


def test_objects_are_names_everywhere():
    for command, kind in options()["--objects"].items():
        assert kind is str, command
