"""Words as token ids: of several vectors, single ones, and rare ones."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..errors import UserError


def expand(
    ids: Int[np.ndarray, "n tokens"], placeholder: int, rows: Sequence[int]
) -> Int[np.ndarray, "n tokens"]:
    """Every `placeholder` becomes the ids `rows`; what follows moves right and is cut off.

    As the original does it, so the end of the text can fall off too.
    Source: rinongal/textual_inversion ldm/modules/embedding_manager.py forward.
    """
    found = np.empty_like(ids)
    for i, row in enumerate(ids):
        parts = [rows if token == placeholder else (token,) for token in row]
        found[i] = np.concatenate([np.asarray(part, ids.dtype) for part in parts])[: len(row)]
    return found


def without(ids: Int[np.ndarray, "n tokens"], unused: Sequence[int]) -> Int[np.ndarray, "n tokens"]:
    """The rows with some tokens taken out; the last token of a row fills its end."""
    found = np.empty_like(ids)
    for i, row in enumerate(ids):
        rest = row[~np.isin(row, unused)]
        found[i] = np.concatenate([rest, np.full(len(row) - len(rest), row[-1], ids.dtype)])
    return found


def in_use(step: int, count: int, every: int) -> int:
    """How many of `count` vectors take part: one, and one more after every `every` steps.

    every = 0: all from the start. The original counts calls, this one included, in thousands of 2.
    Source: rinongal/textual_inversion embedding_manager.py (progressive_words).
    """
    return count if not every else min(count, 1 + (step + 1) // every)


def single_token(tokenizer: Any, word: str) -> int:
    """The id of a word that is one token. Raises UserError if it is none or several."""
    return tokenizer.token(word)


def rare_words(
    tokenizer: Any, table: Float[Any, "words d"], count: int = 1, seed: int = 0
) -> list[str]:
    """Words of one token and at most three letters that the text encoder hardly ever saw.

    Drawn from the tenth of all such tokens with the smallest vectors, since training makes the
    vectors of the words that it meets longer. (The paper draws from the rare end of a vocabulary
    that is sorted by frequency, which CLIP's is not.)
    Source: Ruiz et al. 2022, section 3.2 (rare-token identifiers).
    Raises: UserError for a tokenizer without vocab.json.
    """
    if "vocab.json" not in tokenizer.files:
        raise UserError("the tokenizer has no vocab.json to look for a rare word in; name a word")
    short = [
        (word.removesuffix("</w>"), row)
        for word, row in sorted(json.loads(tokenizer.files["vocab.json"]).items())
        if re.fullmatch(r"[a-z]{1,3}</w>", word) and row < len(table)
    ]
    sizes = np.linalg.norm(np.asarray(table, np.float32)[[row for _, row in short]], axis=-1)
    least = np.argsort(sizes, kind="stable")[: max(count, len(short) // 10)]
    chosen = np.random.default_rng(seed).choice(least, count, replace=False)
    return [short[k][0] for k in chosen]
