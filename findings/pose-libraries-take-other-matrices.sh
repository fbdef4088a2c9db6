#!/usr/bin/env bash
# One pose of a network for four libraries: spatialmath refuses float32, Pinocchio takes a mirror and a scale, scipy drops the scale.
#
# Versions: spatialmath-python 1.1.18, pytransform3d 3.17.0, pin 4.1.0, scipy 1.17.1, numpy 2.4.6, Python 3.11.
# Behaviour: poses come as 4x4 matrices of float32 (networks), with six digits (BOP's JSON), scaled (mesh units left in them) or mirrored (a
#   left-handed camera). spatialmath's SE3 takes float64 alone and says "bad argument to constructor" to all others, rounding included.
#   pytransform3d takes what is a rotation to 1e-6 and names the rest. Pinocchio's SE3 takes all, and its inverse of a scaled matrix is
#   none; scipy's Rotation makes a scaled matrix a rotation without a word. Expected: one answer to each, with the reason.
# Output seen (taken / refused; scipy: largest change):
#   float64: spatialmath taken, pytransform3d taken, pinocchio taken, scipy 0.00
#   float32: spatialmath refused, pytransform3d taken, pinocchio taken, scipy 0.00
#   six digits: spatialmath refused, pytransform3d taken, pinocchio taken, scipy 0.00
#   twice as large: spatialmath refused, pytransform3d refused, pinocchio taken, scipy 0.89
#   mirrored: spatialmath refused, pytransform3d refused, pinocchio taken, scipy refused
#   pinocchio: a scaled pose times its inverse is off by 3
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet spatialmath-python==1.1.18 pytransform3d==3.17.0 pin==4.1.0 scipy==1.17.1 numpy==2.4.6

cat > "$work/look.py" <<'EOF'
import numpy as np
import pinocchio
import spatialmath
from pytransform3d.transformations import check_transform
from scipy.spatial.transform import Rotation

pose = np.eye(4)
pose[:3, :3] = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix()
pose[:3, 3] = 0.1, -0.2, 0.8
matrices = {
    "float64": pose,
    "float32": pose.astype(np.float32),
    "six digits": pose.round(6),
    "twice as large": pose @ np.diag([2.0, 2, 2, 1]),
    "mirrored": pose @ np.diag([1.0, 1, -1, 1]),
}


def taken(call):
    try:
        call()
        return "taken"
    except ValueError:
        return "refused"


def turned(matrix):
    try:
        return f"{np.abs(Rotation.from_matrix(matrix[:3, :3]).as_matrix() - matrix[:3, :3]).max():.2f}"
    except ValueError:
        return "refused"


for name, matrix in matrices.items():
    print(
        f"{name}: spatialmath {taken(lambda m=matrix: spatialmath.SE3(m))}, pytransform3d {taken(lambda m=matrix: check_transform(m))}, "
        f"pinocchio {taken(lambda m=matrix: pinocchio.SE3(m.astype(np.float64)))}, scipy {turned(matrix)}"
    )
scaled = pinocchio.SE3(matrices["twice as large"])
error = np.abs((scaled * scaled.inverse()).homogeneous - np.eye(4)).max()
print(f"pinocchio: a scaled pose times its inverse is off by {error:.0f}")
EOF
seen=$("$work/venv/bin/python" "$work/look.py" 2> /dev/null)
echo "$seen"
[ "$seen" = "float64: spatialmath taken, pytransform3d taken, pinocchio taken, scipy 0.00
float32: spatialmath refused, pytransform3d taken, pinocchio taken, scipy 0.00
six digits: spatialmath refused, pytransform3d taken, pinocchio taken, scipy 0.00
twice as large: spatialmath refused, pytransform3d refused, pinocchio taken, scipy 0.89
mirrored: spatialmath refused, pytransform3d refused, pinocchio taken, scipy refused
pinocchio: a scaled pose times its inverse is off by 3" ]
