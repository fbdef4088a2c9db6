"""What the node's health means: DiagnosticStatus with levels that mean something."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from .health import Health
from .inputs import NAMELESS
from .worker import Tally

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# A camera is stalled after this many of its periods, and never sooner than STALL_SECONDS.
STALL_PERIODS = 5
STALL_SECONDS = 1.0
# Images get lost when so large a share of them is missing, among at least this many.
LOST_SHARE = 0.2
LOST_OF = 5
# The node falls behind when newer frames replace a larger share of its frames than this.
BEHIND_SHARE = 0.1
# A frame that takes longer than this (s) is reported while it is under way.
SLOW_SECONDS = 2.0
# Ages and tf are wrong when the clocks of camera and node differ by more than this (s).
CLOCK_SKEW = 0.1

# These errors are the node's own and cost no frame.
OWN_ERRORS = ("callback_error", "early_upload_error", "telemetry_image", "telemetry_latency", "telemetry_diagnostics")


class Diagnostics:
    """Turns Health into statuses; keeps the last Health's counters, because only what is new is a reason to worry."""

    def __init__(self) -> None:
        self._tally = Tally(0, 0, 0, {})
        self._images: dict[str, int] = {}
        self._counters: dict[str, int] = {}
        self._error_counts: dict[str, int] = {}
        self._tracked_once: set[str] = set()

    def __call__(self, health: Health) -> list[DiagnosticStatus]:
        made = [self._input(health), self._processing(health), self._objects(health), self._backend(health)]
        self._tally = health.tally
        self._images = dict(health.images)
        self._error_counts = dict(health.error_counts)
        self._counters = dict(health.status.counters) if health.status is not None else {}
        return made

    def _input(self, h: Health) -> DiagnosticStatus:
        said: list[tuple[bytes, str]] = []
        if h.state == "active":
            said += self._stream(h)
            for kind, count in self._new_drops(h).items():
                if kind in ("replaced", "disabled", "deactivated", "pipeline_error"):
                    continue
                detail = h.errors.get(kind, "")
                said.append((WARN, f"{count} frames dropped ({kind})" + (f": {detail}" if detail else "")))
            if h.depth_frame:
                said.append(
                    (
                        WARN,
                        f"depth is in frame {h.depth_frame}, colour in {h.hardware_id}, and is taken for registered to colour; where it is "
                        "not, poses are wrong: use the driver's registered topic, or depth_image_proc's register_node (docs/ros.md)",
                    )
                )
            if h.nameless:
                said.append((WARN, NAMELESS))
            if h.conflict and self._new(h, "other_camera_info") > 0:
                said.append((WARN, h.conflict))
            if h.distortion:
                said.append((WARN, h.distortion))
            if h.waiting_for_clock:
                said.append((ERROR, "use_sim_time is set, but no /clock arrives"))
            elif h.age is not None and h.age < -CLOCK_SKEW:
                said.append((WARN, f"stamps are {-h.age:.2f} s in the future: synchronize the clocks (chrony, ptp)"))
        values = {"rate_hz": f"{h.rate:.2f}", "age_s": "" if h.age is None else f"{h.age:.4f}"}
        values |= {f"images_{k}" if k in ("rgb", "depth") else k: str(v) for k, v in h.images.items()}
        values |= {
            "distorted": str(h.distorted),
            "transport": h.transport,
            "sync": h.sync,
            "reliability": h.reliability,
        }
        return _status(h, "input", said, f"{h.rate:.1f} Hz" if h.state == "active" else h.state, values)

    def _stream(self, h: Health) -> list[tuple[bytes, str]]:
        waited = h.since if h.silence is None else h.silence
        limit = max(STALL_SECONDS, STALL_PERIODS / h.rate if h.rate else 0.0)
        if waited > limit:
            return [(ERROR, f"input stalled: no image pair for {waited:.1f} s; {self._why_no_pair(h)}")]
        if h.silence is None:
            return []
        said = []
        lost = self._lost(h)
        if lost:
            said.append((WARN, lost))
        if not h.has_camera:
            said.append((ERROR, "waiting for rgb/camera_info; frames are dropped until it comes"))
        if 0 < h.rate < h.min_rate:
            said.append(
                (WARN, f"input rate low: {h.rate:.1f} Hz, expected at least {h.min_rate:g} Hz (debug.min_input_rate)")
            )
        return said

    def _new(self, h: Health, name: str) -> int:
        return h.images.get(name, 0) - self._images.get(name, 0)

    def _lost(self, h: Health) -> str:
        """Images that get lost on the way. Of small messages as camera_info, one for each image, hardly any is lost."""
        sent = self._new(h, "camera_info")
        came = {name: self._new(h, name) for name in ("rgb", "depth")}
        # The camera_info of an image that comes after this report may have come before it.
        if sent < LOST_OF or sent - min(came.values()) < max(2, LOST_SHARE * sent):
            return ""
        counts = " and ".join(f"{count} {name}" for name, count in came.items())
        return f"images get lost on the way ({h.reliability}): {counts} images to {sent} camera_info; {h.remedy}"

    def _why_no_pair(self, h: Health) -> str:
        lost = self._lost(h)
        if lost:
            return lost
        silent = [name for name in ("rgb", "depth") if self._new(h, name) == 0]
        if len(silent) == 2:
            return "neither rgb nor depth arrives: is the camera running, are the topics remapped, do the QoS reliabilities match?"
        if silent:
            return f"{silent[0]} does not arrive: check its topic and QoS"
        hint = "input.sync:=approximate" if h.sync == "exact" else "a larger input.sync_slop"
        return f"both arrive, but their stamps do not match: try {hint}"

    def _processing(self, h: Health) -> DiagnosticStatus:
        said: list[tuple[bytes, str]] = []
        drops = self._new_drops(h)
        received = h.tally.received - self._tally.received
        processed = h.tally.processed - self._tally.processed
        if not h.enabled:
            said.append((OK, "disabled by ~/set_enabled"))
        if drops.get("pipeline_error"):
            said.append((ERROR, f"{drops['pipeline_error']} frames failed: {h.errors.get('pipeline_error', '')}"))
        for kind in OWN_ERRORS:
            count = h.error_counts.get(kind, 0) - self._error_counts.get(kind, 0)
            if count > 0:
                said.append((WARN, f"{count} x {kind}: {h.errors.get(kind, '')}"))
        if h.busy_for > SLOW_SECONDS:
            said.append((WARN, f"falling behind: one frame has taken {h.busy_for:.1f} s so far"))
        elif received and drops.get("replaced", 0) / received > BEHIND_SHARE:
            said.append((WARN, f"falling behind: {processed} of {received} new frames processed, the newest first"))
        t = h.tally
        values = {"rate_hz": f"{h.processed_rate:.2f}"}
        values |= {"received": str(t.received), "processed": str(t.processed), "in_flight": str(t.in_flight)}
        values["newest_stamp_ns"] = str(t.newest_ns)
        values |= {f"dropped_{k}": str(v) for k, v in sorted(t.dropped.items())}
        values["debug_frames_dropped"] = str(h.debug_dropped)
        for stage, s in h.latency.items():
            values[f"{stage}_ms_p50_p95_max"] = f"{s.p50:.2f} {s.p95:.2f} {s.max:.2f}"
        total = h.latency.get("end_to_end")
        summary = f"end to end p50 {total.p50:.1f} ms, p95 {total.p95:.1f} ms" if total else "no frame processed yet"
        return _status(h, "processing", said, summary, values)

    def _objects(self, h: Health) -> DiagnosticStatus:
        said: list[tuple[bytes, str]] = []
        values: dict[str, str] = {}
        status = h.status
        if status is not None:
            self._tracked_once |= {n for n, s in status.states.items() if s == "tracking"}
            if h.state == "active" and h.enabled:
                said += [(WARN, self._untracked(n, h)) for n, s in status.states.items() if s != "tracking"]
            newly_lost = status.counters.get("lost", 0) - self._counters.get("lost", 0)
            if newly_lost > 0:
                said.append((WARN, f"{newly_lost} lost since the last report"))
            values = {**status.states, **{k: str(v) for k, v in sorted(status.counters.items())}}
        tracked = 0 if status is None else sum(s == "tracking" for s in status.states.values())
        return _status(h, "objects", said, f"{tracked} tracked", values)

    def _untracked(self, name: str, h: Health) -> str:
        assert h.status is not None
        if h.status.states[name] == "uncertain":
            return f"{name}: uncertain, its pose is held back and it is searched near where it was"
        best, threshold = h.status.best_below.get(name), h.thresholds.get(name)
        known = ""
        if best is not None:
            below = "" if threshold is None else f" below the threshold {threshold:.2f}"
            known = f", best score {best:.2f}{below}"
        if h.status.states[name] == "lost" or name in self._tracked_once:
            return f"{name}: lost, searched again{known}"
        return f"{name}: no detection{known}"

    def _backend(self, h: Health) -> DiagnosticStatus:
        said: list[tuple[bytes, str]] = []
        if h.failure:
            said.append((ERROR, f"not running: {h.failure}"))
        values = {"lifecycle": h.state}
        s = h.status
        if s is not None:
            said += [(WARN, f"backend degraded: {reason}") for reason in s.degraded]
            values |= {
                "device": s.device,
                "gpu_memory_mib": f"{s.gpu_memory_bytes / 2**20:.1f}",
                "detector_source": s.detector_source,
                "detector_backend": s.detector_backend,
                "detector_weights": s.detector_weights,
                "pose_backend": s.pose_backend,
                "pose_library": s.pose_library,
                "pose_weights": s.pose_weights,
            }
        values |= {f"missing_{i}": sentence for i, sentence in enumerate(h.missing)}
        summary = (
            h.state if s is None else f"{s.detector_source} {s.detector_backend} + pose {s.pose_backend} on {s.device}"
        )
        return _status(h, "backend", said, summary, values)

    def _new_drops(self, h: Health) -> dict[str, int]:
        new = {k: v - self._tally.dropped.get(k, 0) for k, v in h.tally.dropped.items()}
        return {k: v for k, v in new.items() if v > 0}


def _status(
    h: Health, name: str, said: list[tuple[bytes, str]], summary: str, values: Mapping[str, str]
) -> DiagnosticStatus:
    level = max((level for level, _ in said), default=OK)
    message = "; ".join(sentence for _, sentence in said) or summary
    return DiagnosticStatus(
        level=level,
        name=f"{h.node}: {name}",
        message=message,
        hardware_id=h.hardware_id or h.node,
        values=[KeyValue(key=k, value=v) for k, v in values.items()],
    )
