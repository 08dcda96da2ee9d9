"""The few pictures of a subject as training data: latents, mirrored or not, and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .kept import per_call
from .pictures import posterior, read_folder
from .templates import TEMPLATES


@dataclasses.dataclass(frozen=True)
class Latents:
    """Posteriors of pictures and of their mirror images, scaled as the UNet takes them.

    Attributes:
      mean, deviation: [n, 2, h, w, c]; the second of the two is mirrored.
    """

    mean: np.ndarray
    deviation: np.ndarray

    def draw(self, rng: np.random.Generator, chosen: np.ndarray, flip: float) -> dict:
        """The arrays of chosen pictures, each mirrored with the chance `flip`."""
        mirrored = (rng.random(len(chosen)) < flip).astype(int)
        return {name: x[chosen, mirrored] for name, x in self.arrays().items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """{name in a batch: [n, 2, ...]}."""
        return {"latent": self.mean, "deviation": self.deviation}


def latents_of(model: Any, pictures: np.ndarray) -> Latents:
    """Posteriors of uint8 pictures [n, h, w, 3]."""
    part = per_call(pictures.shape[1])
    both = np.stack([pictures, pictures[:, :, ::-1]], axis=1)
    flat = both.reshape(-1, *pictures.shape[1:])
    sides = [posterior(model, flat[k : k + part]) for k in range(0, len(flat), part)]
    mean, deviation = (
        model.scaling_factor * np.concatenate([np.asarray(s[i], np.float32) for s in sides])
        for i in (0, 1)
    )
    return Latents(*(x.reshape(*both.shape[:2], *x.shape[1:]) for x in (mean, deviation)))


def sentences(templates: str, word: str) -> tuple[str, ...]:
    """The templates (a name of TEMPLATES, or "a photo of {}|{} at home") with the word in them."""
    chosen = TEMPLATES.get(templates) or tuple(templates.split("|"))
    if any(text.count("{}") != 1 for text in chosen):
        known = ", ".join(TEMPLATES)
        raise UserError(f"templates must be {known}, or sentences with one {{}}: {templates!r}")
    return tuple(text.format(word) for text in chosen)


def captions(pictures: Sequence[Path], word: str) -> list[tuple[str, ...]] | None:
    """Per picture, the sentence of the .txt file of its name, {} being the word; None if none has.

    Raises: UserError when some pictures have one and others none, or a sentence lacks the {}.
    """
    files = [path.with_suffix(".txt") for path in pictures]
    there = [path.is_file() for path in files]
    if not any(there):
        return None
    if not all(there):
        raise UserError(f"{files[there.index(False)]} is missing; the other pictures have one")
    texts = [_said(path) for path in files]
    return [sentences(text.replace("|", " "), word) for text in texts]


def _said(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not in UTF-8; save it as that") from None


def subject_batches(
    latents: Latents, ids: Sequence[np.ndarray], batch: int, seed: int, flip: float
) -> Callable[[int], dict]:
    """step -> {"latent", "deviation", "ids"}: random pictures, each with one of its sentences.

    `ids`: per picture, [sentences, tokens].
    """

    def make(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((seed, step, 5))
        order = np.concatenate([rng.permutation(len(ids)) for _ in range(-(-batch // len(ids)))])
        chosen = order[:batch]
        words = np.stack([ids[k][rng.integers(len(ids[k]))] for k in chosen])
        return {**latents.draw(rng, chosen, flip), "ids": words}

    return make


def read_subject(model: Any, data: Path | None, config: Any, word: str) -> tuple[Latents, list]:
    """(latents, per picture its sentences): captions of .txt files, else the config's templates."""
    kept, pictures = read_folder(data, model.size, skip_broken=config.skip_broken)
    said = captions(kept, word)
    if said is None:
        said = [sentences(config.templates, word)] * len(pictures)
    return latents_of(model, pictures), said
