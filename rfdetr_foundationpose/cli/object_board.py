"""``object board``: the sheet to print, on which an object is scanned."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Sheet(str, Enum):
    A4 = "a4"
    LETTER = "letter"
    A3 = "a3"


def board(
    out: Annotated[Path, typer.Option(help="PDF to write.")] = Path("board.pdf"),
    sheet: Annotated[
        Sheet, typer.Option("--board", help="Sheet of paper; the object should fill half of it.")
    ] = Sheet.A4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write over a file that is there.")] = False,
) -> None:
    """Write the ChArUco board for 'object scan' as a PDF in true size."""
    from ..object_tools.board import BOARDS, BoardError, write_pdf

    if out.exists() and not overwrite:
        raise BoardError(f"{out} exists; give another --out, or --overwrite")
    found = BOARDS[sheet.value]
    write_pdf(found, out)
    typer.echo(
        f"{out}: {found.columns} x {found.rows} squares of {1e3 * found.square:g} mm. Print it at 100 % (actual size), "
        "check the line of 100 mm, and lay it flat: glued to cardboard it stays so"
    )
