"""New words of a text encoder: rows for them, and their places in a row of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int

from ..errors import UserError

_TABLE = "embeddings/token_embedding/embedding"
_LEGACY_END = 2  # configs with this eos id mean the largest id of a text


def grow(text: Any, params: Any, count: int) -> tuple[Any, Any, tuple[int, ...]]:
    """(module, params, ids): the text encoder with `count` more rows, zeros, in its token table."""
    flat = flatten_dict(params, sep="/")
    table = flat[_TABLE]
    size = table.shape[0]
    table = jnp.concatenate([table, jnp.zeros((count, table.shape[1]), table.dtype)])
    end = size - 1 if text.eos_token_id == _LEGACY_END else text.eos_token_id
    module = text.clone(vocab_size=size + count, eos_token_id=end)
    return module, unflatten_dict(flat | {_TABLE: table}, sep="/"), (*range(size, size + count),)


def expand(
    ids: Int[np.ndarray, "n tokens"], placeholder: int, rows: Sequence[int], end: int | None = None
) -> Int[np.ndarray, "n tokens"]:
    """Every `placeholder` becomes the ids `rows`; what follows moves right and is cut off.

    `end`: id that must stand last in a row that was cut; None leaves it without an end, as the
    original does.
    Source: rinongal/textual_inversion ldm/modules/embedding_manager.py forward.
    """
    found = np.empty_like(ids)
    for i, row in enumerate(ids):
        parts = [rows if token == placeholder else (token,) for token in row]
        longer = np.concatenate([np.asarray(part, ids.dtype) for part in parts])
        found[i] = longer[: len(row)]
        if end is not None and end in row and end not in found[i]:
            found[i, -1] = end
    return found


def tokenize_with(
    tokenizer: Any, texts: Sequence[str], word: str, rows: Sequence[int]
) -> Int[np.ndarray, "n tokens"]:
    """Ids of texts in which `word`, between blanks, stands for the ids `rows`.

    Raises: UserError for a text without the word, and for one that does not fit with it.
    """
    found = []
    for text in texts:
        before, middle, after = f" {text} ".partition(f" {word} ")
        if not middle:
            raise UserError(f"the text {text!r} does not hold the word {word!r}")
        left, right = (tokenizer.spans(part)[0] for part in (before, after))
        row = [*left[:-1], *rows, *right[1:]]
        if len(row) > tokenizer.length:
            raise UserError(f"the text {text!r} has more than {tokenizer.length} tokens")
        found.append(row + [_pad(tokenizer)] * (tokenizer.length - len(row)))
    return np.asarray(found, np.int32)


def single_token(tokenizer: Any, word: str) -> int:
    """The id of a word that is one token. Raises UserError if it is none or several."""
    ids = tokenizer.spans(word)[0][1:-1]
    if len(ids) != 1:
        raise UserError(f"{word!r} is {len(ids)} tokens of this model; choose a word that is one")
    return ids[0]


def _pad(tokenizer):
    return int(tokenizer([""])[0, -1])
