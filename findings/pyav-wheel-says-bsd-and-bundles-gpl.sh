#!/usr/bin/env bash
# PyAV's wheel for Linux says that it is BSD, and bundles GPL libraries.
#
# Version: av 18.1.0 (cp311, x86-64).
# Behaviour: the metadata say "License-Expression: BSD-3-Clause", there is no other licence text, and the FFmpeg in the wheel calls
#   itself LGPL; but x264 and x265, which are GPL, are bundled and their encoders work. A licence scanner that reads metadata, and a
#   program that asks avcodec_license(), both pass it; who ships the wheel inside a product passes on GPL code.
#   What helps: encode VP9 or AV1, and do not redistribute the wheel.
# Output seen:
#   License-Expression: BSD-3-Clause
#   bundled: libx264-d6533a8d.so.165 libx265-f5385bb8.so.216
#   FFmpeg says: LGPL version 3 or later
#   encoders: libx264 libx265
# Exits with 1 when the metadata name the GPL, or nothing of it is bundled any more.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0
"$work/venv/bin/python" - <<'PY'
import ctypes
import sys
from importlib.metadata import metadata
from pathlib import Path

import av

info = metadata("av")
print("License-Expression:", info["License-Expression"])
site = Path(av.__file__).resolve().parents[1]
bundled = sorted(p.name for p in (site / "av.libs").iterdir() if p.name.startswith(("libx264", "libx265")))
print("bundled:", *bundled)
(library,) = (site / "av.libs").glob("libavcodec-*")
codec = ctypes.CDLL(str(library))
codec.avcodec_license.restype = ctypes.c_char_p
said = codec.avcodec_license().decode()
print("FFmpeg says:", said)
encoders = sorted({"libx264", "libx265"} & av.codec.codecs_available)
print("encoders:", *encoders)
texts = "".join(p.read_text(errors="replace") for p in (site / "av-18.1.0.dist-info" / "licenses").glob("LICENSE*"))
same = info["License-Expression"] == "BSD-3-Clause" and len(bundled) == len(encoders) == 2 and said.startswith("LGPL") and "GNU GENERAL" not in texts
sys.exit(0 if same else 1)
PY
