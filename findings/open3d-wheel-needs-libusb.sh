#!/usr/bin/env bash
# "pip install open3d" succeeds on a machine without libusb, and then "import open3d" fails.
#
# Version: open3d 0.20.0 (cp311, manylinux x86-64), on Debian 12.
# Behaviour: the wheel links the RealSense driver's libusb-1.0 and neither bundles nor declares it, so that a TSDF fusion without
#   any USB camera needs a system package: libusb-1.0.so.0 is among the libraries that the extension modules need, and is not in
#   the wheel. The script downloads the wheel (170 MB) and looks into it; it installs nothing.
# Output seen: "needed by:" with the wheel's extension modules, then "bundled: no".
# Exits with 1 when libusb is bundled or no longer needed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
  --platform manylinux_2_35_x86_64 -d "$work" open3d==0.20.0
python3 - "$work"/open3d-*.whl <<'PY'
import io
import sys
import zipfile

wheel = zipfile.ZipFile(sys.argv[1])
names = wheel.namelist()
bundled = [n for n in names if "libusb-1.0" in n.rsplit("/", 1)[-1]]
needing = []
for name in names:
    if ".so" in name.rsplit("/", 1)[-1] and b"libusb-1.0.so.0\0" in wheel.read(name):
        needing.append(name)
print("needed by:", *needing)
print("bundled:", bundled or "no")
sys.exit(0 if needing and not bundled else 1)
PY
