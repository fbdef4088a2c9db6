#!/usr/bin/env bash
# rosbags reads no message of a topic whose QoS in metadata.yaml was edited, and says nothing.
#
# Version: rosbags 0.11.9, Python 3.11, with MCAP and with sqlite3.
# Behaviour: where the QoS in metadata.yaml is not, word for word, that of the storage file, the topic is listed with its count, no
#   error is raised, and messages() ends at once. People edit it to make `ros2 bag play` offer transient_local; ros2 bag reads such
#   a recording. DirectoryReader.messages() pairs the connections of metadata.yaml with those of the file by comparing QoS too; a
#   reader opened on the storage file itself reads everything.
# Output seen, as (listed, read) messages:
#   mcap: as recorded (10, 10), QoS edited (10, 0), the file itself (10, 10)
#   db3: as recorded (10, 10), QoS edited (10, 0), the file itself (10, 10)
# Exits with 1 when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet rosbags==0.11.9
cat > "$folder/read.py" <<'PYTHON'
import sys
from pathlib import Path
from rosbags.highlevel import AnyReader
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

store = get_typestore(Stores.ROS2_HUMBLE)
text = store.types["std_msgs/msg/String"]
never = QosTime(9223372036, 854775807)
qos = Qos(QosHistory.KEEP_LAST, 5, QosReliability.RELIABLE, QosDurability.VOLATILE, never, never,
          QosLiveliness.AUTOMATIC, never, False)

def read(path):
    with AnyReader([path], default_typestore=store) as reader:
        return sum(t.msgcount for t in reader.topics.values()), sum(1 for _ in reader.messages())

for plugin, suffix in ((StoragePlugin.MCAP, "mcap"), (StoragePlugin.SQLITE3, "db3")):
    bag = Path(sys.argv[1], suffix)
    with Writer(bag, version=9, storage_plugin=plugin) as writer:
        topic = writer.add_connection("/text", text.__msgtype__, typestore=store, offered_qos_profiles=[qos])
        for i in range(10):
            writer.write(topic, i, store.serialize_cdr(text("hello"), text.__msgtype__))
    as_recorded = read(bag)
    metadata = bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("durability: volatile", "durability: transient_local"))
    print(f"{suffix}: as recorded {as_recorded}, QoS edited {read(bag)}, the file itself {read(bag / f'{suffix}.{suffix}')}")
PYTHON
said=$("$folder/venv/bin/python" "$folder/read.py" "$folder")
echo "listed and read messages. $said"
[ "$said" = "mcap: as recorded (10, 10), QoS edited (10, 0), the file itself (10, 10)
db3: as recorded (10, 10), QoS edited (10, 0), the file itself (10, 10)" ]
