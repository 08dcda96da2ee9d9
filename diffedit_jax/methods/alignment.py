"""Which source token a target token takes its attention from.

A map is a matrix M [source tokens, target tokens] and the share `fresh` [target tokens] that a
target token keeps of its own attention: A'_k = sum_s A_s M[s, k] + fresh_k A_k.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import UserError
from .words import Prompt

CONTROLLERS = ("auto", "replace", "refine", "reweight")
MAPPERS = ("aligned", "official")


class TokenMap(NamedTuple):
    """Attention of target tokens from that of source tokens."""

    mapper: np.ndarray  # [source tokens, target tokens] float32
    fresh: np.ndarray  # [target tokens] float32


def token_map(source: Prompt, target: Prompt, length: int, controller: str = "auto",
              mapper: str = "aligned") -> TokenMap:  # fmt: skip
    """The map of one target.

    Args:
      length: tokens that the network reads.
      controller: "replace" (as many words), "refine" (words come or go), "reweight" (token k of
        the source for token k), "auto" (replace where the word counts agree, else refine).
      mapper: "aligned", or "official" for the published code's rule after the last changed token,
        which is off by the difference in length.
    """
    if controller not in CONTROLLERS:
        raise UserError(f"controller {controller!r} is not one of {', '.join(CONTROLLERS)}")
    if mapper not in MAPPERS:
        raise UserError(f"mapper {mapper!r} is not one of {', '.join(MAPPERS)}")
    if controller == "auto":
        controller = "replace" if len(source.words) == len(target.words) else "refine"
    if controller == "reweight":
        return TokenMap(np.eye(length, dtype=np.float32), np.zeros(length, np.float32))
    return {"replace": replacement, "refine": refinement}[controller](
        source, target, length, mapper
    )


def replacement(source: Prompt, target: Prompt, length: int, mapper: str = "aligned") -> TokenMap:
    """Word k of the target looks where word k of the source looked.

    Equal token counts: token by token; else M[s, t] = 1 / (tokens of the target word).
    Raises: UserError where the prompts differ in their number of words.

    Source: google/prompt-to-prompt, seq_aligner.get_replacement_mapper.
    """
    old, new = source.words, target.words
    if len(old) != len(new):
        raise UserError(
            f"replacement needs prompts of equal word count, not {len(old)} and {len(new)} "
            f"({target.text!r}); use controller='refine'"
        )
    matrix = np.zeros((length, length), np.float32)
    i = j = 0
    pairs = zip(old, new, source.word_tokens, target.word_tokens, strict=True)
    for s, t in ((s, t) for a, b, s, t in pairs if a != b and s and t):
        between = np.arange(s[0] - i)
        matrix[i + between, j + between] = 1
        matrix[np.ix_(s, t)] = np.eye(len(s)) if len(s) == len(t) else 1 / len(t)
        i, j = s[-1] + 1, t[-1] + 1
    rest = np.arange(length - max(i, j))
    if mapper == "official":  # counts source tokens as if they were the target's
        matrix[j + rest, j + rest] = 1
        return TokenMap(matrix, np.zeros(length, np.float32))
    matrix[i + rest, j + rest] = 1
    return TokenMap(matrix, _unmapped(matrix))


def refinement(source: Prompt, target: Prompt, length: int, mapper: str = "aligned") -> TokenMap:
    """Tokens that both prompts have look where they looked in the source; new ones are free.

    Global alignment of the token ids (Needleman-Wunsch, gap 0, match 1, mismatch -1; of equal
    scores a new token is preferred, then a dropped one, then a match).

    Source: google/prompt-to-prompt, seq_aligner.get_refinement_mapper.
    """
    matrix = np.zeros((length, length), np.float32)
    for j, i in enumerate(_aligned(source.ids, target.ids)):
        if i is not None:
            matrix[i, j] = 1
    i, j = len(source.ids), len(target.ids)
    rest = np.arange(length - (j if mapper == "official" else max(i, j)))
    matrix[(j if mapper == "official" else i) + rest, j + rest] = 1
    return TokenMap(matrix, _unmapped(matrix))


def _unmapped(matrix: np.ndarray) -> np.ndarray:
    """1 for target tokens that no source token leads to."""
    return (matrix.sum(axis=0) == 0).astype(np.float32)


def _aligned(x, y) -> list[int | None]:
    """For each token of y the token of x that it is, or None."""
    score = np.zeros((len(x) + 1, len(y) + 1))
    came = np.zeros(score.shape, int)  # 0: y's token is new, 1: x's token is dropped, 2: a pair
    came[1:, 0] = 1
    for i in range(1, len(x) + 1):
        for j in range(1, len(y) + 1):
            match = 1 if x[i - 1] == y[j - 1] else -1
            ways = (score[i, j - 1], score[i - 1, j], score[i - 1, j - 1] + match)
            came[i, j] = int(np.argmax(ways))
            score[i, j] = max(ways)
    found: list[int | None] = []
    i, j = len(x), len(y)
    while j > 0:
        if came[i, j] == 1:
            i -= 1
            continue
        pair = came[i, j] == 2
        i, j = i - int(pair), j - 1
        found.append(i if pair else None)
    return found[::-1]
