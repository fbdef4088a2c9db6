#!/usr/bin/env bash
# "pip install open3d" succeeds on a machine without libusb, and then "import open3d" fails: the wheel links the RealSense
# driver's libusb-1.0 and neither bundles nor declares it. So a TSDF fusion without any USB camera needs a system package.
# Seen with open3d 0.20.0 (cp311, x86_64) on Debian 12: libusb-1.0.so.0 is among the libraries that its extension module needs
# and is not in the wheel. Exits with 1 when it is bundled or no longer needed. (Downloads 170 MB and installs nothing of it.)
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
