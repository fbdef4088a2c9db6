"""A subscriber as a process: notes when messages of one kind arrive, and writes that on SIGINT or SIGTERM.

``python -m rfdetr_foundationpose.node_bench.listener --kind pose --topic /pose_node/pose/mug --out arrivals.json``. Kinds:
``pose`` (PoseStamped), ``image`` (Image). ``--sleep`` makes it a slow subscriber, as a viewer over a bad network is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.qos import QoSHistoryPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from .helper_node import helper_node

KINDS: dict[str, Any] = {"pose": PoseStamped, "image": Image}


def main(arguments: Sequence[str] | None = None) -> int:
    """Listen until a signal comes, then write topic -> [[stamp ns, arrival ns], ...]; ``--out``.seen names topics heard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--topic", action="append", required=True)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--best-effort", action="store_true")
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    arrivals: dict[str, list[tuple[int, int]]] = {topic: [] for topic in options.topic}
    seen = options.out.with_suffix(".seen")

    def note(topic: str) -> Any:
        def store(message: Any) -> None:
            now = time.time_ns()
            stamp = message.header.stamp
            first = not arrivals[topic]
            arrivals[topic].append((stamp.sec * 1_000_000_000 + stamp.nanosec, now))
            if first:
                seen.write_text("\n".join(t for t, found in arrivals.items() if found))
            if options.sleep:
                time.sleep(options.sleep)

        return store

    reliability = QoSReliabilityPolicy.BEST_EFFORT if options.best_effort else QoSReliabilityPolicy.RELIABLE
    qos = QoSProfile(history=QoSHistoryPolicy.KEEP_LAST, depth=options.depth, reliability=reliability)
    with helper_node(f"bench_listener_{options.kind}") as (node, stop):
        for topic in options.topic:
            node.create_subscription(KINDS[options.kind], topic, note(topic), qos)
        while not stop.is_set():
            rclpy.spin_once(node, timeout_sec=0.2)
    options.out.write_text(json.dumps(arrivals))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
