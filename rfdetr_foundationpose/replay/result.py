"""What a run gave: one sample per published pose, the result.json built of them, and comparison with a stored one."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ..errors import ConfigError, error_sentence
from .metrics import PoseError, recall, summarize


@dataclass(frozen=True)
class PoseSample:
    """One pose that came out, and how wrong it was.

    frame: index in the recording. seconds: since the recording's first frame. T_cam_obj: (4, 4) float64, metres.
    error: None without ground truth. age_ms: from the image's publication to the pose's arrival, None outside ROS.
    confidence: None where the topic does not carry it.
    """

    frame: int
    stamp_ns: int
    seconds: float
    object: str
    T_cam_obj: NDArray[np.float64]
    error: PoseError | None = None
    age_ms: float | None = None
    confidence: float | None = None


COLUMNS = (
    *("frame", "stamp_ns", "seconds", "object", "x", "y", "z", "qx", "qy", "qz", "qw", "confidence", "age_ms"),
    *("translation_error_mm", "rotation_error_deg", "add_mm", "adds_mm"),
)


class PosesCsv:
    """poses.csv, written as poses come: a row each, metres, unit quaternion (x, y, z, w), camera optical frame; empty
    cells where unknown. A context manager."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)

    def __enter__(self) -> PosesCsv:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, samples: Iterable[PoseSample]) -> None:
        """Append; what was added is on disk, should the process end."""
        for s in samples:
            quaternion = Rotation.from_matrix(s.T_cam_obj[:3, :3]).as_quat()
            errors: tuple[float | None, ...] = (None,) * 4
            if s.error is not None:
                errors = (s.error.translation_mm, s.error.rotation_deg, s.error.add_mm, s.error.adds_mm)
            numbers = [*s.T_cam_obj[:3, 3], *quaternion, s.confidence, s.age_ms, *errors]
            cells = ["" if v is None else f"{float(v):.6f}" for v in numbers]
            self._writer.writerow([s.frame, s.stamp_ns, f"{s.seconds:.6f}", s.object, *cells])
        self._file.flush()


def write_poses_csv(path: Path, samples: Sequence[PoseSample]) -> None:
    """All of poses.csv, as :class:`PosesCsv` writes it."""
    with PosesCsv(path) as file:
        file.add(samples)


@dataclass(frozen=True)
class FrameCounts:
    """What became of the frames of a run. dropped: by reason, without those that ``unprocessed`` finds out."""

    published: int
    received: int
    processed: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    def unprocessed(self) -> dict[str, int]:
        """Published frames that were not processed, by reason; "not_received" are those that did not arrive, and "unfinished"
        those in work when the run ended. Raises ValueError for counts that do not add up so."""
        reasons = {reason: count for reason, count in self.dropped.items() if count}
        lost = self.published - self.received
        unfinished = self.received - self.processed - sum(reasons.values())
        if lost < 0 or unfinished < 0:
            raise ValueError(
                f"{self.published} frames published, {self.received} received, {self.processed} processed and {reasons} dropped "
                "do not add up"
            )
        return reasons | {r: n for r, n in (("not_received", lost), ("unfinished", unfinished)) if n}


@dataclass(frozen=True)
class RunOutcome:
    """What a run gave. result: as result.json. series: stage -> (seconds, ms). stamp_of: makes of the series' seconds a stamp in
    the recording (ns); None: they count from its first frame."""

    result: Mapping[str, Any]
    samples: Sequence[PoseSample]
    series: Mapping[str, Sequence[tuple[float, float]]]
    stamp_of: Callable[[float], int] | None = None


def build_result(
    samples: Sequence[PoseSample],
    frames: FrameCounts,
    *,
    latency_ms: Mapping[str, Mapping[str, float]],
    detection_source: str,
    weights: str,
    device: str,
    missing: int = 0,
    **extra: Any,
) -> dict[str, Any]:
    """result.json. ``missing``: object-frames that should have had a pose and had none; they count as failures. Raises ValueError
    for counts of frames that do not add up."""
    reasons = frames.unprocessed()
    errors: list[PoseError | None] = [s.error for s in samples if s.error is not None]
    accuracy = summarize([*errors, *([None] * missing)])
    return {
        "frames_published": frames.published,
        "frames_received": frames.received,
        "frames_processed": frames.processed,
        **accuracy,
        "latency_ms": {stage: dict(values) for stage, values in latency_ms.items()},
        "dropped": sum(reasons.values()),
        "dropped_by_reason": reasons,
        "detection_source": detection_source,
        "weights": weights,
        "device": device,
        "poses": len(samples),
        "poses_missing": missing,
        "objects": sorted({s.object for s in samples}),
        **extra,
    }


def object_rows(samples: Sequence[PoseSample], result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Figures of each object: poses, misses, confidence, and where the truth is known its errors (p50, p95) and recall."""
    missing = result.get("missing_by_object") or {}
    rows = []
    for name in sorted({s.object for s in samples} | set(missing)):
        own = [s for s in samples if s.object == name]
        errors = [s.error for s in own if s.error is not None]
        confidences = [s.confidence for s in own if s.confidence is not None]
        judged: list[PoseError | None] = [*errors, *([None] * missing.get(name, 0))]
        rows.append(
            {
                "name": name,
                "poses": len(own),
                "missing": missing.get(name, 0),
                "confidence": _quantile(confidences, 0.5),
                "translation": [_quantile([e.translation_mm for e in errors], q) for q in (0.5, 0.95)],
                "rotation": [_quantile([e.rotation_deg for e in errors], q) for q in (0.5, 0.95)],
                "adds": [_quantile([e.adds_mm for e in errors], q) for q in (0.5, 0.95)],
                "recall": recall(judged) if judged else None,
            }
        )
    return rows


def _quantile(values: Sequence[float], q: float) -> float | None:
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(int(q * len(ordered)), len(ordered) - 1)]


def write_json(path: Path, result: Mapping[str, Any]) -> None:
    """Strict JSON: numbers that are not finite become null. A file is replaced as a whole, never left half written."""
    text = json.dumps(_finite(result), indent=2, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a pipe or a device
        path.write_text(text)
        return
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text(text)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class Tolerance:
    """A figure may be worse than the baseline by ``relative`` of it plus ``absolute``; ``sign`` +1: lower is better."""

    path: tuple[str, ...]
    relative: float
    absolute: float
    sign: int = 1

    def allowed(self, baseline: float) -> float:
        return baseline + self.sign * (abs(baseline) * self.relative + self.absolute)

    def worse(self, value: float | None, baseline: float) -> bool:
        # Written so that NaN is worse.
        return value is None or not self.sign * (value - self.allowed(baseline)) <= 0


TOLERANCES = (
    Tolerance(("translation_error_mm", "p50"), 0.2, 0.5),
    Tolerance(("translation_error_mm", "p95"), 0.3, 1.0),
    Tolerance(("rotation_error_deg", "p50"), 0.2, 0.3),
    Tolerance(("rotation_error_deg", "p95"), 0.3, 1.0),
    Tolerance(("adds_recall_0.1d",), 0.0, 0.02, sign=-1),
    Tolerance(("poses",), 0.05, 1.0, sign=-1),
    Tolerance(("lost",), 0.0, 0.0),
)
# A latency may exceed the baseline by this share and by this time (ms): machines jitter.
LATENCY_TOLERANCE = (0.5, 2.0)


@dataclass(frozen=True)
class Comparison:
    """One figure against its baseline."""

    name: str
    baseline: float
    value: float | None
    allowed: float
    regressed: bool


def compare(result: Mapping[str, Any], baseline: Mapping[str, Any], *, latency: bool = False) -> list[Comparison]:
    """Every figure that the baseline holds. A figure that has vanished from ``result`` is a regression.

    latency: also the p50 of each stage; meaningful on the same machine only. Raises ValueError when there is nothing
    in common to compare, when a figure of the baseline is no number (null only where ``result`` has none either), and
    when the baseline is of another recording.
    """
    check_same_recording(result, baseline)
    tolerances = list(TOLERANCES)
    if latency:
        stages = baseline.get("latency_ms")
        tolerances += [
            Tolerance(("latency_ms", stage, "p50"), *LATENCY_TOLERANCE)
            for stage in (stages if isinstance(stages, Mapping) else {})
        ]
    rows = []
    for tolerance in tolerances:
        old, new = _baseline_figure(baseline, tolerance.path), _get(result, tolerance.path)
        name = ".".join(tolerance.path)
        if old is None:
            if new is not None and _holds(baseline, tolerance.path):
                raise ValueError(_NO_FIGURE.format(name=name, value="null"))
            continue
        rows.append(Comparison(name, old, new, tolerance.allowed(old), tolerance.worse(new, old)))
    if not rows:
        raise ValueError(
            "the baseline holds none of the figures to compare; is it a result.json of replay, evaluate or demo?"
        )
    return rows


def check_same_recording(result: Mapping[str, Any], baseline: Mapping[str, Any]) -> None:
    """Raises ValueError when both say of which recording they are, and it is not the same one or not as many frames."""
    now, then = result.get("recording_id"), baseline.get("recording_id")
    if not isinstance(now, Mapping) or not isinstance(then, Mapping):
        return
    for key, what in (
        ("digest", "another recording"),
        ("topics", "other topics"),
        ("frames", "another number of frames"),
    ):
        if now.get(key) != then.get(key):
            raise ValueError(
                f"the baseline is of {what} ({then.get(key)}) than this run ({now.get(key)}); give the result.json of "
                "a run on the same recording, with the same --frames and topics"
            )


def read_baseline(path: Path, recording_id: Mapping[str, Any] | None = None, *, judged: bool = False) -> dict[str, Any]:
    """A result.json to compare with. Raises ConfigError when it is none, before anything has run.

    recording_id: of the recording to run, see ``Recording.identity``. judged: the recording has ground truth, so that the
    errors must be numbers.
    """
    try:
        stored = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"--baseline {path} cannot be read as JSON: {error_sentence(error)}") from error
    if not isinstance(stored, dict):
        raise ConfigError(f"--baseline {path} is no result.json: it holds a {type(stored).__name__}, not a mapping")
    try:
        compare({} if recording_id is None else {"recording_id": recording_id}, stored)
        for figure in (t.path for t in TOLERANCES if judged or t.path in (("poses",), ("lost",))):
            if _holds(stored, figure) and _baseline_figure(stored, figure) is None:
                raise ValueError(_NO_FIGURE.format(name=".".join(figure), value="null"))
    except ValueError as error:
        raise ConfigError(f"--baseline {path}: {error}") from error
    return stored


_NO_FIGURE = "the baseline's {name} is {value}, no number: that run had nothing to measure; make another baseline"


def _baseline_figure(baseline: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """None where there is none, or null. Raises ValueError for anything else that is no finite number."""
    value = _get(baseline, path)
    if (value is None and _holds(baseline, path) and _at(baseline, path) is not None) or (
        value is not None and not math.isfinite(value)
    ):
        raise ValueError(_NO_FIGURE.format(name=".".join(path), value=repr(_at(baseline, path))))
    return value


def _holds(tree: Mapping[str, Any], path: Sequence[str]) -> bool:
    return _at(tree, path, missing=...) is not ...


def _at(tree: Mapping[str, Any], path: Sequence[str], missing: Any = None) -> Any:
    value: Any = tree
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return missing
        value = value[key]
    return value


def _get(tree: Mapping[str, Any], path: Sequence[str]) -> float | None:
    value = _at(tree, path)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
