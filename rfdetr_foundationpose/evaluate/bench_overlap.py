"""``bench overlap``: the detector on a CUDA stream of its own beside the tracker, against one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.table import Table

from ..accel.base import BackendUnavailable
from ..config import from_flat
from ..detect.detector import DetectionReport, DetectorError
from ..device_frame import Uploader
from ..latency import StageTimer
from ..pipeline.side_stream import SideStream
from ..pose.estimator import TrackRequest
from ..pose.example_scene import ExampleScene
from ..tables import plain_table
from ..types import Frame
from .bench_rows import EstimatorRow, Pose
from .bench_scene import before, smallest_objects
from .bench_stages import REPEATS, StageSettings
from .bench_timing import Stats, interleave, timed
from .compare import pose_difference
from .networks import LoadedNetworks

if TYPE_CHECKING:
    from ..config import Config
    from ..detect.rfdetr_detector import RfDetrDetector

NOTHING_TO_OVERLAP = "nothing to overlap on {device}: streams are CUDA's, elsewhere detector and tracker take turns"
# The camera's way through the scene has this many frames; before it is measured, WARM_UP calls of each kind are made.
FRAMES = 30
WARM_UP = 10

Outcome = tuple[DetectionReport | None, dict[str, Pose]]
"""Of one frame: detections and tracked poses, both on the host."""
Way = Callable[[Frame, Mapping[str, Pose]], Outcome]


class Ways:
    """The same work on a frame, detector and tracking step, in the orders that are compared.

    "one after the other": what the pipeline does without overlap: waits for the detections, then tracks.
    "one stream": the detector is enqueued, then the tracker behind it; what is saved is the wait between them.
    "own stream": what the pipeline does: the detector beside the tracker on a second stream.
    "track alone": a frame on which the detector does not run.
    """

    def __init__(self, row: EstimatorRow, detector: RfDetrDetector, device: torch.device) -> None:
        timer = StageTimer(device)
        self._row = row
        self._upload = Uploader(device)
        turns, beside = SideStream(device, timer, overlap=False), SideStream(device, timer)
        self.ways: dict[str, Way] = {
            "one after the other": partial(self._frame, partial(turns.start, detector)),
            "one stream": partial(self._frame, detector.start),
            "own stream": partial(self._frame, partial(beside.start, detector)),
            "track alone": partial(self._frame, lambda frame: lambda: None),
        }

    def _frame(self, start: Callable[[Any], Callable[[], Any]], frame: Frame, last: Mapping[str, Pose]) -> Outcome:
        uploaded = self._upload(frame)
        finish = start(uploaded)
        estimator = self._row.estimator
        requests = [TrackRequest(name, T) for name, T in last.items()]
        poses = estimator.track(estimator.prepare(uploaded), requests)
        return finish(), {name: e.T_cam_obj for name, e in zip(last, poses, strict=True)}


def measure_overlap(
    backends: Sequence[str],
    networks: LoadedNetworks,
    config: Config,
    device: torch.device,
    settings: StageSettings,
    save: Callable[[dict[str, Any]], None] = lambda tree: None,
) -> dict[str, Any]:
    """settings: of the objects that are tracked and of the samples. Per backend: milliseconds of a frame each way, from an idle device to an idle device, sampled in turn; p50 and p95 of
    "own stream" over those of the others; and by how much its results differ. Backends that cannot run carry a reason."""
    specs, models = smallest_objects(settings.objects, settings.objects_file)
    scene = ExampleScene(models, settings.size, device, settings.seed)
    frames = [scene.frame(i) for i in range(FRAMES)]
    found: dict[str, Any] = {}
    for backend in backends:
        if backend == "reference":
            found[backend] = {"reason": "it is a schedule in which the host waits after every step"}
            continue
        try:
            row = EstimatorRow(backend, models, networks, config, device)
            row.warm_up(scene.camera)
            detector = _detector(backend, config, specs, device)
            detector.warm_up(scene.camera)
        except (BackendUnavailable, DetectorError, ImportError) as error:
            found[backend] = {"reason": str(error)}
            continue
        ways = Ways(row, detector, device).ways

        def sample(way: Way, i: int) -> float:
            frame = frames[i % len(frames)].frame
            last = before(frames, i)
            return timed(partial(way, frame, last), device)[0]

        calls = {name: partial(sample, way) for name, way in ways.items()}
        interleave(calls, WARM_UP)
        stats = {
            name: Stats.of(values)
            for name, values in interleave(calls, settings.tracks or REPEATS[device.type][1]).items()
        }
        outcomes = {
            name: [ways[name](f.frame, before(frames, i)) for i, f in enumerate(frames)]
            for name in ("one after the other", "own stream")
        }
        found[backend] = {
            "detector_backend": detector.backend,
            "ways": {name: s.as_dict() for name, s in stats.items()},
            "ratios": ratios(stats),
            "difference": difference(outcomes["one after the other"], outcomes["own stream"]),
        }
        save(found)
    return found


def _detector(backend: str, config: Config, specs: Sequence[Any], device: torch.device) -> Any:
    """At the backend, or at the best one where RF-DETR does not have it."""
    from ..backends import DETECTOR
    from ..detect import build_detector

    offered = backend if backend in DETECTOR.names else "auto"
    return build_detector(from_flat({"detector.backend": offered}, config), specs, device)


def ratios(stats: Mapping[str, Stats]) -> dict[str, dict[str, float]]:
    """Other way -> p50 and p95 of "own stream" over its own; below 1 the second stream is the faster."""
    own = stats["own stream"]
    return {
        name: {"p50": own.p50 / other.p50, "p95": own.p95 / other.p95}
        for name, other in stats.items()
        if name in ("one after the other", "one stream")
    }


def difference(expected: Sequence[Outcome], found: Sequence[Outcome]) -> dict[str, float]:
    """Largest over the frames: of poses (mm, deg), of boxes (px) where the detections are the same, and the number of
    frames where they are not. Streams that touch each other's buffers show up here."""
    worst = {"mm": 0.0, "deg": 0.0, "px": 0.0, "frames_with_other_detections": 0.0}
    for (report, poses), (other, moved) in zip(expected, found, strict=True):
        for name, T in poses.items():
            mm, deg = pose_difference(T, moved[name])
            worst["mm"], worst["deg"] = max(worst["mm"], mm), max(worst["deg"], deg)
        a, b = (sorted(r.detections, key=_order) if r else [] for r in (report, other))
        if [d.object for d in a] != [d.object for d in b]:
            worst["frames_with_other_detections"] += 1
            continue
        for one, two in zip(a, b, strict=True):
            worst["px"] = max(worst["px"], float(np.abs(one.box - two.box).max()))
    return worst


def _order(detection: Any) -> tuple[str, float, float]:
    return detection.object, float(detection.box[0]), float(detection.box[1])


def overlap_table(found: Mapping[str, Any], title: str) -> Table:
    """avg, p50, p95 and max in ms by backend and way; the ratios are those of the own stream to each other way."""
    columns = ("backend", "detector", "way", "ms avg", "p50", "p95", "max", "own / this p50", "p95")
    table = plain_table(f"{title}: a frame with detector and tracking step", *columns, left=3)
    notes = []
    for backend, row in found.items():
        if "reason" in row:
            notes.append(f"{backend}: not available: {row['reason']}")
            continue
        for name, s in row["ways"].items():
            ratio = row["ratios"].get(name)
            shown = ("", "") if ratio is None else (f"{ratio['p50']:.2f}", f"{ratio['p95']:.2f}")
            values = (f"{s[key]:.2f}" for key in ("avg", "p50", "p95", "max"))
            table.add_row(backend, row["detector_backend"], name, *values, *shown)
        d = row["difference"]
        notes.append(
            f"{backend}: own stream differs by up to {d['mm']:.3f} mm, {d['deg']:.3f} deg, {d['px']:.2f} px; "
            f"other detections on {d['frames_with_other_detections']:.0f} of {FRAMES} frames"
        )
    table.caption = "\n".join(notes)
    table.caption_justify = "left"
    return table
