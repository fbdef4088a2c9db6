#!/usr/bin/env bash
# SQLite reads no row of a database file that was cut off, and after PRAGMA writable_schema=ON all rows that are whole.
#
# Version: apsw 3.50.4.0 (SQLite 3.50.4), Python 3.11; a table of 100 rows of 20 kB, the file cut at 60 %, as a full disk leaves it.
# Behaviour: every query on a file that is shorter than its header says is refused ("database disk image is malformed"), also for
#   rows whose pages are all there, and although it is opened read-only. After the pragma the same connection reads those rows,
#   and fails only at rows whose pages are missing. Nothing is written; what the pragma is said to be for (editing sqlite_schema,
#   tolerating a schema that cannot be parsed) does not suggest it.
# Output seen:
#   rows read of 100: as opened 0, with writable_schema 59
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet apsw==3.50.4.0
cat > "$folder/read.py" <<'PYTHON'
import os, sys
from pathlib import Path
import apsw

whole, cut = Path(sys.argv[1], "whole.db"), Path(sys.argv[1], "cut.db")
db = apsw.Connection(str(whole))
db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, data BLOB)")
for i in range(100):
    db.execute("INSERT INTO messages VALUES (?, ?)", (i, os.urandom(20_000)))
db.close()
cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])

def readable(pragma=""):
    db = apsw.Connection(f"file:{cut}?immutable=1", flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
    if pragma:
        db.execute(pragma)
    rows = 0
    for i in range(100):
        try:
            rows += len(list(db.execute("SELECT data FROM messages WHERE id = ?", (i,))))
        except apsw.CorruptError:
            pass
    return rows

print(f"as opened {readable()}, with writable_schema {readable('PRAGMA writable_schema=ON')}")
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py" "$folder")
echo "rows read of 100: $said"
[ "$said" = "as opened 0, with writable_schema 59" ]
