"""Which colour image belongs to which depth image and calibration, from the stamps of the whole recording.

Messages are told apart by their number in the topic, in the order of the files. Recorded times only decide where stamps
do not: depth may be recorded seconds after the colour image whose stamp it has.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

# So many depth images around a colour image are looked at as its partner.
_NEAR = 8
_APART = 1_000_000_000  # ns between stamps of different clocks


@dataclass(frozen=True)
class Stamped:
    """One message. number: in its topic. stamp: of its header, time: of recording; ns."""

    number: int
    stamp: int
    time: int


@dataclass(frozen=True)
class Pair:
    """A colour image, its depth image and its calibration (index in the list of calibrations).

    stamp: what the frame is stamped with; that of the colour image's header is in ``color``. ordinal: of the image among
    those with its stamp.
    """

    color: Stamped
    depth: Stamped
    calibration: int
    stamp: int
    ordinal: int = 0


@dataclass
class Plan:
    """Colour images in order of recording: a Pair, or the reason why it is none. depth_unmatched: depth images left over."""

    images: list[Pair | str] = field(default_factory=list)
    depth_unmatched: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def pairs(self) -> list[Pair]:
        return [image for image in self.images if isinstance(image, Pair)]


def make_plan(
    colors: Sequence[Stamped], depths: Sequence[Stamped], calibrations: Sequence[Stamped], slop_ns: int
) -> Plan:
    """Equal stamps first, then the nearest within ``slop_ns``; images that share a stamp by their times of recording, and so all where
    depth has the stamps of another clock."""
    plan = Plan()
    ordered = sorted(colors, key=_by_time)
    stamps = Counter(c.stamp for c in ordered)
    shared = len(ordered) - len(stamps)
    by_time = shared > 0
    if by_time:
        plan.notes.append(
            f"{shared} of {len(ordered)} colour images have the stamp of another one: frames are stamped with the time of "
            "recording; is the driver's clock running?"
        )
    partners = _match(ordered, depths, slop_ns)
    if not partners and (said := _other_clock(ordered, depths)):
        timed = [replace(image, stamp=image.time) for image in (*ordered, *depths)]
        whole = {d.number: d for d in depths}
        found = _match(timed[: len(ordered)], timed[len(ordered) :], slop_ns)
        partners = {number: whole[d.number] for number, d in found.items()}
        plan.notes += [said] if partners else []
    plan.depth_unmatched = len(depths) - len(partners)
    ordinals: Counter[int] = Counter()
    in_force = _calibrations(ordered, calibrations) if calibrations else {}
    for color in ordered:
        ordinal = ordinals[color.stamp]
        ordinals[color.stamp] += 1
        depth = partners.get(color.number)
        if depth is None:
            plan.images.append("unmatched")
        elif not calibrations:
            plan.images.append("no_camera_info")
        else:
            stamp = color.time if by_time else color.stamp
            plan.images.append(Pair(color, depth, in_force[color.number], stamp, ordinal))
    return plan


def _other_clock(colors: Sequence[Stamped], depths: Sequence[Stamped]) -> str:
    """What to say of depth whose stamps are those of another clock, or of none; "" where they are not."""
    if not colors or not depths:
        return ""
    first, last = min(d.stamp for d in depths), max(d.stamp for d in depths)
    begin, end = min(c.stamp for c in colors), max(c.stamp for c in colors)
    if max(first - end, begin - last) < _APART:
        return ""
    what = (
        "are all the same"
        if first == last and len(depths) > 1
        else f"begin {(first - begin) / 1e9:+.1f} s beside those of colour"
    )
    return (
        f"the stamps of depth {what}: images are paired by their times of recording, with the delays of the transport in them; "
        "synchronize the clocks"
    )


def _match(colors: Sequence[Stamped], depths: Sequence[Stamped], slop_ns: int) -> dict[int, Stamped]:
    """Depth image of each colour image's number."""
    found = _of_equal_stamp(colors, depths)
    used = {d.number for d in found.values()}
    free = sorted((d for d in depths if d.number not in used), key=lambda d: d.stamp)
    if slop_ns > 0 and free:
        found |= _nearest([c for c in colors if c.number not in found], free, slop_ns)
    return found


def _of_equal_stamp(colors: Sequence[Stamped], others: Sequence[Stamped]) -> dict[int, Stamped]:
    """What has the stamp of each colour image's number; where several have it, by the times of recording."""
    groups: dict[int, tuple[list[Stamped], list[Stamped]]] = defaultdict(lambda: ([], []))
    for color in sorted(colors, key=_by_time):
        groups[color.stamp][0].append(color)
    for other in sorted(others, key=_by_time):
        groups[other.stamp][1].append(other)
    return {
        left[i].number: right[j]
        for left, right in groups.values()
        for i, j in match_times([c.time for c in left], [o.time for o in right])
    }


def _by_time(message: Stamped) -> tuple[int, int]:
    return message.time, message.number


def _nearest(colors: Sequence[Stamped], depths: Sequence[Stamped], slop_ns: int) -> dict[int, Stamped]:
    """Closest pairs first, each image once. depths: sorted by stamp."""
    stamps = [d.stamp for d in depths]
    options: list[tuple[int, int, int]] = []
    for index, color in enumerate(colors):
        at = bisect_left(stamps, color.stamp)
        low = max(bisect_left(stamps, color.stamp - slop_ns), at - _NEAR)
        high = min(bisect_right(stamps, color.stamp + slop_ns), at + _NEAR)
        options += [(abs(stamps[j] - color.stamp), index, j) for j in range(low, high)]
    found: dict[int, Stamped] = {}
    used: set[int] = set()
    for _, index, j in sorted(options):
        if colors[index].number not in found and j not in used:
            found[colors[index].number] = depths[j]
            used.add(j)
    return found


def match_times(left: Sequence[int], right: Sequence[int]) -> list[tuple[int, int]]:
    """Indices of what belongs together of two ascending series: one by one where they are equally long, else mutual nearest."""
    if len(left) == len(right):
        return [(i, i) for i in range(len(left))]
    if not left or not right:
        return []
    to_right = [_closest(right, t) for t in left]
    to_left = [_closest(left, t) for t in right]
    return [(i, j) for i, j in enumerate(to_right) if to_left[j] == i]


def _closest(times: Sequence[int], time: int) -> int:
    at = bisect_left(times, time)
    return min((j for j in (at - 1, at) if 0 <= j < len(times)), key=lambda j: abs(times[j] - time))


def _calibrations(colors: Sequence[Stamped], calibrations: Sequence[Stamped]) -> dict[int, int]:
    """Index of the calibration in force at each colour image's number: of its stamp, else the last one before it, else
    the first that there is.

    Stamps decide what comes before where they move on beside those of the images, else times of recording: drivers latch
    a calibration, or leave its stamp empty.
    """
    exact = _of_equal_stamp(colors, calibrations)
    stamps = [c.stamp for c in calibrations]
    by_stamp = len(set(stamps)) == len(stamps) and any(min(stamps) <= c.stamp <= max(stamps) for c in colors)
    keyed = sorted((c.stamp if by_stamp else c.time, i) for i, c in enumerate(calibrations))
    keys = [key for key, _ in keyed]
    indices = {c.number: i for i, c in enumerate(calibrations)}
    found = {}
    for color in colors:
        same = exact.get(color.number)
        at = bisect_right(keys, color.stamp if by_stamp else color.time)
        found[color.number] = indices[same.number] if same is not None else keyed[max(at - 1, 0)][1]
    return found
