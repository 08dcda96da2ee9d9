"""LPIPS: how far two pictures are apart to the eye, in the features of a trunk.

Source: Zhang et al. 2018; richzhang/PerceptualSimilarity lpips/lpips.py (version 0.1).
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.models.trunks import Picture

SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
NORMALISATIONS = ("lpips", "torchmetrics")


class LPIPS(nn.Module):
    """(a, b, both [n, h, w, 3] in [-1, 1]) -> (distance [n], {"layers": [n, taps]}).

    d = sum_l mean_hw sum_c w_lc (f_l(a) - f_l(b))_c^2, features f_l of (x - shift) / scale
    normalised over their channels.

    Attributes:
      trunk: AlexNet, VGG or SqueezeNet; its `taps` are the layers.
      normalisation: "lpips" divides by |f| + 1e-10, "torchmetrics" (since 1.2.1) by
        sqrt(1e-8 + |f|^2).
    """

    trunk: nn.Module
    normalisation: str = "lpips"

    @nn.compact
    def __call__(self, a: Picture, b: Picture) -> tuple[Float[Array, "n"], dict]:
        rows = (jnp.concatenate([a, b]).astype(jnp.float32) - SHIFT) / SCALE
        _, seen = self.trunk(rows)
        layers = []
        for number, name in enumerate(self.trunk.taps):
            feature = normalised(seen[name].astype(jnp.float32), self.normalisation)
            x, y = jnp.split(feature, 2)
            weight = self.param(f"lin{number}", nn.initializers.ones, (x.shape[-1],), jnp.float32)
            layers.append((jnp.square(x - y) * weight).sum(-1).mean((1, 2)))
        terms = jnp.stack(layers, -1)
        return terms.sum(-1), {"layers": terms}


def normalised(feature: Float[Array, "*n c"], kind: str) -> Float[Array, "*n c"]:
    """A feature divided by its length over the channels; all zeros stay zeros.

    The root is kept from 0, where its slope is infinite, so that gradients are finite.
    """
    square = jnp.square(feature).sum(-1, keepdims=True)
    if kind == "torchmetrics":
        return feature / jnp.sqrt(1e-8 + square)
    nothing = square == 0
    return feature / (jnp.sqrt(jnp.where(nothing, 1.0, square)) + 1e-10)
