"""Turns the text of an option into what a method's parameter is declared to be."""

from __future__ import annotations

import json
import math
from typing import Any

from ..errors import UserError
from ..methods.registry import Method

_WORDS = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}  # fmt: skip
_GIVEN_ELSEWHERE = ("mask", "example", "style", "noise")
_MAX_PROMPT = 8_000  # characters; a tokenizer sees 77 tokens of it


def parameters_of(method: Method, pairs: list[str]) -> dict[str, Any]:
    """`--set key=value` pairs as typed values; an unknown key is refused with the nearest one."""
    found = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise UserError(f"--set {pair} should be --set KEY=VALUE")
        found[key] = parameter(method, key, text)
    return found


def parameter(method: Method, key: str, value: Any) -> Any:
    """One value, as text or already typed (from JSON), checked against the method's declaration."""
    known = method.parameters
    if key not in known:
        raise method.unknown(key)
    if key in _GIVEN_ELSEWHERE:
        if key == "noise":
            raise UserError("noise is an array; only the library takes it")
        return value
    kinds = [kind.strip() for kind in known[key].kind.split("|")]
    parse = _from_text if isinstance(value, str) else _checked
    for kind in kinds:
        try:
            return parse(kind, value)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    wanted = " or ".join(_NAMES.get(kind, kind) for kind in kinds)
    raise UserError(f"{key} should be {wanted}, not {value!r:.80}")


def checked_prompt(name: str, text: Any) -> str:
    """A text that a tokenizer can take; refuses lone surrogates and absurd lengths."""
    if not isinstance(text, str):
        raise UserError(f"{name} should be a text, not {text!r:.80}")
    if len(text) > _MAX_PROMPT:
        raise UserError(f"{name} has {len(text):,} characters; the most is {_MAX_PROMPT:,}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} is not valid Unicode at character {error.start + 1}") from error
    return text


def checked_seed(value: Any) -> int:
    """A whole number from 0 to 2^32 - 1."""
    try:
        seed = int(value) if isinstance(value, int | str) else -1
    except ValueError:
        seed = -1
    if isinstance(value, bool) or not 0 <= seed < 1 << 32:
        raise UserError(f"seed should be a whole number from 0 to 4294967295, not {value!r:.40}")
    return seed


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


_PARSERS = {"int": int, "float": _finite, "bool": lambda text: _WORDS[text.lower()], "str": str,
            "list[str]": lambda text: [text]}  # fmt: skip
_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}
_NAMES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text",
          "None": "none", "list[str]": "a text"}  # fmt: skip


def _from_text(kind: str, text: str) -> Any:
    if kind == "None":
        if text.lower() != "none":
            raise ValueError
        return None
    return _PARSERS.get(kind, json.loads)(text)  # dicts and lists are written as JSON


def _checked(kind: str, value: Any) -> Any:
    """A JSON value that is of the declared kind, or a list of such (one per picture)."""
    if isinstance(value, list) and kind in _TYPES:
        return [_checked(kind, one) for one in value]
    if kind == "None" and value is None:
        return None
    if kind == "list[str]" and isinstance(value, list):
        return [_checked("str", one) for one in value]
    if kind not in (*_TYPES, "None", "list[str]") and isinstance(value, dict | list):
        return value  # the method knows what it wants inside
    if not isinstance(value, _TYPES.get(kind, ())) or (isinstance(value, bool) and kind != "bool"):
        raise TypeError(kind)
    return _finite(value) if kind == "float" else value
