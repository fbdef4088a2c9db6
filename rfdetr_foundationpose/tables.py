"""Tables for a terminal of 80 columns."""

from __future__ import annotations

from rich import box
from rich.table import Table


def plain_table(title: str, *columns: str, left: int = 1) -> Table:
    """A table without frames. The first ``left`` columns hold words, the others figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False, collapse_padding=True)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < left else "right")
    return table


def number(value: float | None, digits: int = 3) -> str:
    """A figure; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"
