"""Who may import whom: docs/architecture.md's table, held against every import of the package.

All imports count: at the top of a module, inside of functions, and under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import rfdetr_foundationpose

PACKAGE = "rfdetr_foundationpose"
ROOT = Path(rfdetr_foundationpose.__file__).parent
TABLE = ROOT.parent / "docs" / "architecture.md"
EVERYWHERE = {"numpy", "scipy"}
ROS_MESSAGES = re.compile(r"\w+_(msgs|interfaces|srvs)")
LARGEST_SHARE = 0.15


@dataclass(frozen=True)
class Room:
    """A row of the table. packages: usable in all modules. restricted: package -> the modules that may use it."""

    name: str
    packages: frozenset[str]
    restricted: dict[str, frozenset[str]] = field(default_factory=dict)


def parse_table(text: str) -> list[Room]:
    """Rows of the table whose header is "room | job | packages"."""
    lines = iter(text.splitlines())
    assert any(re.fullmatch(r"\|\s*room\s*\|\s*job\s*\|\s*packages\s*\|", line) for line in lines), "no table of rooms"
    next(lines)
    rooms = []
    for line in lines:
        if not line.startswith("|"):
            break
        name, _, packages = (cell.strip() for cell in line.strip("|").split("|"))
        free, _, rest = packages.partition(";")
        restricted: dict[str, frozenset[str]] = {}
        if rest:
            named, _, modules = rest.partition(" in ")
            of = frozenset(re.findall(r"`(\w+)`", modules))
            restricted = dict.fromkeys(_names(named.replace(" and ", ",")), of)
        rooms.append(Room(name.strip("`/"), frozenset(_names(free)), restricted))
    return rooms


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@dataclass(frozen=True)
class Import:
    module: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.imported}"


def name_of(path: Path, root: Path, package: str) -> str:
    parts = (package, *path.relative_to(root).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(root: Path, package: str) -> Iterator[Import]:
    """Every import of a package: of its own modules by module, of others by their name."""
    modules = {name_of(path, root, package): path for path in root.rglob("*.py")}
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    parents = (module if path.name == "__init__.py" else module.rpartition(".")[0]).split(".")
                    kept = parents[: len(parents) - node.level + 1]
                    base = ".".join([*kept, base] if base else kept)
                for alias in node.names:
                    one = f"{base}.{alias.name}"
                    yield Import(module, one if one in modules else base, node.lineno)


def room_of(module: str, package: str = PACKAGE) -> str:
    """Name of the room that a module of the package is in; "" for the package itself and for other packages."""
    top, _, rest = module.partition(".")
    return rest.partition(".")[0] if top == package else ""


def arrows_upwards(imports: list[Import], rooms: list[Room], package: str = PACKAGE) -> list[str]:
    """Imports from a room further down the table, or between rooms of which one is not in it."""
    order = {room.name: i for i, room in enumerate(rooms)}
    wrong = []
    for i in imports:
        a, b = room_of(i.module, package), room_of(i.imported, package)
        if a and b and a != b and not order.get(b, len(order)) < order.get(a, -1):
            wrong.append(str(i))
    return wrong


def strangers(imports: list[Import], rooms: list[Room], package: str = PACKAGE) -> list[str]:
    """Imports of other packages that the table does not grant the room."""
    of = {room.name: room for room in rooms}
    wrong = []
    for i in imports:
        name = i.imported.partition(".")[0]
        if name == package or name in sys.stdlib_module_names or name in EVERYWHERE:
            continue
        name = "ROS messages" if ROS_MESSAGES.fullmatch(name) else name
        room = of.get(room_of(i.module, package))
        granted = room is not None and (
            name in room.packages or i.module.rpartition(".")[2] in room.restricted.get(name, ())
        )
        if not granted:
            wrong.append(str(i))
    return wrong


def circles(imports: list[Import]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others (strongly connected components)."""
    modules = {i.module for i in imports}
    edges: dict[str, set[str]] = {m: set() for m in modules}
    for i in imports:
        if i.imported in modules and i.imported != i.module:
            edges[i.module].add(i.imported)

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += edges[module]
        return seen

    reached = {m: reachable(m) for m in modules}
    groups = {tuple(sorted(n for n in reached[m] if m in reached[n])) for m in modules if m in reached[m]}
    return [list(group) for group in sorted(groups)]


def code_lines(path: Path) -> int:
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in path.read_text().splitlines())


@cache
def rooms() -> list[Room]:
    return parse_table(TABLE.read_text())


@cache
def found() -> list[Import]:
    return list(imports_of(ROOT, PACKAGE))


def test_the_table_names_every_room_once():
    there = {
        p.stem if p.is_file() else p.name for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    named = [room.name for room in rooms()]
    assert sorted(named) == sorted(there - {"__init__"})


def test_a_room_imports_only_from_those_above_it():
    assert arrows_upwards(found(), rooms()) == []


def test_a_room_uses_only_the_packages_that_the_table_names():
    assert strangers(found(), rooms()) == []


def test_the_table_names_no_package_that_is_not_used():
    used: dict[str, set[str]] = {}
    for i in found():
        name = i.imported.partition(".")[0]
        used.setdefault(room_of(i.module), set()).add("ROS messages" if ROS_MESSAGES.fullmatch(name) else name)
    for room in rooms():
        assert {*room.packages, *room.restricted} <= used.get(room.name, set()), room.name


def test_rclpy_stays_where_it_belongs():
    """The core and the command line run without ROS."""
    holders = {
        room.name: room.restricted.get("rclpy") for room in rooms() if {*room.packages, *room.restricted} & {"rclpy"}
    }
    assert holders == {"ros": None, "replay": frozenset({"live", "player"}), "node_bench": None}


def test_no_modules_import_each_other():
    assert circles(found()) == []


def test_no_room_is_too_large():
    lines: dict[str, int] = {}
    for path in ROOT.rglob("*.py"):
        name = room_of(name_of(path, ROOT, PACKAGE))
        lines[name] = lines.get(name, 0) + code_lines(path)
    total = sum(lines.values())
    assert {name: f"{n / total:.1%}" for name, n in lines.items() if n > LARGEST_SHARE * total} == {}


def test_no_file_is_too_long():
    long = {str(p.relative_to(ROOT)): n for p in ROOT.rglob("*.py") if (n := len(p.read_text().splitlines())) > 400}
    assert long == {}


class TestTheTestSees:
    """What it is there to see, in a package made up of two rooms."""

    TEXT = "| room | job | packages |\n| --- | --- | --- |\n| `low` | | |\n| `high/` | | torch; rclpy in `live` alone |\n\nrest"

    def seen(self, tmp_path: Path, **files: str) -> list[Import]:
        for name, text in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            (path.parent / "__init__.py").touch()
        return list(imports_of(tmp_path, "made"))

    def test_arrows_upwards_also_inside_of_functions_and_for_type_checkers(self, tmp_path):
        hidden = "def f():\n    from .high import one\n\nif TYPE_CHECKING:\n    from .high.one import f\n    import made.high.one\n"
        imports = self.seen(tmp_path, low=hidden, high__one="from ..low import f\nfrom .. import low\n")
        assert len(arrows_upwards(imports, parse_table(self.TEXT), "made")) == 3

    def test_packages(self, tmp_path):
        imports = self.seen(
            tmp_path, low="import torch\n", high__one="import torch\nimport rclpy.node\n", high__live="import rclpy\n"
        )
        wrong = strangers(imports, parse_table(self.TEXT), "made")
        assert wrong == ["made.low:1 imports torch", "made.high.one:2 imports rclpy.node"]

    def test_circles(self, tmp_path):
        imports = self.seen(
            tmp_path,
            a="from . import b\n",
            b="from .c import x\n",
            c="def f():\n    from .a import y\n",
            d="from . import a\n",
        )
        assert circles(imports) == [["made.a", "made.b", "made.c"]]


def test_no_test_module_imports_another():
    """What tests share is in test/support."""
    tests = Path(__file__).parent
    names = {path.stem for path in tests.glob("test_*.py")}
    for path in tests.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                asked = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not names & set(asked), f"{path.name} imports {', '.join(asked)}"
