"""Every command of ours that README and docs show is one that the command line knows, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from rfdetr_foundationpose.cli.main import DEFAULT_SUB_COMMAND, build_app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = "rfdetr-foundationpose"


def shown_commands() -> list[tuple[str, str]]:
    """(page, command) of every code block; continued lines are joined, comments left out."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```(?:bash|sh)?\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                command = line.split("#")[0].strip()
                command = command.removeprefix(".venv/bin/")
                if command.startswith(f"{PROGRAM} "):
                    found.append((page.name, re.split(r"\s(?:&&|\||>)\s", command)[0]))
    return found


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
    assert len(shown_commands()) > 25


@pytest.mark.parametrize(("page", "command"), dict.fromkeys(shown_commands()))
def test_a_command_that_docs_show_is_known(page: str, command: str):
    assert unknown(shlex.split(command)[1:]) == []


def test_what_is_not_known_is_found():
    assert unknown(["bench", "--rungs", "eager"]) == ["--rungs"]
    assert unknown(["evaluate", "everything"]) == ["everything"]
    assert unknown(["replay", "bag", "--nothing", "--ros"]) == ["--nothing"]
