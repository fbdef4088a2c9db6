"""``--init-mask`` and ``--init-box``: where objects are in the first frame, where no detector knows them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..detect.starts import Start
    from ..objects import ObjectSpec

InitMasks = Annotated[
    list[str] | None,
    typer.Option(
        "--init-mask",
        help="OBJECT=FILE: picture (or .npy) of the first frame's size, black or transparent where the object is not; no detector.",
    ),
]
InitBoxes = Annotated[
    list[str] | None,
    typer.Option("--init-box", help="OBJECT=X0,Y0,X1,Y1: its box in the first frame, pixels; no detector."),
]


def parse_starts(masks: Sequence[str], boxes: Sequence[str], specs: Sequence[ObjectSpec]) -> list[Start]:
    """Raises typer.BadParameter that names the option, and ConfigError for an object that is not listed."""
    import numpy as np

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
            found.append(Start(name, mask=read_mask(Path(value).expanduser(), f"{option} {value}")))
            continue
        try:
            x0, y0, x1, y1 = (float(v) for v in value.split(","))
        except ValueError:
            raise typer.BadParameter(f"{option} {text}: expected four numbers X0,Y0,X1,Y1 in pixels") from None
        found.append(Start(name, np.array([x0, y0, x1, y1], np.float32)))
    return found


def read_mask(path: Path, named: str) -> NDArray[np.bool_]:
    """(H, W) of a picture as people and programs cut objects out: what is neither black nor transparent.

    An index of a palette that has no black is a label, 0 the background. What JPEG and its like leave around an edge is black, and so
    is the darker half of an edge that runs from black to white. An array of numpy (.npy) is set where it is not 0.
    named: how errors call it. Raises ConfigError for what is no picture, cuts nothing out, or seems to cut out all but the
    object, OSError.
    """
    import numpy as np

    from ..config import ConfigError

    mask = _array_mask(path, named) if path.suffix.lower() == ".npy" else _picture_mask(path, named)
    if mask.all():
        raise ConfigError(f"{named} is nowhere black or transparent: it must be that where the object is not")
    if mask[[0, 0, -1, -1], [0, -1, 0, -1]].all():
        raise ConfigError(
            f"{named} is set in all four corners: it must be black where the object is not; is it inverted?"
        )
    return np.asarray(mask, bool)


def _array_mask(path: Path, named: str) -> NDArray[np.bool_]:
    import numpy as np

    from ..config import ConfigError

    try:
        values = np.squeeze(np.load(path, allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{named} is no array of numpy: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "buif":
        raise ConfigError(
            f"{named} is {values.dtype} {values.shape}, expected numbers or bool of height x width: one mask"
        )
    return np.asarray(values > 0)  # logits of networks are below 0 outside


def _picture_mask(path: Path, named: str) -> NDArray[np.bool_]:
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from ..config import ConfigError

    try:
        with Image.open(path) as picture:
            alpha = (
                np.asarray(picture.convert("RGBA"))[..., 3]
                if "A" in picture.getbands() or "transparency" in picture.info
                else np.zeros((1, 1))
            )
            colors = np.asarray(picture.convert("RGB"))
            pixels = colors.max(2)
            labels = np.asarray(picture) if picture.mode == "P" else None
            soft = picture.format in ("JPEG", "MPO", "JPEG2000", "WEBP", "AVIF") or _soft(colors)
    except UnidentifiedImageError as error:
        raise ConfigError(f"{named} is no picture that can be read") from error
    if alpha.min() < alpha.max():
        mask = alpha > 127
    else:
        mask = pixels > (int(pixels.max()) // 2 if soft else 0)
        if labels is not None and mask.all() == mask.any():
            mask = labels > 0
    return np.asarray(mask, bool)


def _soft(colors: NDArray[np.uint8]) -> bool:
    """Whether a picture is white on black with edges that run from one to the other: neither labels nor a photograph on black."""
    import numpy as np

    pixels = colors[..., 0]
    if (colors != pixels[..., None]).any() or len(np.unique(pixels)) <= _LABELS:
        return False
    seen = pixels[pixels > 0]
    return bool((seen > 0.94 * seen.max()).mean() > 0.25 and (pixels == 0).any())


_LABELS = 32
"""With more levels of grey a picture holds no labels."""
_EXAMPLE = {"--init-mask": "mask.png", "--init-box": "210,140,330,300"}
