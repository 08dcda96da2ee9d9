"""Examples of Paint by Example's training: a picture, its hole, and what was in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ..images.example import prepared_example
from ..methods.paint_by_example import bilinear_mask
from .agree import by_first
from .digests import of_tree
from .exemplars import augmented
from .kept import forget, is_of, note, per_call
from .pictures import posterior

_FILES = ("latents", "keep", "shown")


class Drawn(NamedTuple):
    """One example before it is encoded.

    Attributes:
      picture: uint8 [s, s, 3].
      keep: float32 [s, s], 1 where the picture is shown, 0 in the hole.
      shown: the example picture, uint8 [e, e, 3].
    """

    picture: UInt8[np.ndarray, "s s 3"]
    keep: Float[np.ndarray, "s s"]
    shown: UInt8[np.ndarray, "e e 3"]


@dataclasses.dataclass(frozen=True)
class Examples:
    """Encoded examples.

    Attributes:
      latents: [n, 4, h, w, c] mean and deviation of the whole picture's latent, then those of the
        picture without its hole; scaled.
      keep: [n, h, w, 1] at the latents' size.
      shown: uint8 [n, e, e, 3].
    """

    latents: np.ndarray
    keep: np.ndarray
    shown: np.ndarray

    def batches(self, batch: int, seed: int) -> Callable[[int], dict]:
        """step -> the batch of `example_condition` and the objective, by (seed, step) alone.

        Each example picture is augmented anew.
        """
        names = ("latent", "deviation", "masked", "masked_deviation")

        def make(step: int) -> dict[str, np.ndarray]:
            rng = np.random.default_rng((seed, step, 5))
            chosen = np.sort(rng.integers(len(self.keep), size=batch))
            sides = np.moveaxis(np.asarray(self.latents[chosen], np.float32), 1, 0)
            shown = [augmented(rng, np.asarray(one)) for one in self.shown[chosen]]
            return {
                **dict(zip(names, sides, strict=True)),
                "keep": np.asarray(self.keep[chosen], np.float32),
                "shown": np.stack([prepared_example(one, len(one)) for one in shown]),
            }

        return make


def masked(picture: np.ndarray, keep: np.ndarray) -> Float[np.ndarray, "s s 3"]:
    """The picture in 0 .. 255 with grey where nothing is kept: x * keep in [-1, 1]."""
    return ((picture - 127.5) * keep[..., None] + 127.5).astype(np.float32)


def prepared(model: Any, drawn: Iterable[Drawn], count: int, folder: Path, about: dict) -> Examples:
    """Encodes `count` examples into files of `folder`; those that are there are read again.

    about: what the examples are, as JSON; those of other things, or of another autoencoder, are
    drawn and encoded anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.npy" for name in _FILES]
    about = {**about, "count": count, "autoencoder": of_tree(model.vae.params)}
    by_first(lambda: _made(model, iter(drawn), count, files, about))
    return Examples(*(np.load(file, mmap_mode="r") for file in files))


def _made(model, drawn, count, files, about) -> None:
    folder = files[0].parent
    if not all(file.is_file() for file in files) or not is_of(folder, about):
        _write(model, drawn, count, files)
        note(folder, about)


def _write(model, drawn, count, files) -> None:
    temporary = [file.with_suffix(".part.npy") for file in files]
    arrays, most = None, per_call(model.size)
    for start in range(0, count, most):
        rows = [next(drawn) for _ in range(min(most, count - start))]
        parts = encoded(model, rows)
        if arrays is None:
            arrays = [_empty(p, count, part) for p, part in zip(temporary, parts, strict=True)]
        for array, part in zip(arrays, parts, strict=True):
            array[start : start + len(rows)] = part
    forget(files[0].parent)
    for array, part, file in zip(arrays, temporary, files, strict=True):
        array.flush()
        part.replace(file)


def _empty(path, count, like):
    return np.lib.format.open_memmap(path, "w+", like.dtype, (count, *like.shape[1:]))


def encoded(model: Any, rows: list[Drawn]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What `Examples` keeps of these rows."""
    keep = np.stack([row.keep for row in rows])
    whole = posterior(model, np.stack([row.picture for row in rows]))
    part = posterior(model, np.stack([masked(row.picture, row.keep) for row in rows]))
    latents = np.stack([np.asarray(x) for x in (*whole, *part)], 1) * model.scaling_factor
    cells = np.asarray(bilinear_mask(keep, model.factor))
    return latents.astype(np.float16), cells.astype(np.float16), np.stack([r.shown for r in rows])
