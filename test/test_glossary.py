"""The glossary points at files that are there, in the order of the alphabet."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_term_lives_where_it_is_said_to():
    text = (ROOT / "docs" / "glossary.md").read_text()
    rows = re.findall(r"^\| (.+?) \| .+? \| `([\w/]+\.py)` \|$", text, re.MULTILINE)
    assert len(rows) >= 30
    assert [path for _, path in rows if not (ROOT / "rfdetr_foundationpose" / path).is_file()] == []
    terms = [term.lower() for term, _ in rows]
    assert terms == sorted(terms)
