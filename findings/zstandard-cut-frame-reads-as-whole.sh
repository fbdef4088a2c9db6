#!/usr/bin/env bash
# zstandard's streaming readers take a .zst file that is cut off for a whole one.
#
# Version: zstandard 0.25.0, Python 3.11.
# Behaviour: open().read(), stream_reader and copy_stream give what they could decompress and end as at the end of a file.
#   decompress() of the same bytes raises ZstdError, the zstd program says "premature end", and gzip, bz2 and lzma of the standard
#   library raise EOFError in the same place. A half-copied recording in rosbag2's file compression is such a file.
#   What helps: decompressobj().eof is False after the last bytes.
# Output seen (of 1000000 bytes, the last fifth cut off):
#   open: 800003 bytes
#   stream_reader: 800003 bytes
#   copy_stream: 800003 bytes
#   decompress: ZstdError
#   decompressobj().eof: False
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zstandard==0.25.0
cat > "$folder/read.py" <<'PYTHON'
import io, random
import zstandard

whole = random.Random(0).randbytes(1_000_000)
cut = zstandard.ZstdCompressor().compress(whole)[:-200_000]

def told(read):
    try:
        return f"{len(read())} bytes"
    except Exception as error:
        return type(error).__name__

def copied():
    out = io.BytesIO()
    zstandard.ZstdDecompressor().copy_stream(io.BytesIO(cut), out)
    return out.getvalue()

print("open:", told(lambda: zstandard.open(io.BytesIO(cut), "rb").read()))
print("stream_reader:", told(lambda: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(cut)).read()))
print("copy_stream:", told(copied))
print("decompress:", told(lambda: zstandard.ZstdDecompressor().decompress(cut)))
unpack = zstandard.ZstdDecompressor().decompressobj()
unpack.decompress(cut)
print("decompressobj().eof:", unpack.eof)
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py")
echo "of 1000000 bytes, the last fifth cut off:"
echo "$said"
[ "$said" = "open: 800003 bytes
stream_reader: 800003 bytes
copy_stream: 800003 bytes
decompress: ZstdError
decompressobj().eof: False" ]
