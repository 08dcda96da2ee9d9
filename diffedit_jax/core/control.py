"""Rules inside attention: what a network passes every attention layer, when an edit asks for it.

A network calls `control(probs, site)` at the sites that `control.wants(site)` names; every other
site keeps its fused kernel. What the rule reads comes back in the prediction's `taps`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct


@dataclasses.dataclass(frozen=True)
class Site:
    """One attention layer of a network; static, so rules may branch on it.

    Attributes:
      name: path of the layer in the network, unique ("mid_block/attentions_0/.../attn2").
      kind: "self" or "cross".
      place: "down", "mid" or "up".
      order: position among all attention layers, in the order of the forward pass.
      height, width: the query grid in cells.
      heads: number of heads.
    """

    name: str
    kind: str
    place: str
    order: int
    height: int
    width: int
    heads: int


class Control(struct.PyTreeNode):
    """A rule on attention probabilities; the default wants no site and changes nothing."""

    def wants(self, site: Site) -> bool:
        """Says, statically, whether the layer must form explicit probabilities for this rule."""
        return False

    def __call__(self, probs, site: Site) -> tuple[Any, Any]:
        """Returns the probabilities to use and what was read (None: nothing).

        Args:
          probs: [*rows, heads, queries, keys] float32, each row of keys sums to 1.
          site: where in the network.
        """
        return probs, None


class Controls(Control):
    """Several rules at once: each acts on what the one before it left."""

    rules: Any  # tuple of Control

    def wants(self, site: Site) -> bool:
        return any(rule.wants(site) for rule in self.rules)

    def __call__(self, probs, site: Site):
        reads = []
        for rule in self.rules:
            read = None
            if rule.wants(site):
                probs, read = rule(probs, site)
            reads.append(read)
        return probs, tuple(reads)


class RowControl(Control):
    """Shows a rule the rows of one edit where the network sees one flat batch."""

    rule: Any  # Control
    rows: tuple = struct.field(pytree_node=False)

    def wants(self, site: Site) -> bool:
        return self.rule.wants(site)

    def __call__(self, probs, site: Site):
        shape = probs.shape
        probs, read = self.rule(probs.reshape(*self.rows, *shape[1:]), site)
        return probs.reshape(shape), read
