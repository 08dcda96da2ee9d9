"""What a network says about a noised latent, in every parametrisation at once.

x = alpha x0 + sigma eps          v = alpha eps - sigma x0          alpha^2 + sigma^2 = 1
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import struct

KINDS = ("epsilon", "v_prediction", "sample")


class Prediction(struct.PyTreeNode):
    """One statement about (x0, eps), made by `Prediction.of`; the parts never disagree.

    Both parts are kept because either one alone loses the other where alpha or sigma vanishes.
    """

    x: Any  # [*rows, h, w, c] the noised latent that was asked about
    x0: Any  # [*rows, h, w, c]
    eps: Any  # [*rows, h, w, c]
    alpha: Any  # []
    sigma: Any  # []
    log_variance: Any = None  # [*rows, h, w, c] raw interpolation of a learned-range network
    pull: Any = 0.0  # [*rows, h, w, c] summed gradients of log-likelihoods by x
    taps: Any = struct.field(default_factory=dict)  # what rules read: {site name: read}
    kind: str = struct.field(pytree_node=False, default="epsilon")  # what the network speaks

    @classmethod
    def of(cls, kind: str, output, x, alpha, sigma, **rest) -> Prediction:
        """Builds a prediction from a network's output of one of `KINDS`.

        epsilon: x0 = (x - sigma eps) / alpha;  v: x0 = alpha x - sigma v, eps = sigma x + alpha v;
        sample: eps = (x - alpha x0) / sigma.
        """
        if kind == "epsilon":
            x0, eps = (x - sigma * output) / alpha, output
        elif kind == "v_prediction":
            x0, eps = alpha * x - sigma * output, sigma * x + alpha * output
        elif kind == "sample":
            x0, eps = output, (x - alpha * output) / sigma
        else:
            raise ValueError(f"prediction kind {kind!r} is not one of {', '.join(KINDS)}")
        return cls(x=x, x0=x0, eps=eps, alpha=alpha, sigma=sigma, kind=kind, **rest)

    @property
    def v(self):
        """[*rows, h, w, c] velocity, alpha eps - sigma x0."""
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def output(self):
        """[*rows, h, w, c] what the network itself said, in its own kind."""
        return {"epsilon": self.eps, "v_prediction": self.v, "sample": self.x0}[self.kind]

    def with_output(self, output) -> Prediction:
        """The same question answered differently, in the network's own kind."""
        rest = dict(log_variance=self.log_variance, pull=self.pull, taps=self.taps)
        return Prediction.of(self.kind, output, self.x, self.alpha, self.sigma, **rest)

    def with_x0(self, x0) -> Prediction:
        """Another clean estimate; eps follows: eps = (x - alpha x0) / sigma."""
        return self.replace(x0=x0, eps=(self.x - self.alpha * x0) / self.sigma)

    def with_eps(self, eps) -> Prediction:
        """Another noise estimate; x0 follows: x0 = (x - sigma eps) / alpha."""
        return self.replace(eps=eps, x0=(self.x - self.sigma * eps) / self.alpha)

    def combined(self, weights) -> Prediction:
        """Weighted sum over the leading axis: sum_b weights[b] * prediction[b].

        Args:
          weights: [branches], meant to sum to 1, so that mixing eps, x0 or v is the same thing.
        Returns: a prediction without the leading axis; the learned variance is the last branch's.
        """

        def mix(a):
            return jnp.tensordot(weights.astype(a.dtype), a, axes=1)

        variance = None if self.log_variance is None else self.log_variance[-1]
        pull = mix(self.pull) if jnp.ndim(self.pull) else self.pull
        mixed = dict(x0=mix(self.x0), eps=mix(self.eps), log_variance=variance, pull=pull)
        return self.replace(x=self.x[0], **mixed)


class Move(struct.PyTreeNode):
    """What one step of a solver did, shown to edits before it becomes final."""

    x: Any  # latent before the step
    x_next: Any  # latent after the step
    prediction: Any  # Prediction: the solver's last question and its answer
    step: Any  # Step: the row of the table
