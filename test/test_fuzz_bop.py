"""Damaged BOP data sets and baselines end in what can be used or in one sentence; ``make fuzz`` tries many of them."""

from __future__ import annotations

import json
from collections import Counter

from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.result import read_baseline
from support.bop_folder import EGGBOX, make_bop
from support.figures import FIGURES
from support.fuzz import cases, damaged, mistyped, outcome, table


def test_damaged_data_sets_end_in_images_or_one_sentence(tmp_path):
    folder = make_bop(tmp_path / "a", info={"symmetries_discrete": [EGGBOX]})
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".png"))
    seen: Counter[str] = Counter()

    def read() -> str:
        dataset = BopDataset(folder)
        count = sum(1 for _ in dataset)
        assert count == 3 or dataset.left_out.counts or dataset.notes
        assert all("\n" not in s for s in (*dataset.notes, *dataset.left_out.sentences()))
        return f"{count} images"

    for seed in range(cases(40)):
        file = files[seed % len(files)]
        whole = file.read_bytes()
        if file.suffix == ".json" and seed % 2:
            text, what = mistyped(json.dumps(json.loads(whole), indent=1), seed)
            file.write_text(text)
        else:
            broken, what = damaged(whole, seed)
            file.write_bytes(broken)
        try:
            seen[outcome(read)] += 1
        except Exception as error:
            raise AssertionError(f"{file.name}, seed {seed} ({what}): {type(error).__name__}: {error}") from error
        finally:
            file.write_bytes(whole)
    print(f"BOP: {table(seen)}")


def test_a_mistyped_baseline_is_a_result_or_one_sentence(tmp_path):
    file = tmp_path / "b.json"
    text = json.dumps(FIGURES, indent=1)
    seen: Counter[str] = Counter()
    for seed in range(cases(100)):
        changed, what = mistyped(text, seed)
        file.write_text(changed)
        try:
            seen[outcome(lambda: "a result" if read_baseline(file, FIGURES["recording_id"]) else "nothing")] += 1
        except Exception as error:
            raise AssertionError(f"seed {seed} ({what}): {type(error).__name__}: {error}") from error
    print(f"baseline: {table(seen)}")
