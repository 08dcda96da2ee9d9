"""The few pictures of a subject as training data: latents, mirrored or not, and sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import UserError
from .data import Share
from .folders import Folder, files_of
from .kept import per_call
from .pictures import in_middle, posterior, read_folder, read_square
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
    """(latents, per picture its sentences). Raises UserError for crop="random"."""
    if config.get("crop", "middle") != "middle":
        raise UserError(
            f"crop={config.crop!r} cuts pictures anew every time; set cache_latents=False"
        )
    kept, pictures = read_folder(data, model.size, skip_broken=config.skip_broken)
    return latents_of(model, pictures), said_of(kept, config, word)


def said_of(files: Sequence[Path], config: Any, word: str) -> list[tuple[str, ...]]:
    """Per picture its sentences: captions of .txt files, else the config's templates."""
    return captions(files, word) or [sentences(config.templates, word)] * len(files)


def subject_data(
    model: Any, data: Path | None, config: Any, word: str, batch: int, **more: Any
) -> Folder:
    """The pictures of a subject, read anew whenever they are shown: see `picture_data`, and `more`.

    config: seed, flip, crop, skip_broken, templates.
    """
    files = files_of(data)
    ids = [model.tokenize(list(texts)) for texts in said_of(files, config, word)]
    ways = dict(flip=config.flip, crop=config.crop, skip_broken=config.skip_broken)
    return picture_data(model, files, ids, batch, config.seed, **ways, **more)


def picture_data(
    model: Any,
    files: Sequence[Path],
    ids: Sequence[np.ndarray],
    batch: int,
    seed: int,
    *,
    share: Share,
    flip: float = 0.0,
    crop: str = "middle",
    skip_broken: bool = False,
    also: Mapping[str, Any] = MappingProxyType({}),
) -> Folder:
    """{"image" uint8 [n, s, s, 3], "ids"}: every picture once in an epoch, one of its sentences.

    Args:
      ids: per picture, [sentences, tokens].
      flip: chance that a picture is mirrored.
      crop: "middle" or "random": which square of a picture that is none.
      share: of this process.
      also: what every example says too, such as its weight.
    """

    def example(k: int, rng: np.random.Generator) -> dict[str, Any]:
        begin = in_middle if crop == "middle" else lambda slack: int(rng.integers(slack + 1))
        picture = read_square(files[k], model.size, begin)
        mirrored = picture[:, ::-1] if rng.random() < flip else picture
        return {"image": mirrored, "ids": ids[k][rng.integers(len(ids[k]))], **also}

    ways = dict(batch=batch, seed=seed, share=share, skip_broken=skip_broken)
    return Folder(range(len(files)), example, **ways)
