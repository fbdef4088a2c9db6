#!/usr/bin/env bash
# OpenCV counts frames of a trimmed video that it does not read; decord gives the last frame again in the place of each of them.
#
# Versions: opencv-python-headless 5.0.0.93, decord 0.6.0, av 18.1.0, numpy 2.4, Python 3.11.
# Behaviour: a phone that trims a video without encoding it anew leaves the frames that were cut off in the file, behind an edit list.
#   Of ten frames, three of them hidden, all three libraries show the frames 3 to 9. CAP_PROP_FRAME_COUNT of OpenCV and PyAV's
#   stream.frames say 10. len() of decord's VideoReader says 10, and its last three are frame 9 again, without a word: depth images that
#   are numbered like the ten frames pair with other ones by index in each library. Expected: counts of what can be read, and an error
#   beyond it.
# Output seen:
#   OpenCV: count 10, frames 3 4 5 6 7 8 9
#   PyAV: count 10, frames 3 4 5 6 7 8 9
#   decord: count 10, frames 3 4 5 6 7 8 9 9 9 9
# Exits with 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet opencv-python-headless==5.0.0.93 decord==0.6.0 av==18.1.0 'numpy>=2.4,<2.5'

cat > "$work/look.py" <<'EOF'
import sys

import av
import cv2
import decord
import numpy as np

whole, cut = (f"{sys.argv[1]}/{name}.mp4" for name in ("whole", "cut"))
with av.open(whole, "w") as file:
    stream = file.add_stream("mpeg4", rate=30, options={"g": "30", "sc_threshold": "1000000000"})
    stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 128, 96, "yuv420p", 4_000_000
    for i in range(10):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((96, 128, 3), 20 + 20 * i, np.uint8))))
    file.mux(stream.encode())
# Copied without encoding, begun three frames earlier than time 0: the muxer writes an edit list.
with av.open(whole) as file, av.open(cut, "w") as copy:
    out = copy.add_stream_from_template(file.streams.video[0])
    for packet in [p for p in file.demux(video=0) if p.size]:
        packet.pts, packet.dts = (stamp - 3 * packet.duration for stamp in (packet.pts, packet.dts))
        packet.stream = out
        copy.mux(packet)


def told(name, count, pictures):
    print(f"{name}: count {count}, frames {' '.join(str(round((float(p.mean()) - 20) / 20)) for p in pictures)}")


capture, pictures = cv2.VideoCapture(cut), []
while (found := capture.read())[0]:
    pictures.append(found[1])
told("OpenCV", round(capture.get(cv2.CAP_PROP_FRAME_COUNT)), pictures)
with av.open(cut) as file:
    told("PyAV", file.streams.video[0].frames, [f.to_ndarray(format="rgb24") for f in file.decode(video=0)])
reader = decord.VideoReader(cut)
told("decord", len(reader), [reader[i].asnumpy() for i in range(len(reader))])
EOF
seen=$("$work/venv/bin/python" "$work/look.py" "$work" 2> /dev/null)
echo "$seen"
[ "$seen" = "OpenCV: count 10, frames 3 4 5 6 7 8 9
PyAV: count 10, frames 3 4 5 6 7 8 9
decord: count 10, frames 3 4 5 6 7 8 9 9 9 9" ]
