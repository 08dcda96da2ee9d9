"""Batches that are a pure function of (seed, step): rendered scenes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import render_batch, sample_caption, sample_scene
from diffedit_jax.scenes.spec import Scene

_STREAM = 7919  # keeps the seeds of different uses apart


class Share(NamedTuple):
    """What a process loads of every batch.

    Attributes:
      parts: which of `of` equal parts, in order; they need not follow each other.
    """

    parts: tuple[int, ...] = (0,)
    of: int = 1

    def rows(self, batch: int) -> np.ndarray:
        """The places of this process's examples in a batch of so many."""
        if batch % self.of:
            raise UserError(f"batch={batch} does not divide by the {self.of} parts of the mesh's "
                            f"data and fsdp; change batch or mesh")  # fmt: skip
        size = batch // self.of
        return np.concatenate([np.arange(part * size, (part + 1) * size) for part in self.parts])


WHOLE = Share()


class Stepped:
    """Data that is a function of the step alone: the k-th batch is `make(k)`.

    Args:
      make: step -> dict of arrays, the whole batch of all processes.
      share: from `sharding.share`: the part of it that this process is given.
    """

    def __init__(self, make: Callable[[int], dict], share: Share = WHOLE):
        self._make, self._share, self._step = make, share, 0

    def next(self) -> dict[str, np.ndarray]:
        """This process's part of the next batch."""
        batch = self._make(self._step)
        self._step += 1
        return {name: x[self._share.rows(len(x))] for name, x in batch.items()}

    def state(self) -> dict:
        """Where the data stands, as JSON."""
        return {"step": self._step}

    def restore(self, state: dict) -> None:
        """Go on from a `state()`."""
        self._step = state["step"]


class Changed:
    """Data whose k-th batch is change(k, batch) of the k-th batch of other data."""

    def __init__(self, data: Any, change: Callable[[int, dict], dict]):
        self._data, self._change, self._step = data, change, 0

    def next(self) -> dict[str, np.ndarray]:
        """This process's part of the next batch."""
        found = self._change(self._step, self._data.next())
        self._step += 1
        return found

    def state(self) -> dict:
        """Where the data stands, as JSON."""
        return {"step": self._step, "data": self._data.state()}

    def restore(self, state: dict) -> None:
        """Go on from a `state()`."""
        self._step = state["step"]
        self._data.restore(state["data"])


def scenes_of(seed: int, step: int, count: int, **choices) -> list[Scene]:
    """`count` scenes that depend on (seed, step) alone; choices go to sample_scene."""
    rng = np.random.default_rng((_STREAM, seed, step))
    return [sample_scene(rng, **choices) for _ in range(count)]


def to_unit(pictures: np.ndarray) -> np.ndarray:
    """uint8 pictures to float32 in [-1, 1]: x / 127.5 - 1."""
    return pictures.astype(np.float32) / 127.5 - 1


def _crop(rng, picture, size):
    top, left = rng.integers(0, picture.shape[0] - size + 1, 2)
    return picture[top : top + size, left : left + size]


def crops(seed: int, batch: int, size: int) -> Callable[[int], dict[str, np.ndarray]]:
    """Random square crops {"image": [batch, size, size, 3]} in [-1, 1] of scenes, by step."""

    def make(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((seed, step))
        pictures = render_batch(scenes_of(seed, step, batch))
        return {"image": to_unit(np.stack([_crop(rng, picture, size) for picture in pictures]))}

    return make


def captioned(seed: int, step: int, batch: int, tokenize: Callable) -> dict[str, np.ndarray]:
    """Pictures [batch, 64, 64, 3] in [-1, 1] and caption ids [batch, tokens]."""
    scenes = scenes_of(seed, step, batch)
    rng = np.random.default_rng((seed, step, 1))
    ids = tokenize([sample_caption(rng, scene) for scene in scenes])
    return {"image": to_unit(render_batch(scenes)), "ids": ids}


def load_tokenizer(folder) -> Callable[[list[str]], np.ndarray]:
    """A function from captions to ids [n, max_length] by the tokenizer in `folder`."""
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)

    def tokenize(captions: list[str]) -> np.ndarray:
        rows = tokenizer(captions, padding="max_length", truncation=True)["input_ids"]
        return np.asarray(rows, np.int32)

    return tokenize
