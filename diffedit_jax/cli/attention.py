"""`--show-attention WORDS`: where words look, beside every picture that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import images
from ..errors import UserError
from ..methods.attention_pictures import show_attention
from ..methods.words import listed_words, read_prompt
from .batches import Batch, canvas_of
from .jobs import Job

_OF_A_DRAWING = ("steps", "guidance", "solver", "spacing", "height", "width", "negative")
_OF_AN_INVERSION = ("steps", "spacing")


def checked_words(model: Any, jobs: list[Job], text: str) -> list[str]:
    """The words; refuses one that none of a job's texts has, naming the words there are."""
    words = listed_words(text)
    if not words:
        raise UserError("--show-attention names no words")
    if model.in_channels != 4:
        raise UserError("--show-attention reads text-to-image networks (4 input channels) only")
    for job in jobs:
        texts = [t for t in (job.own.get("source"), job.own.get("prompt")) if t]
        prompts = [read_prompt(model, t) for t in texts]
        for word in words:
            if not any(p.has(word) for p in prompts):
                there = ", ".join(dict.fromkeys(w for p in prompts for w in p.words))
                raise UserError(f"the word {word!r} is not in the prompt; its words are: {there}")
    return words


def write_attention(model: Any, batch: Batch, results: list[np.ndarray], words: list[str]) -> None:
    """Writes OUT.attention.png for every job of a batch: one tile per word.

    A picture that was drawn is drawn once more, with the same noise, and read on the way; a picture
    that was edited is inverted under its source prompt, and the result under the prompt.
    """
    for job, result in zip(batch.jobs, results, strict=True):
        drawn = job.image is None
        rows = _drawn(model, job, words) if drawn else _inverted(model, job, result, words)
        images.write(attention_path(job.out), _stacked(rows))


def attention_path(out: Path) -> Path:
    """cat.png -> cat.attention.png"""
    return out.with_name(f"{out.stem}.attention.png")


def _drawn(model, job: Job, words: list[str]) -> list[np.ndarray]:
    given = {k: job.rest[k] for k in _OF_A_DRAWING if job.rest.get(k) is not None}
    if job.own.get("negative"):
        given["negative"] = [job.own["negative"]]
    prompt = job.own["prompt"]
    given = _defaults(model, _OF_A_DRAWING) | given
    had = _had(model, prompt, words)
    return [show_attention(model, prompt=[prompt], words=had, seed=[job.seed], **given).sheet()]


def _inverted(model, job: Job, result: np.ndarray, words: list[str]) -> list[np.ndarray]:
    """The heat over the picture under its source prompt, and over the result under the prompt."""
    given = {k: job.rest[k] for k in _OF_AN_INVERSION if job.rest.get(k) is not None}
    given = _defaults(model, _OF_AN_INVERSION) | given
    before = images.read(job.image).pixels
    texts = (job.own.get("source") or job.own["prompt"], before), (job.own.get("prompt"), result)
    rows = []
    for text, pixels in texts:
        had = _had(model, text, words) if text else []
        if not had:
            continue
        canvas = canvas_of(job, pixels.shape[:2], model)
        frame = images.Frame.fit(pixels.shape, max(canvas), model.size // 8)
        picture = frame.apply(pixels)[None].astype(np.float32) / 127.5 - 1
        rows.append(show_attention(model, picture, prompt=[text], words=had, **given).sheet())
    return rows


def _defaults(model, names) -> dict:
    return {k: v for k, v in model.defaults.items() if k in names}


def _had(model, text: str, words: list[str]) -> list[str]:
    prompt = read_prompt(model, text)
    return [word for word in words if prompt.has(word)]


def _stacked(rows: list[np.ndarray]) -> np.ndarray:
    """Sheets of different widths under each other, on black."""
    wide = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(r, ((0, 0), (0, wide - r.shape[1]), (0, 0))) for r in rows])
