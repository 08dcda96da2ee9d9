"""Batches of rendered scenes, a pure function of (seed, step)."""

from collections.abc import Callable

import numpy as np

from diffedit_jax.scenes import render_batch, sample_caption, sample_scene
from diffedit_jax.scenes.spec import Scene

_STREAM = 7919  # keeps the seeds of different uses apart


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


def crops(seed: int, batch: int, size: int) -> Callable[[int], np.ndarray]:
    """Random square crops [batch, size, size, 3] in [-1, 1] of training scenes, by step."""

    def make(step: int) -> np.ndarray:
        rng = np.random.default_rng((seed, step))
        pictures = render_batch(scenes_of(seed, step, batch))
        return to_unit(np.stack([_crop(rng, picture, size) for picture in pictures]))

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
