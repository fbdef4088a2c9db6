"""What a setting is: how it is declared, and how a value is held against that."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError
from .yaml_files import shown


def setting(
    default: Any,
    help: str,
    *,
    unit: str = "",
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] = (),
    live: bool = False,
) -> Any:
    """A dataclass field with what a user must know of it. ``live`` settings may change while the node runs."""
    meta = {"help": help, "unit": unit, "minimum": minimum, "maximum": maximum, "choices": choices, "live": live}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class Setting:
    """One leaf of the tree."""

    path: str
    type: type
    default: bool | int | float | str
    help: str
    unit: str
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    live: bool

    @property
    def description(self) -> str:
        """Help with the unit, as shown in ROS parameter descriptions and --help."""
        return f"{self.help} [{self.unit}]" if self.unit else self.help

    def check(self, value: Any) -> Any:
        """The value in its type. Raises ConfigError when it does not fit."""
        if self.type is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
            value = float(value)
        if type(value) is not self.type:
            kind = {"str": "a text", "int": "a whole number", "float": "a number", "bool": "true or false"}
            raise ConfigError(f"{self.path}={shown(value)} must be {kind[self.type.__name__]}, e.g. {self.default!r}")
        if self.choices and value not in self.choices:
            raise ConfigError(f"{self.path}={shown(value)} must be one of {', '.join(self.choices)}")
        low, high = self.minimum, self.maximum
        # Written so that NaN is refused too.
        if isinstance(value, (int, float)) and not ((low is None or value >= low) and (high is None or value <= high)):
            raise ConfigError(f"{self.path}={value!r} must be in [{low}, {high}] {self.unit}".rstrip())
        return value
