"""Examples of Paint by Example's training that are drawn anew whenever they are shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..images.example import prepared_example
from ..methods.paint_by_example import bilinear_mask
from .boxed_pictures import boxed_files, picture_example, usable_files
from .boxed_scenes import scene_example
from .examples import Drawn, Examples, encoded, masked
from .exemplars import augmented
from .folders import Folder, few_of


@dataclasses.dataclass(frozen=True)
class ExampleStream:
    """Examples, none of which is in memory.

    Attributes:
      count: pictures, or scenes, of an epoch.
      draw: (rng, k) -> an example of picture k.
    """

    count: int
    draw: Callable[[np.random.Generator, int], Drawn]

    def data(self, factor: int, **more: Any) -> Folder:
        """Batches of `example_condition` and the objective, to be encoded in the step.

        {"image", "masked_image", "keep", "shown"}; every picture once in an epoch, with a random
        box, hole and augmentation each time.

        factor: pixels of a latent cell; more: batch, seed, share and skip_broken of `Folder`.
        """

        def example(k: int, rng: np.random.Generator) -> dict[str, Any]:
            found = self.draw(rng, k)
            shown = augmented(rng, found.shown)
            return {
                "image": found.picture,
                "masked_image": masked(found.picture, found.keep),
                "keep": np.asarray(bilinear_mask(found.keep[None], factor))[0],
                "shown": prepared_example(shown, len(shown)),
            }

        return Folder(range(self.count), example, **more)

    def few(self, model: Any, count: int, seed: int) -> Examples:
        """`count` examples of the first pictures that can be read, encoded."""
        rng = np.random.default_rng((seed, 11))
        found = few_of(lambda k: self.draw(rng, k), range(self.count), count)
        return Examples(*encoded(model, [row for _, row in found]))


def scene_stream(count: int, **ways: Any) -> ExampleStream:
    """Rendered scenes; ways: of `scene_example`. Invented objects come again every epoch."""
    return ExampleStream(count, partial(scene_example, **ways))


def folder_stream(folder: Path, *, skip_broken: bool, **ways: Any) -> ExampleStream:
    """The pictures of a folder with boxes; ways: of `picture_example`."""
    listed = usable_files(boxed_files(folder), skip_broken=skip_broken)
    return ExampleStream(len(listed), lambda rng, k: picture_example(rng, listed[k], **ways))
