"""Which of many generated pairs show their captions and differ as these do, by CLIP."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

Features = Float[Any, "n d"]


@dataclasses.dataclass(frozen=True)
class Scores:
    """Cosines of n pairs: pictures with their captions, the two changes, the two pictures."""

    before: Any  # [n]
    after: Any  # [n]
    direction: Any  # [n]
    image: Any  # [n]

    def good(self, text: float = 0.2, direction: float = 0.2, image: float = 0.7) -> Bool[Any, "n"]:
        """Which pairs reach all thresholds."""
        shown = (self.before >= text) & (self.after >= text)
        return shown & (self.direction >= direction) & (self.image >= image)

    def best(self, count: int, **thresholds: float) -> list[int]:
        """The good pairs with the most alike changes, at most `count`, best first."""
        good = np.flatnonzero(self.good(**thresholds))
        order = np.argsort(-np.asarray(self.direction)[good], kind="stable")
        return [int(k) for k in good[order[:count]]]


def scores(
    before: Features, after: Features, source: Float[Any, "m d"], target: Float[Any, "m d"]
) -> Scores:
    """Scores of picture features [n, d] and caption features [m, d], m 1 or n, all of length 1.

    direction = cos(after - before, target - source).
    Source: Brooks et al. 2023, section 3.1.2; instruct-pix2pix metrics/clip_similarity.py.
    """
    before, after, source, target = (np.asarray(x) for x in (before, after, source, target))
    change, wanted = after - before, target - source
    sizes = np.linalg.norm(change, axis=-1) * np.linalg.norm(wanted, axis=-1)
    return Scores(
        before=(before * source).sum(-1),
        after=(after * target).sum(-1),
        direction=(change * wanted).sum(-1) / np.maximum(sizes, 1e-12),
        image=(before * after).sum(-1),
    )
