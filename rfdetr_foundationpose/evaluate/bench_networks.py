"""``bench networks``: refiner and scorer alone, per backend and batch size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import nn

from ..accel.base import BackendUnavailable, Runner, RunnerContext
from ..accel.runner import make_runner
from ..pose.example_crops import example_pairs
from ..tables import plain_table
from .bench_timing import Stats, interleave, synchronize

GFLOP_PER_PAIR = 20.8
"""A network of the official size takes this for a pair at 160 x 160; a multiply-add counts as two."""


def measure_networks(
    networks: Mapping[str, nn.Module],
    backends: Sequence[str],
    batches: Sequence[int],
    device: torch.device,
    repetitions: int,
    save: Callable[[dict[str, Any]], None] = lambda tree: None,
) -> dict[str, Any]:
    """Milliseconds per call and largest output difference to FP32 eager, by role, backend and batch size.

    save: gets what there is after each batch size. Small batches are timed one call at a time, as tracking runs them: from an idle device to an idle device.
    """
    result: dict[str, Any] = {}
    for role, module in networks.items():
        runners: dict[str, Runner] = {}
        reasons: dict[str, str] = {}
        prepared: dict[str, float] = {}
        for backend in backends:
            begin = time.perf_counter()
            try:
                context = RunnerContext(device, label=role, examples=partial(example_pairs, device=device))
                runner = make_runner(module, backend, context, batches=batches, fallback=False)
                runners[backend] = runner.coarse or runner
            except BackendUnavailable as error:
                reasons[backend] = str(error)
            prepared[backend] = time.perf_counter() - begin
        rows: dict[str, Any] = {backend: {"reason": reason} for backend, reason in reasons.items()}
        for backend, runner in runners.items():
            rows[backend] = {
                "prepare_s": prepared[backend],
                "dtype": str(runner.dtype).removeprefix("torch."),
                "batches": {},
            }
        for batch in batches:
            generator = torch.Generator().manual_seed(batch)
            crops = [torch.rand(batch, 6, 160, 160, generator=generator).to(device) for _ in range(2)]
            exact = make_runner(module, "eager", RunnerContext(device))(*crops)
            for backend, runner in runners.items():
                found = runner(*crops)
                synchronize(device)
                worst = max(float((f - e).abs().max() / e.abs().max()) for f, e in zip(found, exact, strict=True))
                rows[backend]["batches"][batch] = {"difference": worst}

            def call(runner: Runner, pair: Sequence[torch.Tensor] = crops) -> float:
                synchronize(device)
                begin = time.perf_counter()
                runner(*pair)
                synchronize(device)
                return (time.perf_counter() - begin) * 1e3

            count = max(3, repetitions // 5) if batch > 16 else repetitions
            calls = {backend: (lambda _, r=runner: call(r)) for backend, runner in runners.items()}
            for samples in (interleave(calls, 2), interleave(calls, count)):  # the first are warm-up
                for backend, values in samples.items():
                    rows[backend]["batches"][batch] |= Stats.of(values).as_dict()
            save({**result, role: rows})
        result[role] = rows
        del runners
        gc.collect()
    return result


def network_tables(result: dict[str, Any], batches: Sequence[int], official: bool) -> list[Table]:
    """p50 in ms (and TFLOP/s at official size), rows are backends."""
    tables = []
    for role, rows in result.items():
        heads = [f"ms, {b}" for b in batches]
        table = plain_table(f"{role}: p50 by batch size", "backend", "dtype", "prepare s", *heads, "differs", left=2)
        reasons = [f"{backend}: not available: {row['reason']}" for backend, row in rows.items() if "reason" in row]
        table.caption, table.caption_justify = "\n".join(reasons) or None, "left"
        for backend, row in rows.items():
            if "reason" in row:
                continue
            cells = []
            for batch in batches:
                ms = row["batches"][batch]["p50"]
                speed = f" ({GFLOP_PER_PAIR * batch / ms:.0f} T)" if official and batch > 16 else ""
                cells.append(f"{ms:.3f}{speed}" if ms < 10 else f"{ms:.1f}{speed}")
            worst = max(b["difference"] for b in row["batches"].values())
            table.add_row(backend, row["dtype"], f"{row['prepare_s']:.1f}", *cells, f"{worst:.1e}")
        tables.append(table)
    return tables
