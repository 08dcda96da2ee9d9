"""Attention of several rows of one edit: what targets take over from the source, what is read.

Row 0 is the source; the rows after it are targets. Under guidance the branches stand in front and
only the last one, the text's, is edited and read.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from ..core import Control, Controls, Site, Transform
from ..errors import UserError

Rows = Float[Array, "rows heads q k"]


class AttentionEdit(Transform):
    """Prompt-to-Prompt: the targets see the source's attention, word by word, for a while.

    With n the position in the run and per token k of a target's prompt:
      cross: A_k <- scale_k ((A_source M)_k + fresh_k A_k)   while begin_k <= n < end_k
      self:  A <- A_source                                   while begin <= n < end
    Cross attention is edited at every layer, self attention where it has at most `self_cells`
    queries; rows are not renormalised. Where neither applies, the fused kernels stay.

    n counts the rows that were walked, or, where `calls` is given, the questions put to the network
    (the official code's counter; solvers may ask twice in one step).

    Source: Hertz et al. 2022 (2208.01626) section 3; google/prompt-to-prompt, AttentionReplace,
    AttentionRefine, AttentionReweight.
    """

    mapper: Any  # [targets, tokens, tokens] M: source token -> target token
    fresh: Any  # [targets, tokens] share of the target's own attention
    scale: Any  # [targets, tokens] re-weighting
    cross: Any  # [targets, tokens, 2] begin and end
    self_window: Any  # [targets, 2]
    calls: Any = None  # {"t": [rows], "before": [rows]} from `counted_calls`
    self_cells: int = struct.field(pytree_node=False, default=256)

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            return inner(x, step, cond, joined(_Rule(self, self._position(step)), control))

        return ask

    def _position(self, step):
        if self.calls is None:
            return step.index if step.walked is None else step.walked
        again = step.t != self.calls["t"][step.index]
        return self.calls["before"][step.index] + again.astype(jnp.int32)


class _Rule(Control):
    edit: AttentionEdit
    now: Any  # [] int32

    def wants(self, site: Site) -> bool:
        return site.kind == "cross" or site.height * site.width <= self.edit.self_cells

    def __call__(self, probs, site: Site):
        rule = self._cross if site.kind == "cross" else self._self
        text = text_branch(probs)
        edited = jnp.concatenate([text[:1], rule(text[0], text[1:])])
        return edited if probs.ndim == 4 else probs.at[-1].set(edited), None

    def _cross(self, source: Float[Array, "heads q k"], own: Rows) -> Rows:
        edit = self.edit
        exact = jax.lax.Precision.HIGHEST
        mapped = jnp.einsum("hqs,tsk->thqk", source, edit.mapper, precision=exact)
        mixed = (mapped + _per_token(edit.fresh) * own) * _per_token(edit.scale)
        return jnp.where(_per_token(_inside(edit.cross, self.now)), mixed, own)

    def _self(self, source: Float[Array, "heads q k"], own: Rows) -> Rows:
        injected = _inside(self.edit.self_window, self.now)
        return jnp.where(injected[:, None, None, None], source, own)


class WordMaps(struct.PyTreeNode):
    """What `WordReader` read at one layer."""

    maps: Any  # [rows, words, h, w] attention of the words, summed over heads
    tag: str = struct.field(pytree_node=False)


class WordReader(Control):
    """Reads how much every cell looks at some words: sum over heads and tokens of A * select.

    The maps come back pooled over heads and tokens, so that nothing larger than a grid is kept.
    """

    select: Any  # [rows, words, tokens] weights of the tokens
    grids: tuple = struct.field(pytree_node=False)  # ((height, width), ...) of the layers to read
    tag: str = struct.field(pytree_node=False)

    def wants(self, site: Site) -> bool:
        return site.kind == "cross" and (site.height, site.width) in self.grids

    def __call__(self, probs, site: Site):
        exact = jax.lax.Precision.HIGHEST
        maps = jnp.einsum("rhqk,rwk->rwq", text_branch(probs), self.select, precision=exact)
        return probs, WordMaps(maps.reshape(*maps.shape[:2], site.height, site.width), self.tag)


class ReadWords(Transform):
    """Changes nothing and sums where some words look, over the run: its memory [rows, words, h, w].

    Read at the cross attention layers of size `grid`, over heads, layers and steps.
    """

    select: Any  # [rows, words, tokens] weights of the tokens
    grid: tuple = struct.field(pytree_node=False)  # (height, width) of the layers that are read
    tag: str = struct.field(pytree_node=False, default="read_words")

    def init(self, x):
        return jnp.zeros((*self.select.shape[:2], *self.grid), jnp.float32)

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            reader = WordReader(select=self.select, grids=(self.grid,), tag=self.tag)
            return inner(x, step, cond, reader if control is None else joined(control, reader))

        return ask

    def settle(self, move, totals):
        maps = word_maps(move.prediction.taps, self.tag)
        if not maps:
            height, width = self.grid
            raise UserError(f"the network has no cross attention of {height} x {width} cells")
        return move.x_next, totals + sum(maps)


def joined(rule: Control, control: Control | None) -> Control:
    """`rule` first, then what the caller asked for: readers see the edited attention."""
    return rule if control is None else Controls(rules=(rule, control))


def word_maps(taps: dict, tag: str) -> list:
    """The maps [rows, words, h, w] that the reader named `tag` left in a prediction's taps."""

    def is_read(leaf):
        return isinstance(leaf, WordMaps)

    reads = [leaf for leaf in jax.tree.leaves(taps, is_leaf=is_read) if is_read(leaf)]
    return [read.maps for read in reads if read.tag == tag]


def text_branch(probs: Float[Array, "*branches rows heads q k"]) -> Rows:
    """The rows under the text: the last branch of guidance, or all there is without guidance."""
    return probs if probs.ndim == 4 else probs[-1]


def _inside(window: Any, now: Any) -> Any:
    return (window[..., 0] <= now) & (now < window[..., 1])


def _per_token(values: Any) -> Any:
    """[targets, tokens] -> [targets, 1, 1, tokens]."""
    return values[:, None, None, :]
