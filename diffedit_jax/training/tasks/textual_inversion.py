"""Textual inversion: a new word for what a few pictures show; all weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...bundles.adapters import extended
from ...checkpoints.embeddings_write import write_embedding
from ...errors import UserError
from ..agree import on_host
from ..conditions import text_condition
from ..data import WHOLE, Changed, Share, Stepped
from ..folders import files_of
from ..selections import NewRows
from ..subject import read_subject, said_of, sentences, subject_batches, subject_data
from ..task import Task
from ..words import in_use, single_token, without
from .shared import autoencoder, frozen, limits_of, objective_of


def with_word(model: Any, word: str, vectors: int) -> tuple[Any, tuple[int, ...]]:
    """(the model with a new word of `vectors` vectors, zeros at first, their rows).

    Raises: UserError for a word that is in the vocabulary already.
    """
    if len(model.texts) != 1:
        raise UserError("textual inversion is for models with one text encoder, not for SDXL")
    text = model.texts[0].module
    size = text.vocab_size
    zeros = np.zeros((vectors, text.hidden_size), np.float32)
    return extended(model, {word: (zeros,)}, word), tuple(range(size, size + vectors))


def inversion_task(model: Any, config: Any, rows: tuple[int, ...]) -> Task:
    """The rows of the new word learn; `model` is one of `with_word`.

    config: initial (words of one token each that the vectors start from, "" for none), compat.
    """
    words = [single_token(model.tokenizers[0], word) for word in config.initial.split()]
    selection = NewRows(rows, tuple(words), compat=config.compat)
    condition = text_condition(model.texts[0].module)
    return Task(
        "textual_inversion", {**frozen(model), **autoencoder(model, config)},
        objective_of(model, config), selection, condition, limits=limits_of(model),
    )  # fmt: skip


def prompts(config: Any) -> dict[str, tuple[str, ...]]:
    """What a look at the run draws: the word in its templates."""
    return {"word": sentences(config.templates, config.word)}


def inversion_batches(
    model: Any, config: Any, data: Path | None, rows: tuple[int, ...]
) -> Callable[[int], dict]:
    """Batches of pictures and sentences with the word; of several vectors, those in use.

    config: word, batch, seed, flip, templates ("object", "style" or sentences), progressive.
    """
    latents, said = read_subject(model, data, config, config.word)
    _refuse_long(model, said)
    ids = [model.tokenize(list(texts)) for texts in said]
    make, change = (
        subject_batches(latents, ids, config.batch, config.seed, config.flip),
        _progressive(config, rows),
    )
    return lambda step: change(step, make(step))


def inversion_data(
    model: Any,
    config: Any,
    data: Path | None,
    rows: tuple[int, ...],
    share: Share = WHOLE,
) -> Any:
    """Data for `fit`: `inversion_batches`, or pictures that are read anew and encoded in the step.

    config: also cache_latents (False reads anew), crop (then "random" too).
    """
    if config.get("cache_latents", True):
        return Stepped(inversion_batches(model, config, data, rows), share)
    _refuse_long(model, said_of(files_of(data), config, config.word))
    read = subject_data(model, data, config, config.word, config.batch, share=share)
    return Changed(read, _progressive(config, rows))


def _refuse_long(model, said):
    """Every sentence must have room for all vectors of the word."""
    for lost in (line for texts in said for line in model.text_notices(texts)):
        raise UserError(f"{lost}; use fewer vectors or shorter templates")


def _progressive(config, rows) -> Callable[[int, dict], dict]:
    """A change of batches: of several vectors, those that are in use by then."""

    def change(step: int, batch: dict) -> dict:
        unused = rows[in_use(step, len(rows), config.progressive) :]
        return {**batch, "ids": without(batch["ids"], unused)} if unused else batch

    return change


def write_word(path: Path, word: str, trained: Any) -> None:
    """learned_embeds.safetensors, as diffusers and AUTOMATIC1111 read it."""
    write_embedding(path, {word: np.asarray(on_host(trained), np.float32)})
