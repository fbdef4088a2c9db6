"""The command line in this process."""

from __future__ import annotations

import pytest

from rfdetr_foundationpose.cli.main import main


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed on both streams with white space folded."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out = capsys.readouterr()
    return int(ended.value.code or 0), " ".join((out.out + out.err).split())
