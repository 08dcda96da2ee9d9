"""Who answers a solver's question: a network, a mixture of networks, an edited network.

Denoise = Callable[[latent, Step, Cond, Control | None], Prediction]
"""

from __future__ import annotations

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from .control import Control, RowControl
from .prediction import Prediction
from .time import Step


class Cond(struct.PyTreeNode):
    """What a network is conditioned on; every leaf begins with the rows of the latent."""

    text: Any = None  # [*rows, tokens, width] encoded prompt or exemplar
    channels: Any = None  # [*rows, h, w, extra] concatenated behind the latent's channels
    added: Any = None  # dict of [*rows, ...]: SDXL's pooled text and time ids, class labels
    mask: Any = None  # [*rows, tokens] bool, True where a token may be seen
    kv: Any = None  # {site name: (k, v)} the text's keys and values, made by `prepared`


class Denoise(Protocol):
    """Anything that can be asked about a noised latent."""

    def __call__(self, x, step: Step, cond: Cond, control: Control | None = None) -> Prediction: ...


def prepared(denoiser: Denoise, cond: Cond) -> Cond:
    """Does, once per run, what depends on the condition alone (a network's text keys)."""
    prepare = getattr(denoiser, "prepare", None)
    return prepare(cond) if prepare else cond


class Network(struct.PyTreeNode):
    """Weights and the linen module that reads them: the one class that knows Flax.

    The module maps ([n, h, w, c_in], t, context, ...) to ([n, h, w, c_out], dict).
    """

    params: Any
    module: Any = struct.field(pytree_node=False)
    kind: str = struct.field(pytree_node=False, default="epsilon")

    def prepare(self, cond: Cond) -> Cond:
        if cond.text is None or not hasattr(self.module, "keys_values"):
            return cond
        rows = cond.text.shape[:-2]
        context = _flat(cond.text, rows)
        kv = self.module.apply({"params": self.params}, context, method="keys_values")
        return cond.replace(kv=jax.tree.map(lambda a: a.reshape(*rows, *a.shape[1:]), kv))

    def __call__(self, x, step: Step, cond: Cond, control: Control | None = None) -> Prediction:
        rows = x.shape[:-3]
        output, out = self.module.apply(
            {"params": self.params},
            *self._inputs(x, step, cond, rows),
            control=None if control is None else RowControl(rule=control, rows=rows),
            **self._extras(cond, rows),
        )
        output = output.reshape(*rows, *output.shape[1:]).astype(x.dtype)
        variance = None
        if output.shape[-1] == 2 * x.shape[-1]:
            output, variance = jnp.split(output, 2, axis=-1)
        rest = dict(log_variance=variance, taps=out.get("taps", {}))
        return Prediction.of(self.kind, output, x, step.alpha, step.sigma, **rest)

    def _inputs(self, x, step, cond, rows):
        if cond.channels is not None:
            channels = jnp.broadcast_to(cond.channels, (*x.shape[:-1], cond.channels.shape[-1]))
            x = jnp.concatenate([x, channels.astype(x.dtype)], axis=-1)
        context = None if cond.text is None or cond.kv is not None else _flat(cond.text, rows)
        return _flat(x, rows), step.t, context

    def _extras(self, cond, rows):
        named = dict(added=cond.added, kv=cond.kv, context_mask=cond.mask)
        return {
            k: jax.tree.map(lambda a: _flat(a, rows), v) for k, v in named.items() if v is not None
        }


class Edited(struct.PyTreeNode):
    """A denoiser seen through an edit that keeps no memory (one part of a mixture)."""

    denoiser: Any  # Denoise
    edit: Any  # Transform without memory

    def __call__(self, x, step: Step, cond: Cond, control: Control | None = None) -> Prediction:
        return self.edit.denoise(self.denoiser, self.edit.init(x))(x, step, cond, control)


class Mixture(struct.PyTreeNode):
    """Several denoisers asked the same question, each with its own condition.

    eps = sum_i weights[i] eps_i, and likewise x0 and the pulls. `cond` is a tuple, one per part.
    """

    parts: Any  # tuple of Denoise
    weights: Any  # [parts]

    def prepare(self, cond: tuple) -> tuple:
        return tuple(prepared(part, c) for part, c in zip(self.parts, cond, strict=True))

    def __call__(self, x, step: Step, cond: tuple, control: Control | None = None) -> Prediction:
        said = [p(x, step, c, control) for p, c in zip(self.parts, cond, strict=True)]
        x0 = sum(w * p.x0 for w, p in zip(self.weights, said, strict=True))
        eps = sum(w * p.eps for w, p in zip(self.weights, said, strict=True))
        pull = sum(w * p.pull for w, p in zip(self.weights, said, strict=True))
        taps = {f"{i}/{name}": read for i, p in enumerate(said) for name, read in p.taps.items()}
        return said[0].replace(x0=x0, eps=eps, pull=pull, taps=taps)


def _flat(a, rows):
    return a.reshape(-1, *a.shape[len(rows) :])
