"""Whether a checkpoint is of this run: its settings, its base model and its arrays, by name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffedit_jax.errors import UserError

_ADVICE = "use its settings, or another --out"


def check_same(folder: Path, extra: Mapping, same: Mapping) -> None:
    """Raises UserError with every value of `same` that `extra` has otherwise, up to eight.

    What `extra` does not name is not compared: there was no such setting when it was written.
    """
    differences = list(_differences("", extra, same))
    if differences:
        raise UserError(f"{folder} is of another run: {_listed(differences, 8)}; {_ADVICE}")


def _differences(prefix: str, found: Any, wanted: Any) -> Iterator[str]:
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        for name in wanted:
            if name in found:
                yield from _differences(f"{prefix}{name}.", found[name], wanted[name])
        return
    there, here = json.dumps(found), json.dumps(wanted)
    if there != here:
        yield f"{prefix[:-1]} is {there} there and {here} here"


def check_arrays(folder: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raises UserError unless both have the same names, types and shapes (`tree.places`)."""
    other = [n for n in sorted({*found, *wanted}) if found.get(n) != wanted.get(n)]
    if other:
        lines = [
            f"{n} is {found.get(n, 'absent')} there and {wanted.get(n, 'absent')} here"
            for n in other
        ]
        raise UserError(f"{folder} does not fit this run: {_listed(lines, 3)}; {_ADVICE}")


def _listed(lines: list[str], most: int) -> str:
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return ", ".join(lines[:most]) + more
