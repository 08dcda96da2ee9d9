"""Pairs of pictures that are read, or rendered, anew whenever they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..scenes import instruction
from .folders import Folder, few_of
from .pairs import Pairs, orders_of, rendered
from .pictures import posterior, read_square


@dataclasses.dataclass(frozen=True)
class PairStream:
    """Pairs, none of which is in memory.

    Attributes:
      orders: the n instructions.
      sides: (k, rng) -> the pictures before and after of instruction k, uint8 [s, s, 3].
    """

    orders: tuple[str, ...]
    sides: Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]

    def data(self, tokenize: Callable, *, flip: float = 0.0, **more: Any) -> Folder:
        """Batches {"image", "source_image", "ids"}: every instruction once in an epoch.

        flip: chance that both pictures are mirrored; more: batch, seed, share and skip_broken of
        `Folder`.
        Source: timothybrooks/instruct-pix2pix edit_dataset.py EditDataset.
        """
        ids = tokenize(list(self.orders))

        def example(k: int, rng: np.random.Generator) -> dict[str, Any]:
            before, after = self.sides(k, rng)
            if rng.random() < flip:
                before, after = before[:, ::-1], after[:, ::-1]
            return {"image": after, "source_image": before, "ids": ids[k]}

        return Folder(range(len(self.orders)), example, **more)

    def few(self, model: Any, count: int, seed: int) -> Pairs:
        """`count` of the pairs, as far as they can be read, encoded, each with the same share."""
        rng = np.random.default_rng((seed, 11))
        order = rng.permutation(len(self.orders))
        found = few_of(lambda k: np.stack(self.sides(k, rng)), order, count)
        chosen, sides = [k for k, _ in found], np.stack([both for _, both in found])
        modes = np.asarray(posterior(model, sides.reshape(-1, *sides.shape[2:]))[0])
        latents = modes.reshape(*sides.shape[:2], *modes.shape[1:])
        orders, share = tuple(self.orders[k] for k in chosen), np.full(len(found), 1 / len(found))
        return Pairs(latents, float(model.scaling_factor), orders, share)


def rendered_stream(count: int, seed: int) -> PairStream:
    """The pairs of `rendered_pairs`."""
    edits = rendered(count, seed)
    orders = tuple(instruction(edit) for edit in edits)
    return PairStream(orders, lambda k, rng: (edits[k].source_image, edits[k].target_image))


def folder_stream(folder: Path, size: int) -> PairStream:
    """The pairs of a folder of instruct-pix2pix' layout, of a prompt's pairs one by chance."""
    orders, files = zip(*orders_of(folder), strict=True)

    def sides(k: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        before, after = files[k][rng.integers(len(files[k]))]
        return read_square(before, size), read_square(after, size)

    return PairStream(orders, sides)
