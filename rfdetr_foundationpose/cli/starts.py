"""``--init-mask`` and ``--init-box``: where objects are in the first frame, where no detector knows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..detect.starts import Start
    from ..objects import ObjectSpec

InitMasks = Annotated[
    list[str] | None,
    typer.Option(
        "--init-mask",
        help="OBJECT=FILE: picture of the first frame's size, not black where the object is; no detector.",
    ),
]
InitBoxes = Annotated[
    list[str] | None,
    typer.Option("--init-box", help="OBJECT=X0,Y0,X1,Y1: its box in the first frame, pixels; no detector."),
]


def parse_starts(masks: Sequence[str], boxes: Sequence[str], specs: Sequence[ObjectSpec]) -> list[Start]:
    """Raises typer.BadParameter that names the option, and ConfigError for an object that is not listed."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from ..config import ConfigError
    from ..detect.starts import Start

    found = []
    for option, text in [*(("--init-mask", t) for t in masks), *(("--init-box", t) for t in boxes)]:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise typer.BadParameter(f"{option} {text}: expected OBJECT=..., e.g. mug={_EXAMPLE[option]}")
        if name not in [s.name for s in specs]:
            raise ConfigError(
                f"{option} {text}: no object {name!r}; the objects file has {', '.join(s.name for s in specs)}"
            )
        if option == "--init-mask":
            try:
                with Image.open(Path(value).expanduser()) as picture:
                    pixels = np.asarray(picture.convert("RGB"))
            except UnidentifiedImageError as error:
                raise ConfigError(f"{option} {value} is no picture that can be read") from error
            found.append(Start(name, mask=np.asarray((pixels > 0).any(2), bool)))
            continue
        try:
            x0, y0, x1, y1 = (float(v) for v in value.split(","))
        except ValueError:
            raise typer.BadParameter(f"{option} {text}: expected four numbers X0,Y0,X1,Y1 in pixels") from None
        found.append(Start(name, np.array([x0, y0, x1, y1], np.float32)))
    return found


_EXAMPLE = {"--init-mask": "mask.png", "--init-box": "210,140,330,300"}
