"""An edit is a transform over the sampling loop, and a chain of edits is an edit.

solver --asks--> last link --asks--> ... --asks--> first link --asks--> network
network's answer passes back through the links; after the step, `settle` runs first to last.
"""

from __future__ import annotations

from typing import Any

from flax import struct


class Transform(struct.PyTreeNode):
    """An edit; override what it touches and inherit "do nothing" for the rest.

    Three methods, and no fourth: what does not fit is a Solver, or several runs in a row.
    """

    def init(self, x) -> Any:
        """The edit's memory before the first step (any pytree) for a latent [*rows, h, w, c]."""
        return ()

    def denoise(self, inner, state):
        """Wraps the denoiser; must not change memory, since a solver may ask many times a step."""
        return inner

    def settle(self, move, state):
        """Returns (the latent after the step, the memory after the step); runs once a step."""
        return move.x_next, state


class Chain(Transform):
    """Links applied in order: the first is nearest the network, the last nearest the solver.

    Each link sees a step whose key has the link's position folded in, so no two links, and no
    link and the solver, ever share a draw.
    """

    links: Any  # tuple of Transform

    def init(self, x):
        return tuple(link.init(x) for link in self.links)

    def denoise(self, inner, state):
        for position, (link, memory) in enumerate(zip(self.links, state, strict=True), 1):
            inner = _with_own_key(link.denoise(inner, memory), position)
        return inner

    def settle(self, move, state):
        states = []
        for position, (link, memory) in enumerate(zip(self.links, state, strict=True), 1):
            own = move.replace(step=move.step.fold(-position))
            x_next, memory = link.settle(own, memory)
            move = move.replace(x_next=x_next)
            states.append(memory)
        return move.x_next, tuple(states)


def chain(*links: Transform) -> Transform:
    """Composes edits; a chain of one is that edit, a chain of none is the identity.

    Example: `chain(Combine(weights), Blend(mask, path))`.
    """
    return links[0] if len(links) == 1 else Chain(links=tuple(links))


def _with_own_key(ask, position: int):
    def keyed(x, step, cond, control=None):
        return ask(x, step.fold(position), cond, control)

    return keyed
