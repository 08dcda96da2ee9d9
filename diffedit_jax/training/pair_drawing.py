"""Two prompts drawn together as InstructPix2Pix' data set was: self attention alone is shared.

Unlike Prompt-to-Prompt's method: every self attention layer takes part, under both branches of
guidance; cross attention is each prompt's own; and both pictures share an ancestral solver's noise.

Source: Brooks et al. 2023, section 3.1.1; timothybrooks/instruct-pix2pix
dataset_creation/generate_img_dataset.py and stable_diffusion/ldm/modules/attention.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from .. import solvers
from ..core import Control, Site, Transform, chain, first
from ..methods.generate import guidance_edit
from ..methods.rows import in_rows, rows_condition
from ..methods.run import Draws, check_steps, pictures, walk
from ..transforms.attention import joined


class SharedSelfAttention(Transform):
    """In the first `until` steps, the second row's self attention is the first row's.

    In every layer and under every branch of guidance, each from its own first row. (The source
    hands on what goes into the softmax, which comes to the same.)
    """

    until: Any  # [] int32

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            rule = _Rule(step.index < self.until)
            return inner(x, step, cond, joined(rule, control))

        return ask


class _Rule(Control):
    now: Any  # [] bool

    def wants(self, site: Site) -> bool:
        return site.kind == "self"

    def __call__(self, probs, site: Site):
        """probs: [*branches, 2 rows, heads, queries, keys]."""
        return jnp.where(self.now, probs[..., :1, :, :, :], probs), None


def steps_shared(share: Any, steps: int) -> Int[np.ndarray, "n"]:
    """How many of the steps i = 0 .. S - 1 have i / (S - 1) < p."""
    return np.ceil(np.asarray(share, np.float64) * (steps - 1)).astype(np.int32)


def draw_pairs(
    model: Any,
    caption: str,
    output: str,
    *,
    seeds: Sequence[int],
    guidance: Sequence[float],
    share: Sequence[float],
    steps: int,
) -> UInt8[np.ndarray, "n 2 h w 3"]:
    """n pairs by Euler ancestral: `caption` and `output` from one noise, with a guidance each.

    Args:
      share: p of each pair; self attention is shared in the steps i with i / (S - 1) < p.
    """
    check_steps(model, steps)
    count, rule = len(seeds), solvers.named("euler_ancestral")
    table = rule.steps(model.schedule, steps).replace(active=None)
    draws, shape = Draws(count, np.asarray(seeds)), model.latent_shape(model.size, model.size)
    x = in_rows(rule.begin(first(table), draws("start", shape)), 1)
    table = table.replace(noise=draws("steps", (steps, *shape)))  # one draw for both rows
    cond = rows_condition(model, [caption] * count, [output] * count, [""] * count)
    shared = SharedSelfAttention(until=jnp.asarray(steps_shared(share, steps)))
    edit = chain(guidance_edit(guidance, 0.0, count), shared)
    found = walk(model.denoiser, rule, edit, table, x, cond).x
    drawn = pictures(model, found.reshape(-1, *shape))
    return drawn.reshape(count, 2, *drawn.shape[1:])
