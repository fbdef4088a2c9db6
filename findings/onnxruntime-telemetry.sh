#!/usr/bin/env bash
# onnxruntime phones home from a bare import on Linux, and its own switch comes too late.
#
# Versions: onnxruntime 1.32.0 from PyPI (first seen with 1.29), Python 3.11, Linux x86-64.
# Behaviour: `import onnxruntime`, without a session or a model, writes a device id and an event store under
#   $XDG_CACHE_HOME/Microsoft/DeveloperTools/.onnxruntime/; about nine seconds later the process looks up
#   mobile.events.data.microsoft.com (seen with strace -f -e trace=network; not part of this script).
#   onnxruntime.disable_telemetry_events() right after the import leaves both. ORT_DISABLE_TELEMETRY=1 in the environment
#   before the import prevents both. Expected: nothing is written or sent unless it was agreed to, or the documented call
#   to switch it off does.
# Output seen:
#   import alone: deviceid onnxruntime.db
#   disable_telemetry_events() after the import: deviceid onnxruntime.db
#   ORT_DISABLE_TELEMETRY=1: nothing
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet onnxruntime==1.32.0 'numpy>=2.4,<2.5'

made() { # the files that a script makes in a cache folder of its own
  rm -rf "$work/cache" && mkdir "$work/cache"
  XDG_CACHE_HOME=$work/cache HOME=$work "$work/venv/bin/python" -c "$1" 2>/dev/null
  found=$(find "$work/cache" -type f -path '*Microsoft*' -printf '%f\n' | sort | tr '\n' ' ')
  echo "${found:-nothing }" | sed 's/ $//'
}

unset ORT_DISABLE_TELEMETRY || true
alone=$(made 'import onnxruntime')
late=$(made 'import onnxruntime; onnxruntime.disable_telemetry_events()')
early=$(ORT_DISABLE_TELEMETRY=1 made 'import onnxruntime')
echo "import alone: $alone"
echo "disable_telemetry_events() after the import: $late"
echo "ORT_DISABLE_TELEMETRY=1: $early"
[ "$alone" = "deviceid onnxruntime.db" ] && [ "$late" = "$alone" ] && [ "$early" = nothing ]
