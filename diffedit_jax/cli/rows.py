"""Reads a list of edits: JSON (a list of objects), JSON lines, or CSV with a header."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from ..errors import UserError

_MAX_BYTES = 64 << 20
_MAX_ROWS = 100_000
_PATHS = ("image", "mask", "example", "style")  # relative to the list's own folder


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a list of edits; keys are parameters of the method, or image, out, seed, size.

    Empty cells mean "as on the command line". Numbers in CSV stay text until the method's
    declaration says what they are.
    Errors: UserError with the file's name, and the row's number where one row is at fault.
    """
    text = _text(path)
    rows = _csv(text) if path.suffix.lower() in (".csv", ".tsv") else _json(text, path)
    if not rows or len(rows) > _MAX_ROWS:
        raise UserError(f"{path} has {len(rows):,} rows; from 1 to {_MAX_ROWS:,} are read")
    return [_row(path, number, row) for number, row in enumerate(rows, 1)]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise UserError(f"{path} is larger than {_MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"the list {path} cannot be read: {reason}") from error


def _csv(text: str) -> list[Any]:
    dialect = csv.excel_tab if "\t" in text.split("\n", 1)[0] else csv.excel
    try:
        return list(csv.DictReader(io.StringIO(text), dialect=dialect, strict=True))
    except csv.Error as error:
        raise UserError(f"the list is no proper CSV: {error}") from error


def _json(text: str, path: Path) -> list[Any]:
    try:
        if path.suffix.lower() == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the list {path} is no proper JSON: {error}") from error
    if not isinstance(found, list):
        raise UserError(f"the list {path} should be a JSON list of objects")
    return found


def _row(path: Path, number: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict) or None in row or None in row.values() and path.suffix == ".csv":
        raise UserError(f"row {number} of {path} does not fit the header")
    row = {key.strip(): value for key, value in row.items() if value not in (None, "")}
    for key in (*_PATHS, "out"):
        if key in row and not isinstance(row[key], str):
            raise UserError(f"row {number} of {path}: {key} should be a file's name")
    return row | {key: str(path.parent / row[key]) for key in _PATHS if key in row}
