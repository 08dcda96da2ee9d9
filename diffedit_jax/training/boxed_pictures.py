"""Paint by Example's training data from a folder of pictures with boxes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..checkpoints.files import read_json
from ..errors import UserError
from ..images import read
from ..images.frame import resized
from ..images.read import open_file
from ..notices import tell
from . import boxes
from .examples import Drawn
from .pictures import readable

LISTS = ("boxes.csv", "boxes.json")
_CORNERS = ("left", "top", "right", "bottom")
_ORIENTATION = 0x0112  # of EXIF; above 4, width and height change places
_NOTHING = "no picture has a box of 2 to 80 % of its area; there is nothing to train on"


class Boxed(NamedTuple):
    """A picture and its boxes."""

    file: Path
    boxes: tuple[boxes.Box, ...]


def boxed_files(folder: Path) -> list[Boxed]:
    """The pictures of a folder that have boxes, by name.

    boxes.csv with the columns picture,left,top,right,bottom; or boxes.json, either
    {"picture": [[left, top, right, bottom], ...]} or a COCO file ("images", "annotations" with
    "bbox" [left, top, width, height]). Pictures are named from the folder; right and bottom are
    exclusive.
    Raises: UserError for a folder without a list, an empty list, a row that is no box, and a
    picture that is missing.
    """
    rows: dict[str, list] = {}
    for name, box in _listed(Path(folder)):
        rows.setdefault(name, []).append(box)
    if not rows:
        raise UserError(f"the list of boxes in {folder} is empty")
    for name in rows:
        if not (Path(folder) / name).is_file():
            raise UserError(f"{Path(folder) / name} is missing; {folder} lists a box in it")
    return [Boxed(Path(folder) / name, tuple(found)) for name, found in sorted(rows.items())]


def _listed(folder):
    """(name of a picture, box) of every row of the list."""
    table, lines = (folder / name for name in LISTS)
    if table.is_file():
        yield from _from_csv(table)
    elif lines.is_file():
        found = read_json(lines)
        coco = isinstance(found.get("annotations"), list)
        yield from _from_coco(found, lines) if coco else _from_json(found, lines)
    else:
        raise UserError(f"{folder} has neither {' nor '.join(LISTS)}; see docs/personalisation.md")


def _from_csv(path):
    with path.open(newline="") as stream:
        reader = csv.DictReader(stream)
        if not {"picture", *_CORNERS} <= set(reader.fieldnames or ()):
            raise UserError(f"{path} must begin with the line picture,{','.join(_CORNERS)}")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            yield row["picture"], _box([row[name] for name in _CORNERS], where)


def _from_json(found, path):
    for name, own in found.items():
        if not isinstance(own, list):
            raise UserError(f"{path}: {name!r:.60} must have a list of boxes")
        yield from ((name, _box(each, f"{path}, {name}")) for each in own)


def _from_coco(found, path):
    try:
        names = {each["id"]: str(each["file_name"]) for each in found["images"]}
        rows = [(names[each["image_id"]], each["bbox"]) for each in found["annotations"]]
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is no COCO file: {error!s:.80}") from None
    for name, bbox in rows:
        left, top, width, height = _box(bbox, f"{path}, {name}")
        yield name, (left, top, left + width, top + height)


def _box(values, where) -> boxes.Box:
    try:
        left, top, right, bottom = (int(float(value)) for value in values)
    except (TypeError, ValueError):
        raise UserError(f"{where}: {values!r:.60} is no box of four numbers") from None
    return left, top, right, bottom


def picture_examples(
    listed: list[Boxed],
    seed: int,
    *,
    size: int,
    shown: int,
    curved: float,
    jitter: int,
    margin: int,
    skip_broken: bool = False,
) -> Iterator[Drawn]:
    """An endless stream: a random picture, a random one of its boxes, a hole, what was in it.

    Boxes of less than 2 % or more than 80 % of their picture are left out, and pictures that have
    no other.

    Args:
      size: pixels of the squares that are trained on.
      shown: pixels of the example pictures, which are the box and `margin` pixels around it.
      curved, jitter: of `boxes.hole`.
      skip_broken: leaves out pictures that cannot be read, and says so.
    Raises: UserError for a box that reaches out of its picture, and when no box is left.
    """
    rng = np.random.default_rng((130_363, seed, 1))
    left = list(listed)
    while left:
        which = int(rng.integers(len(left)))
        whole = lambda file, _: read(file).pixels  # noqa: E731
        pixels = readable(left[which].file, whole, size, skip_broken)
        if pixels is None:
            del left[which]
            continue
        if not _usable(left[which], *pixels.shape[:2]):
            _tell_unusable(left[which])
            del left[which]
            continue
        yield _drawn(rng, left[which], pixels, size, shown, curved, jitter, margin)
    raise UserError(_NOTHING)


def usable_files(listed: list[Boxed], *, skip_broken: bool = False) -> list[Boxed]:
    """Those that have a box of 2 to 80 % of the picture, as the headers of the files say.

    What is left out is told. Raises: as `picture_examples`.
    """
    found = []
    for boxed in listed:
        size = readable(boxed.file, _size_of, 0, skip_broken)
        if size is not None and _usable(boxed, *size):
            found.append(boxed)
        elif size is not None:
            _tell_unusable(boxed)
    if not found:
        raise UserError(_NOTHING)
    return found


def picture_example(
    rng: np.random.Generator,
    boxed: Boxed,
    *,
    size: int,
    shown: int,
    curved: float,
    jitter: int,
    margin: int,
) -> Drawn:
    """A random one of a picture's usable boxes; arguments as of `picture_examples`."""
    return _drawn(rng, boxed, read(boxed.file).pixels, size, shown, curved, jitter, margin)


def _size_of(file, _) -> tuple[int, int]:
    """(height, width) of an upright picture, from the header of its file."""
    with open_file(file, str(file)) as image:
        turned = image.getexif().get(_ORIENTATION, 1) > 4
        return (image.width, image.height) if turned else (image.height, image.width)


def _tell_unusable(boxed):
    tell(f"left out: {boxed.file} has no box of 2 to 80 % of the picture")


def _usable(boxed: Boxed, height: int, width: int) -> list[boxes.Box]:
    checked = [boxes.check_box(box, height, width, str(boxed.file)) for box in boxed.boxes]
    least, most = boxes.AREAS
    return [box for box in checked if least <= boxes.share_of(box, height, width) <= most]


def _drawn(rng, boxed, pixels, size, shown, curved, jitter, margin) -> Drawn:
    height, width = pixels.shape[:2]
    usable = _usable(boxed, height, width)
    box = usable[int(rng.integers(len(usable)))]
    example = boxes.cut(pixels, boxes.padded(box, margin, height, width), shown)
    wide = boxes.extended(rng, box, height, width)
    hole = boxes.hole(rng, box, wide, height, width, curved=curved, jitter=jitter)
    square = boxes.square_around(rng, wide, height, width)
    left, top, right, bottom = square
    keep = 1 - hole[top:bottom, left:right].astype(np.float32)
    picture = boxes.cut(pixels, square, size, "BILINEAR")
    return Drawn(picture, resized(keep, (size, size), "BILINEAR"), example)
