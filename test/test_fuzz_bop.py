"""Damaged BOP data sets and baselines end in what can be used or in one sentence; ``make fuzz`` tries many of them."""

from __future__ import annotations

import json

from rfdetr_foundationpose.replay.bop import BopDataset
from rfdetr_foundationpose.replay.result import read_baseline
from support.bop_folder import EGGBOX, make_bop
from support.figures import FIGURES
from support.fuzz import cases, damaged, mistyped, try_seeds


def test_damaged_data_sets_end_in_images_or_one_sentence(tmp_path):
    folder = make_bop(tmp_path / "a", info={"symmetries_discrete": [EGGBOX]})
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".png"))

    def read() -> str:
        dataset = BopDataset(folder)
        count = sum(1 for _ in dataset)
        assert count == 3 or dataset.left_out.counts or dataset.notes
        assert all("\n" not in s for s in (*dataset.notes, *dataset.left_out.sentences()))
        return f"{count} images"

    whole = {file: file.read_bytes() for file in files}

    def damage(seed: int) -> str:
        """One file; the one before is whole again."""
        file, before = files[seed % len(files)], files[(seed - 1) % len(files)]
        before.write_bytes(whole[before])
        if file.suffix == ".json" and seed % 2:
            text, what = mistyped(json.dumps(json.loads(whole[file]), indent=1), seed)
            file.write_text(text)
        else:
            broken, what = damaged(whole[file], seed)
            file.write_bytes(broken)
        return f"{file.name}: {what}"

    try_seeds("BOP", cases(40), damage, read)


def test_a_mistyped_baseline_is_a_result_or_one_sentence(tmp_path):
    file = tmp_path / "b.json"
    text = json.dumps(FIGURES, indent=1)

    def damage(seed: int) -> str:
        changed, what = mistyped(text, seed)
        file.write_text(changed)
        return what

    def read() -> str:
        return "a result" if read_baseline(file, FIGURES["recording_id"]) else "nothing"

    try_seeds("baseline", cases(100), damage, read)
