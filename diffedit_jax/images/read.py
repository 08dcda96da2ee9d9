"""Reads a picture from a path, a PIL image or an array into uint8 RGB, or refuses in one line.

Only the formats of `FORMATS` are ever handed to a decoder, so a PostScript file under a picture's
name cannot start an external program. The picture comes out as people see it: EXIF rotation
applied, colours in sRGB, transparency over white, the first frame of an animation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .colour import from_array, to_rgb

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # where Pillow begins to warn; 256 MiB as RGB

_NOT_PICTURES = (
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "a PostScript file"),
    (b"%PDF", "a PDF file"),
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML file"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
)


@dataclasses.dataclass(frozen=True)
class Picture:
    """Pixels and what was done to them on the way in.

    Attributes:
      pixels: uint8 [h, w, 3], sRGB.
      notices: one line each for what a user may want to know (alpha, animation, scaling).
      path: where it came from, if from a file.
    """

    pixels: np.ndarray
    notices: tuple[str, ...] = ()
    path: Path | None = None


def read(source: Any) -> Picture:
    """One picture from a path, a PIL image, or an array [h, w], [h, w, 1|2|3|4].

    Arrays: uint8 as it is; uint16 / 257; bool; floats in [0, 1].
    Errors: UserError, one line that names the file and says what it is instead of a picture.
    Example: `read("cat.jpg").pixels.shape`.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, str | os.PathLike):
        return _read_file(Path(source))
    if _is_pil(source):
        return _read_pil(source, "the picture", None)
    pixels, notices = from_array(np.asarray(source), "the picture")
    return Picture(pixels, notices)


def read_all(source: Any) -> tuple[list[Picture], bool]:
    """(pictures, whether it was a batch): a list or tuple of sources, or an array [b, h, w, c]."""
    batch = isinstance(source, list | tuple) or len(getattr(source, "shape", ())) == 4
    if not batch:
        return [read(source)], False
    if len(source) == 0:
        raise UserError("the batch holds no picture")
    return [read(one) for one in source], True


def open_file(path: Path, name: str):
    """A PIL image of an allowed format whose size is within bounds; nothing is decoded yet."""
    image_module = _decoders()
    try:
        with quiet():
            image = image_module.open(path, formats=FORMATS)
    except image_module.DecompressionBombError as error:
        raise UserError(_too_large(name)) from error
    except image_module.UnidentifiedImageError as error:
        raise UserError(f"{name} is {_what_it_is(path)}") from error
    except Exception as error:  # decoders of broken files raise whatever they stumble over
        raise UserError(f"{name} cannot be read as a picture: {_line(error)}") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UserError(_too_large(name))
    return image


def checked_path(path: Path, what: str = "picture") -> None:
    """Refuses what is not an ordinary file, with the reason."""
    if "://" in str(path) or str(path).startswith(("http:/", "https:/")):
        raise UserError(f"{path} is an address; download the {what} and give the file")
    try:
        found, is_file, is_folder = path.exists(), path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        raise UserError(f"{what} {str(path)!r} cannot be opened: {_line(error)}") from error
    if not found:
        raise UserError(f"{what} {path} does not exist")
    if is_folder:
        raise UserError(f"{what} {path} is a folder")
    if not is_file:
        raise UserError(f"{what} {path} is not an ordinary file")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Pillow's warnings off the terminal; what matters is refused by our own checks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def upright(image, name: str):
    """The decoded image, turned as its EXIF orientation says; refuses a truncated file."""
    from PIL import ImageOps

    try:
        with quiet():
            image.load()
            return ImageOps.exif_transpose(image)
    except Exception as error:
        raise UserError(f"{name} is damaged or cut short: {_line(error)}") from error


def _read_file(path: Path) -> Picture:
    checked_path(path)
    with open_file(path, str(path)) as image:
        return _read_pil(image, str(path), path)


def _read_pil(image, name: str, path: Path | None) -> Picture:
    if image.width * image.height > MAX_PIXELS:
        raise UserError(_too_large(name))
    notices = []
    with quiet():
        several = getattr(image, "is_animated", False)
    if several:
        notices.append(f"{name} has several frames; the first is used")
        image.seek(0)
    image = upright(image, name)
    try:
        pixels, more = to_rgb(image, name)
    except (OSError, MemoryError) as error:
        raise UserError(f"{name} cannot be converted to RGB: {_line(error)}") from error
    return Picture(pixels, (*notices, *more), path)


def _decoders():
    """PIL.Image with the plugins of `FORMATS` alone imported."""
    from PIL import (  # noqa: F401  (importing a plugin registers it)
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        PpmImagePlugin,
        TiffImagePlugin,
        WebPImagePlugin,
    )

    return Image


def _is_pil(source: Any) -> bool:
    return hasattr(source, "convert") and hasattr(source, "getbands")


def _what_it_is(path: Path) -> str:
    """Names a file that no decoder wanted."""
    with open(path, "rb") as file:
        start = file.read(1024)
    if not start:
        return "an empty file, not a picture"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in text:
        return "an SVG drawing; convert it to PNG first"
    for mark, kind in _NOT_PICTURES:
        if text.startswith(mark.lower()):
            return f"{kind}; convert it to PNG first" if "file" in kind else kind
    return f"not a picture that can be read ({', '.join(FORMATS)})"


def _too_large(name: str) -> str:
    return f"{name} has more than {MAX_PIXELS:,} pixels; make it smaller first"


def _line(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
