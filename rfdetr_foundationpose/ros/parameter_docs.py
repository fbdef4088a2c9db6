"""config/pose.yaml and the tables of docs/ros.md, written from the typed config: ``python -m rfdetr_foundationpose.ros.parameter_docs``."""

from __future__ import annotations

from pathlib import Path

import yaml

from ..config import Setting, iter_settings

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = "<!-- parameters: begin -->", "<!-- parameters: end -->"


def parameters_yaml() -> str:
    """A ROS parameter file with every setting at its default, and what it means beside it."""
    lines = [
        "# Every parameter at its default; written by python -m rfdetr_foundationpose.ros.parameter_docs.",
        "# (live) can change while the node runs; the others take effect at the next configure.",
        "/**:",
        "  ros__parameters:",
    ]
    group = ""
    for setting in iter_settings():
        *parents, leaf = setting.path.split(".")
        if parents and parents[0] != group:
            group = parents[0]
            lines.append(f"    {group}:")
        indent = "      " if parents else "    "
        lines.append(f"{indent}# {_explain(setting)}")
        lines.append(f"{indent}{leaf}: {_scalar(setting.default)}")
    return "\n".join(lines) + "\n"


def parameters_table() -> str:
    """Markdown table of every setting."""
    rows = ["| parameter | type | default | range | live | meaning |", "| --- | --- | --- | --- | --- | --- |"]
    for s in iter_settings():
        default = f"`{_scalar(s.default)}`"
        rows.append(
            f"| `{s.path}` | {s.type.__name__} | {default} | {_range(s)} | {'yes' if s.live else ''} | {s.description} |"
        )
    return "\n".join(rows) + "\n"


def with_table(page: str) -> str:
    """The page with its parameter table renewed. Raises ValueError where the page has no place for it."""
    if BEGIN not in page or END not in page:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    head, rest = page.split(BEGIN, 1)
    _, tail = rest.split(END, 1)
    return f"{head}{BEGIN}\n{parameters_table()}{END}{tail}"


def _explain(setting: Setting) -> str:
    facts = [setting.description]
    if _range(setting):
        facts.append(_range(setting))
    return ", ".join(facts) + (" (live)" if setting.live else "")


def _range(setting: Setting) -> str:
    if setting.choices:
        return " / ".join(setting.choices)
    if setting.minimum is None and setting.maximum is None:
        return ""
    low = "-inf" if setting.minimum is None else f"{setting.minimum:g}"
    high = "inf" if setting.maximum is None else f"{setting.maximum:g}"
    return f"{low} to {high}"


def _scalar(value: bool | int | float | str) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip() or "''"


def main() -> None:
    """Write both files of the source tree."""
    (ROOT / "config" / "pose.yaml").write_text(parameters_yaml())
    page = ROOT / "docs" / "ros.md"
    page.write_text(with_table(page.read_text()))


if __name__ == "__main__":
    main()
