"""Wrong calls of every command: one sentence that names what is wrong, exit code 2, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from rfdetr_foundationpose.cli.main import COMMANDS, Command
from support.cli_runs import run_cli

NO_BAG = "recording DIR/none does not exist"
CALLS: list[tuple[str, str]] = [
    ("demo --device gpu", "device='gpu' is not a torch device"),
    ("demo --device cuda:99", "no CUDA device is usable"),
    ("demo --rate fast", "--rate=fast must be auto or a number in [0.001, 1000]"),
    ("demo --rate nan", "--rate=nan must be auto or a number"),
    ("demo --frames 1", "Invalid value for '--frames'"),
    ("demo --fps 1000", "Invalid value for '--fps'"),
    ("demo --seed -1", "Invalid value for '--seed'"),
    ("demo --seed 99999999999999999999", "Invalid value for '--seed'"),
    ("demo --detection yolo", "'yolo' is not one of"),
    ("demo --objects teapot", "--objects: 'teapot' is not in the objects file, which has cereal_box, mug"),
    ("demo --set pose.backend=warp9", "pose.backend='warp9' must be one of"),
    ("demo --set nothing", "--set nothing: expected NAME=VALUE"),
    ("demo --set =3", "--set =3: expected NAME=VALUE"),
    ("demo --set device=cpu", "--set device=cpu: use --device"),
    ("demo --objects-file DIR/none.yaml", "objects file DIR/none.yaml does not exist"),
    ("demo extra", "Got unexpected extra argument"),
    ("doctor --config DIR/none.yaml", "DIR/none.yaml cannot be read: No such file or directory"),
    ("doctor --config TEXT", "TEXT: must hold settings like"),
    ("doctor --set detector.threshold=[", "--set detector.threshold=[: not valid YAML"),
    ("doctor --json DIR", "--json DIR is a folder; name a file"),
    ("replay", "Missing argument"),
    ("replay DIR/none", NO_BAG),
    ("replay EMPTY", "EMPTY"),
    ("replay TEXT", "TEXT"),
    ("replay DIR", "DIR"),
    ("replay DIR/none --config DIR/none.yaml", "DIR/none.yaml cannot be read: No such file or directory"),
    ("replay DIR/none --set pose.track_iterations=0", "pose.track_iterations=0 must be in [1, 10]"),
    ("replay DIR/none --set pose.track_iterations=two", "pose.track_iterations='two' must be a whole number"),
    ("replay DIR/none --set treshold=0.5", "unknown setting 'treshold'; did you mean 'detector.threshold'?"),
    ("replay DIR/none --set objects_file=a.yaml --objects-file b.yaml", "give one of them"),
    ("replay DIR/none --baseline DIR/none.json", "--baseline DIR/none.json cannot be read as JSON"),
    ("replay DIR/none --baseline TEXT", "--baseline TEXT cannot be read as JSON"),
    ("replay DIR/none --baseline LIST", "--baseline LIST is no result.json: it holds a list"),
    ("replay DIR/none --baseline OTHER", "--baseline OTHER: the baseline holds none of the figures"),
    ("replay DIR/none --rate slow --ros", "--rate=slow must be auto"),
    ("replay DIR/none --frames 0", "Invalid value for '--frames'"),
    ("replay DIR/none --device tpu", "is not a torch device"),
    ("replay DIR/none --init-box mug", "--init-box"),
    ("replay DIR/none --init-box teapot=1,2,3,4", "teapot"),
    ("replay DIR/none --init-mask mug=DIR/none.png", "DIR/none.png"),
    ("evaluate", "Usage"),
    ("evaluate accuracy", "No such command 'accuracy'"),
    ("evaluate synth --scenes 0", "Invalid value for '--scenes'"),
    ("evaluate synth --scenes 1 --weights DIR/none", "no refiner weights in DIR/none"),
    ("evaluate synth --objects-file DIR/none.yaml", "objects file DIR/none.yaml does not exist"),
    ("evaluate synth --set pose.weights=DIR --scenes 1", "no refiner weights in DIR"),
    ("evaluate bop", "Missing argument"),
    ("evaluate bop DIR/none", "DIR/none"),
    ("evaluate bop DIR", "DIR"),
    ("evaluate bop DIR --min-visibility 2", "Invalid value for '--min-visibility'"),
    ("evaluate ycbv", "Missing option '--data'"),
    ("evaluate ycbv --data DIR/none", "DIR/none holds no <frame>-gt.json"),
    ("evaluate ycbv --data TEXT", "TEXT"),
    ("evaluate detector --targets mug,robot", "--targets: robot not in the objects file"),
    ("evaluate detector --weights DIR/none.pth", "detector weights DIR/none.pth do not exist"),
    ("evaluate detector --weights TEXT", "TEXT"),
    ("evaluate detector --seeds 9..3", "--seeds=9..3 must be numbers or ranges"),
    ("evaluate detector --seeds 0..99999999999", "--seeds=0..99999999999 must be numbers or ranges"),
    ("evaluate detector --seeds 0..2000000000", "are more than 10000"),
    ("evaluate detector --threshold 1.5", "Invalid value for '--threshold'"),
    ("evaluate detector --set detector.source=mask-topic", "there is no detector to evaluate"),
    ("evaluate pipeline --first-frame 150", "a recording has 150 frames"),
    ("evaluate pipeline --frames 151", "a recording has 150 frames"),
    ("evaluate pipeline --set objects_file=a.yaml", "use --objects-file"),
    ("evaluate schedules --schedules full,sometimes", "'sometimes' must be 'auto', 'full' or counts"),
    ("evaluate schedules --schedules full,full", "at least one, and none twice"),
    ("evaluate schedules --size large", "size 'large' must be WIDTHxHEIGHT"),
    ("evaluate schedules --size 100000x100000", "must be between 16x16 and 8192x8192"),
    ("calibrate --scenes 5", "Invalid value for '--scenes'"),
    ("calibrate --weights TEXT", "no refiner weights in TEXT"),
    ("calibrate --objects mug --objects-file DIR/none.yaml", "DIR/none.yaml does not exist"),
    ("bench --backends warp9", "--backends: warp9 is none of"),
    ("bench --backends auto", "--backends: auto is none of"),
    ("bench --tracked 9", "Invalid value for '--tracked'"),
    ("bench --schedule sometimes", "pose.register_schedule='sometimes' must be"),
    ("bench --iterations 99", "Invalid value for '--iterations'"),
    ("bench --weights DIR/none", "no refiner weights in DIR/none"),
    ("bench --networks", "No such option"),
    ("bench networks --batches 1,two", "--batches=1,two must be numbers from 1 to 4096"),
    ("bench networks --batches 0", "--batches=0 must be numbers from 1 to 4096"),
    ("bench networks --batches 1000000000", "--batches=1000000000 must be numbers from 1 to 4096"),
    ("bench overlap --device cpu", "nothing to overlap on cpu"),
    ("bench node --rates fast", "--rates=fast must be numbers"),
    ("bench node --styles best", "--styles: best is none of ours, naive"),
    ("validate pose", "name a recording or BOP folder, or --synth N"),
    ("validate pose DIR/none", "DIR/none does not exist"),
    ("validate pose --synth 1 --backend warp9", "warp9"),
    ("validate pose --synth 1 --weights DIR/none", "no refiner weights in DIR/none"),
    ("validate pose --synth 1 --size 10x10", "must be between 16x16 and 8192x8192"),
    ("validate detector --backend warp9", "--backend warp9 is unknown; use one of"),
    ("validate detector --weights DIR/none.pth", "DIR/none.pth do not exist"),
    ("validate detector --objects-file TEXT", "TEXT: must hold a list under 'objects'"),
    ("export --precision int8", "--precision=int8 must be fp32, fp16 or both"),
    ("export --opset 3", "Invalid value for '--opset'"),
    ("export --opset 999", "Invalid value for '--opset'"),
    ("export --batch 1000000000", "Invalid value for '--batch'"),
    ("export --weights DIR", "no refiner weights in DIR"),
    ("build-engines --batches 1,two", "must be numbers from 1 to 4096"),
    ("build-engines --precision int4", "--precision=int4 must be fp16 or fp32"),
    ("build-engines --scenes -1", "Invalid value for '--scenes'"),
    ("train refiner --device abacus --out OUT", "is not a torch device"),
    ("train refiner --weights DIR/none.safetensors --out OUT", "DIR/none.safetensors is no file"),
    ("train refiner --without rain --out OUT", "--without rain: no such effect"),
    ("train first-pass --device abacus --out OUT", "is not a torch device"),
    ("train scorer --refiner DIR/none.safetensors --out OUT", "DIR/none.safetensors is no file"),
    ("train detector --resolution 100 --out OUT", "--resolution 100 must be a multiple of 32"),
    ("train detector --minutes 0 --out OUT", "Invalid value for '--minutes'"),
    ("train detector --dataset DIR --out OUT --device cpu", "DIR"),
    ("train detector --objects-file DIR/none.yaml --out OUT", "DIR/none.yaml does not exist"),
    ("generate recording --size big --out OUT", "size 'big' must be WIDTHxHEIGHT"),
    ("generate recording --frames 0 --out OUT", "Invalid value for '--frames'"),
    ("generate recording --objects teapot --out OUT", "object 'teapot' is not in the objects file"),
    ("generate recording --storage zip --frames 1 --device cpu --out OUT", "storage='zip' must be 'mcap' or 'sqlite3'"),
    ("generate recording --compressed gif --frames 1 --device cpu --out OUT", "compressed='gif' must be"),
    ("generate recording --distractors 100000 --out OUT", "Invalid value for '--distractors'"),
    ("generate bop --split ../../elsewhere --out OUT", "--split='../../elsewhere' must be the name of a folder"),
    ("generate coco --train -1 --out OUT", "Invalid value for '--train'"),
    ("generate coco --device abacus --out OUT", "is not a torch device"),
    ("generate scan --out OUT", "Missing option '--object'"),
    ("generate scan --object teapot --out OUT", "object 'teapot' is not in the objects file"),
    ("object add DIR/none.obj --objects-file OUT/objects.yaml", "DIR/none.obj"),
    ("object add TEXT --objects-file OUT/objects.yaml", "TEXT"),
    ("object scan DIR/none --name mug --objects-file OUT/objects.yaml", NO_BAG),
    ("object board --board a9 --out OUT", "'a9' is not one of"),
]


@pytest.fixture
def place(tmp_path) -> dict[str, str]:
    """Words of the calls above -> paths."""
    files = {"EMPTY": ("empty.mcap", ""), "TEXT": ("text.txt", "hello"), "LIST": ("list.json", "[]")}
    files["OTHER"] = ("other.json", '{"something": 1}')
    inside = tmp_path / "dir"
    inside.mkdir()
    for name, content in files.values():
        (tmp_path / name).write_text(content)
    named = {word: str(tmp_path / name) for word, (name, _) in files.items()}
    return {**named, "DIR": str(inside), "OUT": str(tmp_path / "out")}


def fill(text: str, place: dict[str, str]) -> str:
    for word, path in place.items():
        text = text.replace(word, path)
    return text


@pytest.mark.parametrize(("call", "said"), CALLS, ids=[call for call, _ in CALLS])
def test_a_wrong_call_is_one_sentence(call, said, place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where default folders would appear
    before = sorted(tmp_path.rglob("*"))
    code, text = run_cli(capsys, *(fill(word, place) for word in call.split()))
    assert code == 2, text
    assert " ".join(fill(said, place).split()) in text
    assert "Traceback" not in text and "Errno" not in text
    assert len(text) < 1500
    assert sorted(tmp_path.rglob("*")) == before


def test_every_command_is_called_wrongly():
    called = {" ".join(call.split()[:2]) for call, _ in CALLS} | {call.split()[0] for call, _ in CALLS}
    for name, entry in COMMANDS.items():
        for sub in [""] if isinstance(entry, Command) else entry:
            assert f"{name} {sub}".strip() in called or name in ("bench",) or (name, sub) == ("generate", "objects")


def test_there_is_no_such_command(capsys):
    for words in (["frobnicate"], ["--frobnicate"], ["train", "yolo"], ["bench", "everything"]):
        code, text = run_cli(capsys, *words)
        assert code == 2 and words[-1].lstrip("-") in text


def test_no_answer_is_a_path_of_ours(capsys, tmp_path):
    """A user has no use for where in the program something went wrong."""
    code, text = run_cli(capsys, "replay", str(tmp_path / "none"))
    assert code == 2
    assert str(Path(__file__).parents[1] / "rfdetr_foundationpose") not in text
