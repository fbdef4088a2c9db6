"""GraphedProgram: one interface, replay on CUDA and eager runs elsewhere, everything counted."""

from __future__ import annotations

import pytest
import torch

from rfdetr_foundationpose.accel.graph import GraphedProgram, GraphPool, inlining, totals
from rfdetr_foundationpose.accel.memory import within_memory_limit


class Accumulator:
    """out = weights @ x, in static buffers."""

    def __init__(self, device: str = "cpu") -> None:
        self.weights = torch.rand(4, 4, device=device)
        self.x = torch.zeros(4, device=device)
        self.runs = 0

    def __call__(self) -> torch.Tensor:
        self.runs += 1
        return self.weights @ self.x


def test_cpu_runs_the_work_and_says_why():
    work = Accumulator()
    program = GraphedProgram(work, "cpu", name="step")
    assert "step: CUDA graphs need a CUDA device" in program.degraded
    for value in (1.0, 2.0):
        work.x.fill_(value)
        torch.testing.assert_close(program(), work.weights.sum(1) * value)
    assert not program.captured
    assert (program.counters.captures, program.counters.recaptures, program.counters.replays) == (1, 0, 0)
    assert program.counters.eager_runs == work.runs == 2


def test_a_new_key_prepares_again_and_is_counted(said):
    before = totals()
    program = GraphedProgram(Accumulator(), "cpu", name="step")
    program.prepare(("640x480", 2))
    program(("640x480", 2))
    assert program.counters.recaptures == 0 and said == []
    program(("1280x720", 2))
    program(("1280x720", 2))
    assert program.counters.captures == 2 and program.counters.recaptures == 1
    assert len(said) == 1 and "1280x720" in said[0]
    assert program.counters.last_capture_ms > 0
    assert totals().captures == before.captures + 2 and totals().recaptures == before.recaptures + 1


def test_programs_inside_a_program_run_plainly_while_it_is_prepared():
    cpu = torch.device("cpu")
    seen: list[bool] = []
    program = GraphedProgram(lambda: seen.append(inlining(cpu)), cpu)
    program.prepare()
    assert all(seen) and len(seen) == 1
    program()
    assert seen[-1] is False and not inlining(cpu)

    inner = GraphedProgram(lambda: None, cpu)
    nested = GraphedProgram(lambda: (inner.prepare(), seen.append(inlining(cpu))), cpu)
    nested.prepare()
    assert seen[-1] is True

    def fails() -> None:
        raise RuntimeError("work")

    with pytest.raises(RuntimeError, match="work"):
        GraphedProgram(fails, cpu).prepare()
    assert not inlining(cpu)


@pytest.mark.gpu
def test_replay_equals_eager_and_reads_new_inputs():
    work = Accumulator("cuda")
    program = GraphedProgram(work, "cuda", name="step")
    program.prepare()
    assert program.captured and program.degraded == ""
    runs = work.runs
    for value in (1.0, -3.0):
        work.x.fill_(value)
        torch.testing.assert_close(program(), work.weights.sum(1) * value)
    assert work.runs == runs, "a replay must not run Python"
    assert program.counters.replays == 2 and program.counters.eager_runs == 0


@pytest.mark.gpu
def test_two_programs_share_a_pool():
    pool = GraphPool("shared", "cuda")
    works = [Accumulator("cuda") for _ in range(2)]
    programs = [GraphedProgram(work, "cuda", pool=pool) for work in works]
    for program in programs:
        program.prepare()
    for i in (0, 1, 0, 1):
        works[i].x.fill_(i + 2.0)
        programs[i]()
    for i in (1, 0):
        torch.testing.assert_close(programs[i].outputs, works[i].weights.sum(1) * (i + 2.0))


@pytest.mark.gpu
def test_a_failed_capture_is_said_and_runs_eagerly(said):
    x = torch.ones(4, device="cuda")
    before = torch.cuda.current_stream()
    pool = GraphPool("step", "cuda")
    program = GraphedProgram(lambda: x * x.sum().item(), "cuda", name="step", pool=pool)
    program.prepare()
    assert torch.cuda.current_stream() == before
    assert not program.captured
    assert "capture failed" in program.degraded and said == [program.degraded]
    x.fill_(2.0)
    torch.testing.assert_close(program(), torch.full_like(x, 16.0))
    # The pool goes on: what failed must not take its neighbours along.
    neighbour = GraphedProgram(lambda: x + 1, "cuda", pool=pool)
    torch.testing.assert_close(neighbour(), torch.full_like(x, 3.0))
    assert neighbour.captured


@pytest.mark.gpu
def test_preparing_gets_more_memory_when_little_is_not_enough():
    tries = 0

    def run() -> int:
        nonlocal tries
        tries += 1
        return torch.empty(2 << 30, dtype=torch.uint8, device="cuda").numel()

    assert within_memory_limit(run, torch.device("cuda")) == 2 << 30
    assert tries == 3, "twice bounded, then not"
    torch.empty(2 << 30, dtype=torch.uint8, device="cuda")  # the bound is lifted
    with pytest.raises(RuntimeError, match="something else"):
        within_memory_limit(lambda: (_ for _ in ()).throw(RuntimeError("something else")), torch.device("cuda:0"))


def test_preparing_on_a_cpu_runs_once():
    ran: list[int] = []
    assert within_memory_limit(lambda: ran.append(1) or len(ran), torch.device("cpu")) == 1
