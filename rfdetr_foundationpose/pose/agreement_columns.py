"""Names of the columns in which kernels and Python hand each other how a rendered view agrees with the image.

Plain numbers: Warp's kernels read them as constants. No torch, no Warp.
"""

from __future__ import annotations

# These are sums over the pixels of a view, (N, SHAPE_SUMS) or (N, ALL_SUMS): see agreement_kernels.agreement.
SUM_MODEL = 0
SUM_AGREE = 1
SUM_OCCLUDED = 2
SUM_VIOLATED = 3
SUM_RESIDUAL = 4
SUM_COLOR = 5
SHAPE_SUMS = 6
"""The first sums are of what agrees in depth and colour; ``describe`` alone wants the others."""
SUM_RENDERED_TEXTURE = 6
"""The rendered chromaticity has three columns, of which this is the first."""
SUM_OBSERVED_TEXTURE = 9
"""The observed chromaticity has three columns, of which this is the first."""
SUM_RENDERED_SQUARED = 12
SUM_OBSERVED_SQUARED = 13
SUM_PRODUCT = 14
SUM_FREE_SPACE_VIOLATION = 15
SUM_OCCUPANCY = 16
ALL_SUMS = 17

# Sums over the pixels of a view and the mask of the object, (N, SILHOUETTE_SUMS): see agreement_kernels.silhouette.
SUM_INSIDE = 0
SUM_OUTSIDE = 1
SILHOUETTE_SUMS = 2

FEATURES = (
    "visible",
    "violated",
    "missing",
    "residual",
    "color",
    "step",
    "turn",
    "texture_agreement",
    "texture_missing",
    "free_space_violation",
    "occupancy",
)
"""The confidence is computed from these, in the order of a row's columns; agreement_kernels.describe explains each."""

# A result row, (N, RESULT_COLUMNS): the pose, then pixels of the model in view, then the features.
POSE = slice(0, 16)
"""These columns hold T_cam_center (4, 4), row by row."""
MODEL_PIXELS = 16
DESCRIBED = slice(MODEL_PIXELS + 1, MODEL_PIXELS + 1 + len(FEATURES))
"""These columns hold FEATURES."""
RESULT_COLUMNS = DESCRIBED.stop

ROW_VISIBLE, ROW_VIOLATED, ROW_MISSING, ROW_RESIDUAL, ROW_COLOR, ROW_STEP, ROW_TURN = range(17, 24)
ROW_TEXTURE_AGREEMENT, ROW_TEXTURE_MISSING, ROW_FREE_SPACE_VIOLATION, ROW_OCCUPANCY = range(24, 28)
