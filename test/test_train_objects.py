"""Objects made by workers while something else runs are those that are made at once."""

from __future__ import annotations

import numpy as np

from rfdetr_foundationpose.train.object_stream import ObjectStream


def test_workers_make_what_is_made_at_once():
    aside, here = ObjectStream(7_000_000, 3, 2), ObjectStream(7_000_000, 3, 0)
    try:
        for _ in range(2):
            for a, b in zip(aside.take(), here.take(), strict=True):
                assert a.name == b.name
                np.testing.assert_array_equal(a.arrays.vertices, b.arrays.vertices)
    finally:
        aside.close()
    assert here.take()[0].name == "object_7000006"
