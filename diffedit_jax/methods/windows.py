"""Numbers per word: when a word's attention is taken over, and how strongly it is weighed.

Knobs are written as a number, a text or a dictionary:
  0.8                                      every word, from the start to 0.8 of the steps
  "0.2:0.6"                                every word, from 0.2 to 0.6
  "0.8, lion=0.4"                          another end for one word
  {"default_": 0.8, "lion": (0.1, 0.4)}    the same as a dictionary, as the official code takes it
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import UserError
from .words import Prompt

DEFAULT = "default_"  # the official code's key for all other words


def token_windows(spec: Any, prompt: Prompt, steps: int, length: int) -> Int[np.ndarray, "k 2"]:
    """[begin, end) in steps for each token of a target's prompt.

    A share c of N steps ends before int(c (N + 1)), so that 1 covers a run of N + 1 evaluations.
    Words override in the order they are given.
    Source: google/prompt-to-prompt, ptp_utils.get_time_words_attention_alpha.
    """
    words = _by_word(spec, "cross_replace_steps")
    everywhere = words.pop(DEFAULT, 1.0)
    windows = np.tile(_shares(everywhere, "cross_replace_steps", steps + 1), (length, 1))
    for word, share in words.items():
        windows[prompt.tokens(word)] = _shares(share, "cross_replace_steps", steps + 1)
    return windows


def self_window(spec: Any, steps: int) -> Int[np.ndarray, "2"]:
    """[begin, end) in steps of the self attention: (int(c0 N), int(c1 N))."""
    return np.asarray(_shares(spec, "self_replace_steps", steps))


def token_scales(spec: Any, prompt: Prompt, length: int) -> Float[np.ndarray, "tokens"]:
    """Factor of each token's attention: 1 but for the words that the equalizer names.

    Raises: UserError for a word that is not in the prompt.
    Source: google/prompt-to-prompt, get_equalizer.
    """
    scales = np.ones(length, np.float32)
    for word, factor in ({} if spec is None else _by_word(spec, "equalizer")).items():
        if word == DEFAULT:
            raise UserError("equalizer needs words, as in 'smiling=3, pink=-1'")
        scales[prompt.tokens(word)] = _number(factor, "equalizer")
    return scales


def _by_word(spec: Any, name: str) -> dict:
    """{word: value}; what is given without a word stands under DEFAULT."""
    if isinstance(spec, Mapping):
        return dict(spec)
    if not isinstance(spec, str):
        return {DEFAULT: spec}
    pairs = {}
    for part in filter(None, (p.strip() for p in spec.split(","))):
        word, equals, value = part.rpartition("=")
        pairs[word.strip() if equals else DEFAULT] = value
    if not pairs:
        raise UserError(f"{name} is empty")
    return pairs


def _shares(value: Any, name: str, count: int) -> tuple[int, int]:
    """A share or a pair of shares of a run -> the rows [begin, end)."""
    if isinstance(value, str) and ":" in value:
        value = value.split(":")
    pair = value if isinstance(value, list | tuple | np.ndarray) else (0.0, value)
    if len(pair) != 2:
        raise UserError(f"{name} takes one end or begin:end, not {len(pair)} numbers")
    begin, end = (_number(v, name) for v in pair)
    if not 0 <= begin <= end <= 1:
        raise UserError(f"{name} must be shares of the run, 0 <= begin <= end <= 1, not {value!r}")
    return int(begin * count), int(end * count)


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{name} needs a number, not {value!r}")
    return number
