"""Every command of ours that README and docs show is one that the command line knows, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rfdetr_foundationpose.cli.main import DEFAULT_SUB_COMMAND, build_app
from support.cli_runs import run_cli

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = "rfdetr-foundationpose"


# What makes a shown command small enough for a test: its first words -> more options. Nothing else of it is changed, but
# for DIR, which stands for tiny weights.
SMALLER = {
    "generate recording": "--frames 2 --size 160x120 --device cpu",
    "generate bop": "--scenes 1 --frames 1 --size 160x120 --device cpu",
    "generate coco": "--train 1 --valid 1 --size 160x120 --device cpu",
    "train refiner": "--minutes 0.001 --batch 2 --random-objects 8 --workers 0 --device cpu",
    "train first-pass": "--minutes 0.001 --batch 2 --random-objects 8 --workers 0 --device cpu",
    "train scorer": "--minutes 0.001 --batch 4 --hypotheses 2 --random-objects 8 --workers 0 --device cpu",
    "calibrate": "--scenes 10 --device cpu",
    "evaluate schedules": "--scenes 1 --size 160x120 --schedules 12 --random-objects 1 --device cpu",
    "evaluate pipeline": "--seeds 7 --frames 1 --targets mug --device cpu --set pose.register_schedule=12",
    "bench": (
        "--device cpu --size 160x120 --backends eager --schedule 12 --no-detector --weights DIR --repeat-register 1 "
        "--repeat-track 1"
    ),
    "bench networks": "--device cpu --backends eager --batches 1 --repeat 1",
    "bench scaling": "--device cpu --backends eager --parts objects --counts 1 --samples 1 --size 160x120 --schedule 12",
    "export": "--weights DIR --no-detector --scenes 0",  # checked on no scene: random weights would be refused, rightly
}
# What keeps a shown command from running here: its first words -> why. What it says is still read.
NEEDS = {
    "bench --official-size": "networks of the official size register for minutes on a CPU",
    "bench overlap": "a GPU",
    "bench node": "ROS and minutes; test_node_bench.py runs its parts",
    "build-engines": "TensorRT; test_engines_cli.py and test_engines_rtx.py run it",
    "evaluate ycbv": "frames that are not shipped",
    "object scan BAG": "the recording of a camera",
    "validate pose": "a GPU for cuda_graph",
}
MAY_FAIL = ("evaluate pipeline", "calibrate", "evaluate schedules")
"""With weights of no worth they find nothing, and say so with exit code 1."""


def shown_commands(inline: bool = False) -> list[tuple[str, str]]:
    """(page, command) of every code block; continued lines are joined, comments left out. inline: also those in sentences."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        lines = [
            line
            for language, block in blocks
            if language in ("", "bash", "sh")
            for line in block.replace("\\\n", " ").splitlines()
        ]
        if inline:
            lines += re.findall(rf"`({PROGRAM} [a-z][^`]*)`", text)
        for line in lines:
            command = line.split("#")[0].strip()
            command = command.removeprefix(".venv/bin/")
            if command.startswith(f"{PROGRAM} "):
                found.append((page.name, re.split(r"\s(?:&&|\||>)\s", command)[0]))
    return found


def first_words(command: str, table: dict[str, str]) -> str | None:
    """The longest key of ``table`` that the command begins with."""
    words = command.removeprefix(f"{PROGRAM} ")
    return max((k for k in table if f"{words} ".startswith(f"{k} ")), key=len, default=None)


def commands_to_run() -> list[str]:
    """Each shown command once, in the pages' order, but for what NEEDS something and what your-object.md's test runs."""
    shown = [c for page, c in shown_commands() if page != "your-object.md" and first_words(c, NEEDS) is None]
    return [c for c in dict.fromkeys(shown) if ("your-object.md", c) not in shown_commands()]


def unknown(arguments: list[str]) -> list[str]:
    """Words of a call that the command line does not know: a sub-command, or options. Nothing runs."""
    words = list(arguments)
    default = DEFAULT_SUB_COMMAND.get(words[0])
    if default is not None and (len(words) == 1 or words[1].startswith("-")):
        words.insert(1, default)
    command: Any = get_command(build_app(words))
    # Typer has a click of its own, so that click.Group is another class.
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        following = command.commands.get(words[0])
        if following is None:
            return [words[0]]
        command, words = following, words[1:]
    options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)} | {"--help", "-h", "--version"}
    return [w for w in words if w.startswith("--") and w.split("=")[0] not in options]


def test_pages_show_commands():
    assert {page for page, _ in shown_commands()} >= {"README.md", "CONTRIBUTING.md", "your-object.md", "training.md"}
    assert all(first_words(command, SMALLER) for command in commands_to_run()), "say how, in SMALLER or NEEDS"


@pytest.mark.parametrize(("page", "command"), dict.fromkeys(shown_commands(inline=True)))
def test_a_command_that_docs_show_is_known(page: str, command: str):
    assert unknown(shlex.split(command)[1:]) == []


def test_what_is_not_known_is_found():
    assert unknown(["bench", "--no-such-option", "eager"]) == ["--no-such-option"]
    assert unknown(["evaluate", "everything"]) == ["everything"]
    assert unknown(["replay", "bag", "--nothing", "--ros"]) == ["--nothing"]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a minute and a half of CPU time; a loaded machine may take many times as long
def test_shown_commands_run(tmp_path, monkeypatch, capsys, weights):
    """One after the other in one folder, as one reads them: a later one may need what an earlier one wrote."""
    monkeypatch.chdir(tmp_path)
    for command in commands_to_run():
        key = first_words(command, SMALLER)
        assert key is not None
        words = shlex.split(f"{command.removeprefix(PROGRAM)} {SMALLER[key]}".replace("DIR", str(weights)))
        code, text = run_cli(capsys, *words)
        assert code in ((0, 1) if key in MAY_FAIL else (0,)), f"{command}: {text[-2000:]}"
        assert "Traceback" not in text
