"""Names of what ``bench node`` measures, for those who measure it and those who show it. Needs no ROS."""

from __future__ import annotations

PARTS = ("dds_in", "waiting", "conversion", "processing", "publish", "dds_out")
"""Of a frame's way from the camera's stamp to the pose received."""
PROCESSING = ("upload", "depth", "launch", "gpu", "detector", "other")
"""Of its processing, in the worker's thread: the images are handed to the device; so is the depth filter; the tracking step is set up,
launched and its result read; the host waits for it; the host waits for the detector, where that runs; all the rest."""
POINTS = ("p50", "p95", "p99", "max")
"""Of the distribution over the frames."""
