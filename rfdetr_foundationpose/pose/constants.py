"""Constants of the released FoundationPose configuration, by network role."""

from __future__ import annotations

CROP_RATIO = {"refiner": 1.2, "scorer": 1.1}
MIN_Z = {"refiner": 0.001, "scorer": 0.1}
ROT_NORMALIZER = 0.349065850398865
