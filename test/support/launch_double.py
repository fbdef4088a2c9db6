"""A small double of ``launch`` and ``launch_ros``, neither of which is on PyPI: it executes what our launch files use.

As the real ones (compared with launch 3.4 and launch_ros 0.26): launch configurations and environment are those of the whole
launch unless a group is scoped; an include puts its arguments into them; a group without forwarding begins with the
environment of the start and only its own configurations; a parameter that is a substitution is read as YAML.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml


class Context:
    def __init__(self, argv: Sequence[str]) -> None:
        self.argv = list(argv)
        self.launch_configurations: dict[str, str] = {}
        self.begin = dict(os.environ)
        self.stack: list[tuple[dict[str, str], dict[str, str]]] = []
        self.processes: list[tuple[ExecuteProcess, subprocess.Popen[bytes]]] = []
        self.handlers: list[OnProcessExit] = []
        self.shutdown = ""


def text(context: Context, value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "".join(text(context, v) for v in value)
    return value.perform(context) if hasattr(value, "perform") else str(value)


class LaunchConfiguration:
    def __init__(self, name: str, default: Any = None) -> None:
        self.name, self.default = name, default

    def perform(self, context: Context) -> str:
        if self.name not in context.launch_configurations:
            if self.default is None:
                raise RuntimeError(f"launch configuration '{self.name}' does not exist")
            return text(context, self.default)
        return context.launch_configurations[self.name]


class IfCondition:
    def __init__(self, predicate: Any) -> None:
        self.predicate = predicate

    def evaluate(self, context: Context) -> bool:
        value = text(context, self.predicate).strip().lower()
        if value not in ("true", "1", "false", "0"):
            raise RuntimeError(f"condition {value!r} is neither true nor false")
        return value in ("true", "1")


class Action:
    def __init__(self, *, condition: Any = None) -> None:
        self.condition = condition

    def visit(self, context: Context) -> list[Any]:
        if self.condition is not None and not self.condition.evaluate(context):
            return []
        return self.execute(context) or []

    def execute(self, context: Context) -> list[Any] | None:
        raise NotImplementedError


class LaunchDescription:
    def __init__(self, entities: Sequence[Any] = ()) -> None:
        self.entities = list(entities)

    def visit(self, context: Context) -> list[Any]:
        return self.entities

    def get_launch_arguments(self) -> list[DeclareLaunchArgument]:
        return [e for e in self.entities if isinstance(e, DeclareLaunchArgument)]


class DeclareLaunchArgument(Action):
    def __init__(
        self, name: str, *, default_value: Any = None, description: str = "", choices: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.name, self.default_value, self.description, self.choices = name, default_value, description, choices

    def execute(self, context: Context) -> None:
        if self.name not in context.launch_configurations:
            if self.default_value is None:
                raise RuntimeError(f"Required launch argument '{self.name}' was not provided")
            context.launch_configurations[self.name] = text(context, self.default_value)
        value = context.launch_configurations[self.name]
        if self.choices is not None and value not in self.choices:
            raise RuntimeError(f"Argument '{self.name}' provided value '{value}' is not valid. Valid: {self.choices}")


class SetLaunchConfiguration(Action):
    def __init__(self, name: str, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: Context) -> None:
        context.launch_configurations[self.name] = text(context, self.value)


class ResetLaunchConfigurations(Action):
    def execute(self, context: Context) -> None:
        context.launch_configurations.clear()


class SetEnvironmentVariable(Action):
    def __init__(self, name: Any, value: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context: Context) -> None:
        os.environ[text(context, self.name)] = text(context, self.value)


class OpaqueFunction(Action):
    def __init__(self, *, function: Callable[..., Any], args: Any = (), kwargs: Any = None, **left: Any) -> None:
        super().__init__(**left)
        self.function, self.args, self.kwargs = function, args, kwargs or {}

    def execute(self, context: Context) -> list[Any] | None:
        return self.function(context, *self.args, **self.kwargs)


class LogInfo(Action):
    def __init__(self, *, msg: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.msg = msg

    def execute(self, context: Context) -> None:
        print(f"[INFO] [launch.user]: {text(context, self.msg)}", flush=True)


class _Call(Action):
    def __init__(self, function: Callable[[Context], None]) -> None:
        super().__init__()
        self.execute = function  # type: ignore[method-assign]


def _set_environment(values: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


class GroupAction(Action):
    def __init__(
        self,
        actions: Sequence[Any],
        *,
        scoped: bool = True,
        forwarding: bool = True,
        launch_configurations: dict[Any, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.actions, self.scoped, self.forwarding = list(actions), scoped, forwarding
        self.configurations = launch_configurations or {}

    def execute(self, context: Context) -> list[Any]:
        def push(context: Context) -> None:
            context.stack.append((dict(context.launch_configurations), dict(os.environ)))
            own = {text(context, k): text(context, v) for k, v in self.configurations.items()}
            if not self.forwarding:
                context.launch_configurations.clear()
                _set_environment(context.begin)
            context.launch_configurations.update(own)

        def pop(context: Context) -> None:
            configurations, environment = context.stack.pop()
            context.launch_configurations.clear()
            context.launch_configurations.update(configurations)
            _set_environment(environment)

        if self.scoped:
            return [_Call(push), *self.actions, _Call(pop)]
        return [*(SetLaunchConfiguration(k, v) for k, v in self.configurations.items()), *self.actions]


class PythonLaunchDescriptionSource:
    def __init__(self, location: Any) -> None:
        self.location = location

    def get_launch_description(self, context: Context) -> Any:
        path = text(context, self.location)
        spec = importlib.util.spec_from_file_location("python_launch_file", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.generate_launch_description()


class IncludeLaunchDescription(Action):
    def __init__(self, source: Any, *, launch_arguments: Any = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.source, self.arguments = source, list(launch_arguments or ())

    def execute(self, context: Context) -> list[Any]:
        description = self.source.get_launch_description(context)
        given = {text(context, name) for name, _ in self.arguments}
        for argument in description.get_launch_arguments():
            if argument.default_value is None and argument.name not in given:
                raise RuntimeError(f"Included launch description missing required argument '{argument.name}'")
        return [*(SetLaunchConfiguration(k, v) for k, v in self.arguments), description]


class ExecuteProcess(Action):
    def __init__(self, *, cmd: Sequence[Any], output: Any = "log", **kwargs: Any) -> None:
        super().__init__(condition=kwargs.pop("condition", None))
        self.cmd = list(cmd)

    def execute(self, context: Context) -> None:
        self.run(context, [text(context, part) for part in self.cmd])

    def run(self, context: Context, command: list[str]) -> None:
        print(f"[INFO] [{Path(command[0]).name}]: process started", flush=True)
        context.processes.append((self, subprocess.Popen(command)))


class Node(ExecuteProcess):
    def __init__(
        self,
        *,
        executable: Any,
        package: Any,
        name: Any = None,
        namespace: Any = None,
        parameters: Any = (),
        remappings: Any = (),
        arguments: Any = (),
        ros_arguments: Any = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(cmd=[], **kwargs)
        self.executable, self.package, self.name, self.namespace = executable, package, name, namespace
        self.parameters, self.remappings = parameters or (), remappings or ()
        self.arguments, self.ros_arguments = arguments or (), ros_arguments or ()

    def execute(self, context: Context) -> None:
        from ament_index_python.packages import get_package_prefix

        package, executable = text(context, self.package), text(context, self.executable)
        path = Path(get_package_prefix(package)) / "lib" / package / executable
        if not path.is_file():
            raise RuntimeError(f"executable '{executable}' not found on the libexec directory '{path.parent}'")
        command = [str(path), *(text(context, a) for a in self.arguments), "--ros-args"]
        command += [text(context, a) for a in self.ros_arguments]
        if self.name is not None:
            command += ["-r", f"__node:={text(context, self.name)}"]
        if self.namespace is not None and (namespace := text(context, self.namespace)):
            command += ["-r", f"__ns:=/{namespace.strip('/')}"]
        for parameters in self.parameters:
            command += ["--params-file", self._file(context, parameters)]
        for one, other in self.remappings:
            command += ["-r", f"{text(context, one)}:={text(context, other)}"]
        self.run(context, command)

    @staticmethod
    def _file(context: Context, parameters: Any) -> str:
        if not isinstance(parameters, dict):
            return text(context, parameters)
        values: dict[str, Any] = {}
        for name, value in parameters.items():
            # A substitution's text is read as YAML, a plain text is not.
            substituted = hasattr(value, "perform")
            values[text(context, name)] = yaml.safe_load(text(context, value) or "''") if substituted else value
        with tempfile.NamedTemporaryFile("w", prefix="launch_params_", delete=False) as file:
            yaml.safe_dump({"/**": {"ros__parameters": values}}, file)
        return file.name


class Shutdown(Action):
    def __init__(self, *, reason: str = "reason not given", **kwargs: Any) -> None:
        super().__init__(condition=kwargs.pop("condition", None))
        self.reason = reason

    def execute(self, context: Context) -> None:
        context.shutdown = self.reason


class OnProcessExit:
    def __init__(self, *, target_action: Any = None, on_exit: Any, **_: Any) -> None:
        self.target, self.on_exit = target_action, on_exit


class RegisterEventHandler(Action):
    def __init__(self, event_handler: OnProcessExit, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.handler = event_handler

    def execute(self, context: Context) -> None:
        context.handlers.append(self.handler)


class ProcessExited:
    def __init__(self, returncode: int) -> None:
        self.returncode = returncode


class LaunchService:
    """Executes entities depth first, then waits for the processes; SIGINT is passed on to all."""

    def __init__(self, *, argv: Sequence[str] = ()) -> None:
        self.context = Context(argv)
        self.entities: list[Any] = []

    def include_launch_description(self, description: LaunchDescription) -> None:
        self.entities.append(description)

    def run(self) -> int:
        stop: list[int] = []
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda n, _frame: stop.append(n))
        status = 0
        try:
            self._visit(self.entities)
            alive = list(self.context.processes)
            while alive and not stop and not self.context.shutdown:
                time.sleep(0.02)
                for action, process in list(alive):
                    if process.poll() is not None:
                        alive.remove((action, process))
                        self._exited(action, process.returncode)
        except Exception as error:  # as launch: said, everything ended, status 1
            print(f"[ERROR] [launch]: Caught exception in launch: {error}", flush=True)
            status = 1
        for _, process in self.context.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
        for _, process in self.context.processes:
            process.wait(60)
        return status

    def _exited(self, action: ExecuteProcess, status: int) -> None:
        for handler in self.context.handlers:
            if handler.target in (None, action):
                made = handler.on_exit
                if callable(made):
                    made = made(ProcessExited(status), self.context)
                self._visit(made if isinstance(made, list) else [made] if made else [])

    def _visit(self, entities: Sequence[Any]) -> None:
        for entity in entities:
            if entity is not None:
                self._visit(entity.visit(self.context))
            if self.context.shutdown:
                return


MODULES: dict[str, tuple[Any, ...]] = {
    "launch": (LaunchDescription, LaunchService),
    "launch.actions": (
        DeclareLaunchArgument,
        ExecuteProcess,
        GroupAction,
        IncludeLaunchDescription,
        LogInfo,
        OpaqueFunction,
        RegisterEventHandler,
        ResetLaunchConfigurations,
        SetEnvironmentVariable,
        SetLaunchConfiguration,
        Shutdown,
    ),
    "launch.conditions": (IfCondition,),
    "launch.event_handlers": (OnProcessExit,),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (LaunchConfiguration,),
    "launch_ros": (),
    "launch_ros.actions": (Node,),
}


def install() -> None:
    """Make the modules importable, in the place of the real ones."""
    for name, members in MODULES.items():
        module = ModuleType(name)
        for member in members:
            setattr(module, member.__name__, member)
        sys.modules[name] = module
