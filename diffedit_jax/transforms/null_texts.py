"""A null prompt of its own for every step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ..core import Transform


class NullTexts(Transform):
    """The first branch of guidance is told texts_i at row i of the table.

    Stands before Combine (nearer the network): `chain(NullTexts(texts), Combine(weights))`. The
    text's keys and values change with every row, so they cannot be prepared once per run.

    Source: Mokady et al. 2023, null-text inversion (2211.09794) section 3.2.
    """

    texts: Any  # [steps, tokens, width]

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            null = jnp.broadcast_to(self.texts[step.index], cond.text.shape[1:])
            text = cond.text.at[0].set(null.astype(cond.text.dtype))
            return inner(x, step, cond.replace(text=text, kv=None), control)

        return ask
