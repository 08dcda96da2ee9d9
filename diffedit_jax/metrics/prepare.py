"""What happens to a picture before a network sees it: size, crop, mean and deviation.

Every published number depends on this, so the choices have names.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffedit_jax.metrics.pictures import Pictures, unit
from diffedit_jax.models.resize import centre_crop, resize, resize_bytes, shorter_side

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class Preparation:
    """(scale x + offset - mean) / std of the resized and cropped picture.

    Attributes:
      size: length of the shorter side after resizing; None leaves the size.
      longest: limit of the longer side.
      crop: side of the square cut from the middle; None keeps everything.
      squash: resize to size x size without regard to proportions.
      method, antialias: of the resizing, see models.resize.
      bytes: resize bicubically as PIL does, rounding to bytes (what files go through); then there
        is no gradient, and `method` and `antialias` must be left alone.
      whole: the crop's margin rule, see models.resize.centre_crop.
      scale, offset: 1 and 0, but for the quirks that official code has.
    """

    size: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    longest: int | None = None
    crop: int | None = None
    squash: bool = False
    method: str = "bicubic"
    antialias: bool = True
    bytes: bool = False
    whole: bool = False
    scale: float = 1.0
    offset: float = 0.0

    def __call__(self, pictures: Any) -> Pictures:
        """uint8 or [0, 1] pictures [..., h, w, 3] -> normalised [..., h2, w2, 3]."""
        x = unit(pictures)
        if self.size is not None:
            shape = (self.size,) * 2 if self.squash else shorter_side(
                x.shape, self.size, self.longest)  # fmt: skip
            x = self._resized(x, shape)
        if self.crop is not None:
            x = centre_crop(x, self.crop, whole=self.whole)
        return (self.scale * x + self.offset - np.float32(self.mean)) / np.float32(self.std)

    def _resized(self, x: Pictures, shape: tuple[int, int]) -> Pictures:
        if shape == x.shape[-3:-1]:
            return x
        if self.bytes:
            return resize_bytes(jnp.round(x * 255) / 255, shape)
        return resize(x, shape, self.method, antialias=self.antialias)

    def but(self, **changes: Any) -> "Preparation":
        """The same with some choices changed."""
        return dataclasses.replace(self, **changes)


# CLIP's own, for a network of 224 pixels (transformers' CLIPImageProcessor, openai/CLIP).
CLIP_FILES = Preparation(224, *CLIP, crop=224, bytes=True, whole=True)
# timothybrooks/instruct-pix2pix metrics/clip_similarity.py: squashed, torch's bicubic.
CLIP_SQUASHED = Preparation(224, *CLIP, squash=True, antialias=False)
# The same script is handed [-1, 1] pictures by metrics/compute_metrics.py.
INSTRUCT_PIX2PIX = CLIP_SQUASHED.but(scale=2.0, offset=-1.0)
# DreamBooth's DINO and CLIP-I as everybody computes them (ImagenHub, MagicBrush).
DINO_FILES = Preparation(256, *IMAGENET, crop=224, bytes=True)
# Splice, DiffuseIT: [0, 1] tensors, bilinear, torch's of 2021.
STRUCTURE = Preparation(224, *IMAGENET, longest=480, method="bilinear", antialias=False)
# cure-lab/PnPInversion evaluation/matrics_calculator.py forgets to divide by 255.
PIE_BENCH = STRUCTURE.but(scale=255.0)
