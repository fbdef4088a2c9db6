#!/usr/bin/env bash
# rosbags does not read the write-ahead log of a sqlite3 recording.
#
# Versions: rosbags 0.11.9, Python 3.11, SQLite 3.40.
# Behaviour: what the recorder had committed to bag.db3-wal and not yet moved to bag.db3 is missing, without an error: rosbags opens
#   the file with immutable=1, by which SQLite ignores the log. sqlite3 on the same two files counts everything. rosbag2's storage
#   preset "resilient" (journal_mode=WAL) leaves such a pair when the recorder is killed, and a copy of a recording that is still
#   running is one.
# Output seen:
#   messages read of 10: rosbags 3, sqlite3 10
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9
cat > "$folder/read.py" <<'PYTHON'
import os, shutil, sqlite3, subprocess, sys
from pathlib import Path
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
text = store.types["std_msgs/msg/String"]
data = bytes(store.serialize_cdr(text("hello"), text.__msgtype__))
folder = Path(sys.argv[1])
with Writer(folder / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
    topic = writer.add_connection("/text", text.__msgtype__, typestore=store)
    for i in range(3):
        writer.write(topic, i, data)
file = folder / "bag" / "bag.db3"
if os.fork() == 0:  # a recorder that is killed: committed, but never closed
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode=WAL")
    for i in range(3, 10):
        db.execute("INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)", (i, data))
    db.commit()
    os._exit(0)
os.wait()
with Reader(file) as reader:
    by_rosbags = sum(1 for _ in reader.messages())
copy = shutil.copytree(folder / "bag", folder / "copy")
print(f"rosbags {by_rosbags}, sqlite3", sqlite3.connect(copy / "bag.db3").execute("SELECT count(*) FROM messages").fetchone()[0])
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py" "$folder")
echo "messages read of 10: $said"
[ "$said" = "rosbags 3, sqlite3 10" ]
