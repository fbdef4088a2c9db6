"""``ros2 launch FILE NAME:=VALUE ...``, with the real launch where it is installed, else with its double."""

from __future__ import annotations

import importlib
import sys


def main(path: str, arguments: list[str]) -> int:
    launch = importlib.import_module("launch")
    if not hasattr(launch, "LaunchService"):  # the checkout's folder of that name
        from support import launch_double

        launch_double.install()
        launch = importlib.import_module("launch")
    actions = importlib.import_module("launch.actions")
    sources = importlib.import_module("launch.launch_description_sources")
    service = launch.LaunchService(argv=arguments)
    pairs = [tuple(a.split(":=", 1)) for a in arguments]
    include = actions.IncludeLaunchDescription(sources.PythonLaunchDescriptionSource(path), launch_arguments=pairs)
    service.include_launch_description(launch.LaunchDescription([include]))
    return int(service.run())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
