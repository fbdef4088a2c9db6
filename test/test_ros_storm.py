"""The short form of ``make storm``."""

from __future__ import annotations

import pytest

from support.storm import DOUBLE, storm

pytestmark = pytest.mark.timeout(240)


def test_signals_at_random_times_end_the_node_in_order(tmp_path):
    ended = storm(tmp_path, 4, seed=3, command=DOUBLE)
    assert [f"{run.fault}\n{run.log}" for run in ended if run.fault] == []
