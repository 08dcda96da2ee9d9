r"""Paint by Example: put what another picture shows into a hole of this one.

Paper: Yang et al. 2022 (2211.13227); 50 steps of PLMS, guidance 5, as its inference script has
them.
Hardware: any; Stable Diffusion's size on one GPU or TPU core.
Expected outcome: the masked part shows something like the example (its kind, not its very self),
in the light and the perspective of the picture; a mask that covers a few percent of it at least.
Command: diffedit edit photo.png --method paint_by_example \
    --model Fantasy-Studio/Paint-by-Example --mask hole.png --example dog.jpg --out photo_dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `paint_by_example`."""
    return ConfigDict(
        dict(
            method="paint_by_example",
            steps=50,
            guidance=5.0,
            solver="plms",
            posterior="sample",
        )
    )
