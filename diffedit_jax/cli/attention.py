"""`--show-attention WORDS`: where words look, beside every picture that is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .. import images, solvers
from ..errors import UserError
from ..methods.attention_pictures import show_attention
from ..methods.words import listed_words, read_prompt
from .batches import Batch, canvas_of
from .jobs import Job

_OF_A_DRAWING = ("steps", "guidance", "solver", "spacing", "height", "width", "negative")
_NOT_SEEN = ("seed", "index", "size")  # options that no drawing depends on, or that are told apart
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

    A picture that `generate` drew without further noise is drawn once more and read on the way; of
    everything else, what was edited is inverted under its source prompt, and the result under the
    prompt.
    """
    for job, result in zip(batch.jobs, results, strict=True):
        again = _drawn_again(model, job)
        rows = _drawn(model, job, words) if again else _inverted(model, job, result, words)
        images.write(attention_path(job.out), _stacked(rows))


def attention_path(out: Path) -> Path:
    """cat.png -> cat.attention.png"""
    return out.with_name(f"{out.stem}.attention.png")


def _drawn_again(model, job: Job) -> bool:
    """Whether the very picture can be drawn by `show_attention`: no noise, no other knobs."""
    given = {k for k, v in job.rest.items() if v is not None} - set(_NOT_SEEN)
    solver = job.rest.get("solver") or model.defaults.get("solver") or "ddim"
    plain = job.method.name == "generate" and given <= set(_OF_A_DRAWING)
    return plain and not solvers.named(solver).draws


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
    texts = [(job.own.get("prompt"), result)]
    if job.image is not None:
        before = images.read(job.image).pixels
        texts.insert(0, (job.own.get("source") or job.own["prompt"], before))
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
