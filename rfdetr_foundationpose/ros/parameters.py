"""ROS parameters from the typed config, and back; live changes with a reason when refused."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from ..config import Config, ConfigError, Setting, from_flat, iter_settings

# These parameters are read once, before the first configure: a later value could have no effect.
_READ_ONLY = {"autostart"}


def descriptor(setting: Setting) -> ParameterDescriptor:
    """Description, range, allowed values and read-only flag of a setting, as ROS tools show them."""
    made = ParameterDescriptor(name=setting.path, description=setting.description, read_only=setting.path in _READ_ONLY)
    notes = [f"One of: {', '.join(setting.choices)}."] if setting.choices else []
    if not setting.live and not made.read_only:
        notes.append("Takes effect at the next configure; refused while the node is configured.")
    made.additional_constraints = " ".join(notes)
    if setting.minimum is not None or setting.maximum is not None:
        if setting.type is int:
            low = -(2**63) if setting.minimum is None else int(setting.minimum)
            high = 2**63 - 1 if setting.maximum is None else int(setting.maximum)
            made.integer_range = [IntegerRange(from_value=low, to_value=high, step=0)]
        else:
            low_f = -sys.float_info.max if setting.minimum is None else float(setting.minimum)
            high_f = sys.float_info.max if setting.maximum is None else float(setting.maximum)
            made.floating_point_range = [FloatingPointRange(from_value=low_f, to_value=high_f, step=0.0)]
    return made


def declare(node: Node) -> None:
    """Declare every setting. Raises rclpy's InvalidParameterValueException for an override that does not fit."""
    overrides = getattr(node, "_parameter_overrides", {})
    for setting in iter_settings():
        given = overrides.get(setting.path)
        # As in LiveParameters: "max_age: 0" in YAML is an integer, which ROS would refuse for a float.
        if setting.type is float and given is not None and given.type_ == Parameter.Type.INTEGER:
            node.declare_parameter(setting.path, float(given.value), descriptor(setting), ignore_override=True)
        else:
            node.declare_parameter(setting.path, setting.default, descriptor(setting))


def read(node: Node) -> Config:
    """The config that the node's parameters hold. Raises ConfigError."""
    return from_flat({s.path: node.get_parameter(s.path).value for s in iter_settings()})


def unknown_overrides(overrides: Iterable[str]) -> list[str]:
    """Sentences on parameters that were given at start-up but that no setting reads: ROS itself ignores them silently."""
    known = [s.path for s in iter_settings()]
    spoken = []
    for name in overrides:
        if (
            name in known
            or name == "use_sim_time"
            or name.startswith("qos_overrides.")
            or name.endswith("start_type_description_service")
        ):
            continue
        close = difflib.get_close_matches(name, known, n=1) or [p for p in known if p.rsplit(".", 1)[-1] == name]
        spoken.append(
            f"parameter {name!r} is unknown and has no effect" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    return spoken


class LiveParameters:
    """Checks and applies parameter changes.

    apply: takes the new config, with ``lock`` held; ConfigError refuses. ROS stores the values after that: meanwhile what ``apply``
    took is newer than what the node's parameters say. in_use: whether settings that are not live are refused.
    """

    def __init__(self, node: Node, apply: Callable[[Config], None]) -> None:
        self._node = node
        self.lock = Lock()
        self.in_use = False
        self._apply = apply
        self._settings = {s.path: s for s in iter_settings()}
        node.add_on_set_parameters_callback(self._on_set)
        if hasattr(node, "add_pre_set_parameters_callback"):  # since Iron
            node.add_pre_set_parameters_callback(self._whole_numbers)

    def _whole_numbers(self, changes: list[Any]) -> list[Any]:
        """``ros2 param set NODE detector.threshold 1`` gives an integer, which ROS would refuse for a float."""
        return [
            Parameter(p.name, Parameter.Type.DOUBLE, float(p.value))
            if p.type_ == Parameter.Type.INTEGER and p.name in self._settings and self._settings[p.name].type is float
            else p
            for p in changes
        ]

    def _on_set(self, changes: list[Any]) -> SetParametersResult:
        ours = {p.name: p.value for p in changes if p.name in self._settings}
        if not ours:  # as a subscription's QoS, which a transition declares
            return SetParametersResult(successful=True)
        try:
            current = {path: self._node.get_parameter(path).value for path in self._settings}
            config = from_flat({**current, **ours})
            with self.lock:
                if self.in_use:
                    self._refuse_fixed(
                        path for path, value in ours.items() if not self._settings[path].live and value != current[path]
                    )
                self._apply(config)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        except Exception as error:  # raised here, it would leave the caller without an answer
            self._node.get_logger().error(traceback.format_exc())
            return SetParametersResult(successful=False, reason=f"{type(error).__name__}: {error}")
        return SetParametersResult(successful=True)

    def _refuse_fixed(self, paths: Iterable[str]) -> None:
        """Raises ConfigError where there are any."""
        fixed = ", ".join(paths)
        if fixed:
            raise ConfigError(
                f"{fixed} cannot change while the node is configured; clean up (ros2 lifecycle set "
                f"{self._node.get_fully_qualified_name()} deactivate, then cleanup), set it and configure again"
            )
