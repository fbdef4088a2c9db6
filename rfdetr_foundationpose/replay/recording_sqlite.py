"""rosbag2's sqlite3 files (.db3), whole or damaged: row by row, past those that cannot be read."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from .recording_storage import ZSTD_MAGIC, Message, Reading, RecordingError, Topic, decompress, readable_size

MAGIC = b"SQLite format 3\0"
# So far beyond a row that cannot be read the next one is looked for, where nothing says how many there are.
_REACH = 100_000


class SqliteFile:
    """See ``recording_storage.Storage``. Raises RecordingError for a file without rosbag2's tables.

    A write-ahead log beside the file (a recorder that was killed) is read too, from copies in a temporary folder: sqlite
    would write beside the user's file otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: list[str] = []
        self.custom: dict[str, str] = {}
        self.remedy = f"repair it by: sqlite3 {path.name} .recover | sqlite3 repaired.db3, then ros2 bag reindex"
        self._uri = f"file:{quote(str(path))}?mode=ro&immutable=1"
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        log = path.with_name(path.name + "-wal")
        if log.is_file() and log.stat().st_size > 0:
            self._copies = tempfile.TemporaryDirectory(prefix="recording_")
            copy = Path(self._copies.name, "copy.db3")
            shutil.copyfile(path, copy)
            shutil.copyfile(log, copy.with_name("copy.db3-wal"))
            self._uri = f"file:{quote(str(copy))}"
            self.notes.append("messages in its write-ahead log are read too: the recorder did not close it")
        self._names: dict[int, str] = {}
        self.topics: dict[str, Topic] = {}
        with closing(self._connect()) as db:
            try:
                listed = db.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
                self._packed = self._are_packed(db)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                raise RecordingError(
                    f"{path}: no topic can be read from this sqlite3 file of {readable_size(path.stat().st_size)} "
                    f"({error}); copy it again, or {self.remedy}"
                ) from error
            for key, name, kind, encoding in listed:
                if not (isinstance(key, int) and isinstance(name, str) and isinstance(kind, str)):
                    continue
                self._names[key] = name
                self.topics.setdefault(name, Topic(kind, str(encoding or "cdr"), 0))
            self._count(db)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._uri, uri=True)
        # Else sqlite refuses a file that is shorter than it says; nothing is written.
        db.execute("PRAGMA writable_schema=ON")
        return db

    def _are_packed(self, db: sqlite3.Connection) -> bool:
        """Whether each message is compressed by itself (rosbag2's compression mode "message")."""
        try:
            first = db.execute("SELECT substr(data, 1, 4) FROM messages LIMIT 1").fetchone()
        except sqlite3.DatabaseError as error:
            if "no such" in str(error):
                raise
            return False
        return first is not None and first[0] == ZSTD_MAGIC

    def _count(self, db: sqlite3.Connection) -> None:
        try:
            for key, count in db.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"):
                if key in self._names:
                    topic = self.topics[self._names[key]]
                    topic.count = (topic.count or 0) + int(count)
        except sqlite3.DatabaseError:
            for topic in self.topics.values():
                topic.count = None
            self.notes.append("it is cut off or damaged")

    def messages(self, topics: Collection[str], head: int | None, reading: Reading) -> Iterator[Message]:
        wanted = {key: name for key, name in self._names.items() if name in topics}
        data = "data" if head is None or self._packed else f"substr(data, 1, {int(head)})"
        chosen = ",".join(str(key) for key in wanted)
        select = f"SELECT id, topic_id, timestamp, {data} FROM messages WHERE topic_id IN ({chosen}) AND id"
        with closing(self._connect()) as db:
            for _, key, time, content in self._rows(db, select, reading):
                reading.seen[wanted[key]] += 1
                if self._packed and content[:4] == ZSTD_MAGIC:
                    content, why = decompress(content, "zstd")
                    if why:
                        reading.damage.append(f"a message of {wanted[key]} is damaged ({why})")
                yield Message(wanted[key], int(time), bytes(content))

    def _rows(self, db: sqlite3.Connection, select: str, reading: Reading) -> Iterator[tuple[int, int, int, bytes]]:
        last = -1
        limit: int | None = None
        while True:
            try:
                for row in db.execute(f"{select} > ? ORDER BY id", (last,)):
                    last = row[0]
                    if isinstance(row[3], bytes) and isinstance(row[2], int):
                        yield row
                return
            except sqlite3.DatabaseError as error:
                if limit is None:
                    limit = self._highest(db, last)
                    reading.damage.append(f"rows after {last} are damaged ({error})")
            row, last = self._next(db, select, last, limit)
            if row is None:
                return
            yield row

    def _next(
        self, db: sqlite3.Connection, select: str, last: int, limit: int
    ) -> tuple[tuple[int, int, int, bytes] | None, int]:
        """The first readable row behind ``last``, looked for one by one, and where the search stands."""
        for key in range(last + 1, limit + 1):
            try:
                row = db.execute(f"{select} = ?", (key,)).fetchone()
            except sqlite3.DatabaseError:
                continue
            if row is not None and isinstance(row[3], bytes) and isinstance(row[2], int):
                return row, key
        return None, limit

    def _highest(self, db: sqlite3.Connection, last: int) -> int:
        try:
            (highest,) = db.execute("SELECT max(id) FROM messages").fetchone()
            return min(int(highest), last + 100 * _REACH)
        except (sqlite3.DatabaseError, TypeError):
            return last + _REACH
