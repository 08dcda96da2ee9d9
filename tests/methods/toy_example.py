"""A bundle told by an example that costs nothing: pictures are their own latents."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.core import Cond, Prediction, Schedule
from tests.methods.toy_attention import Pixels


class _Module(NamedTuple):
    image_size: int = 8


class _Exemplar(NamedTuple):
    module: _Module = _Module()


class Seeing(struct.PyTreeNode):
    """eps = tanh(x W + [masked picture | keep] V + what the example says)."""

    weights: Any  # [3, 3]
    around: Any  # [4, 3]
    kind: str = struct.field(pytree_node=False, default="epsilon")

    def __call__(self, x, step, cond, control=None):
        told = cond.text.mean(axis=-2)[..., None, None, :]
        output = jnp.tanh(x @ self.weights + cond.channels @ self.around + told)
        return Prediction.of(self.kind, output, x, step.alpha, step.sigma)


class Painter(Pixels, struct.PyTreeNode):
    """What methods ask of such a bundle; it has no `condition`, for it reads no texts."""

    denoiser: Seeing
    schedule: Schedule = struct.field(pytree_node=False, default=Schedule())
    exemplar: Any = struct.field(pytree_node=False, default=_Exemplar())
    factor: int = struct.field(pytree_node=False, default=1)
    in_channels: int = struct.field(pytree_node=False, default=9)

    def null(self, count=1):
        return Cond(text=jnp.zeros((count, 1, 3)))

    def example(self, pixels):
        return Cond(text=pixels.mean((1, 2))[:, None])


def painter() -> Painter:
    rng = np.random.default_rng(0)
    weights, around = (jnp.asarray(rng.normal(size=s) * 0.3, jnp.float32) for s in ((3, 3), (4, 3)))
    return Painter(Seeing(weights, around))
