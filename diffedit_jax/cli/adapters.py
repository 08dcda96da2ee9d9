"""`--lora FILE:WEIGHT` and `--embedding FILE:WORD`: checked before a model is loaded."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..errors import UserError


def files_of(options: argparse.Namespace) -> dict[str, list[tuple]]:
    """What the options name, as `load` takes it: {"lora": [(path, weight)], "embedding": [...]}.

    Raises: UserError for a file that is not there and a weight that is no number.
    """
    loras = [_lora(text) for text in getattr(options, "lora", [])]
    words = [_split(text, "embedding") for text in getattr(options, "embedding", [])]
    found = {"lora": loras, "embedding": words}
    return {name: files for name, files in found.items() if files}


def _lora(text: str) -> tuple[str, float]:
    path, told = _split(text, "lora")
    try:
        weight = 1.0 if told is None else float(told)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise UserError(f"--lora {text}: the weight should be a number, not {told!r:.40}")
    return path, weight


def _split(text: str, option: str) -> tuple[str, str | None]:
    """(path, what follows its last colon); a path that is there is never cut."""
    if Path(text).expanduser().exists():
        return text, None
    path, colon, rest = text.rpartition(":")
    if colon and path and Path(path).expanduser().exists():
        return path, rest
    raise UserError(f"--{option} {text}: the file {path or text} does not exist")
