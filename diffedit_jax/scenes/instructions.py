"""Edits in other words than two captions: an order, and a picture of the new object."""

import numpy as np

from diffedit_jax.errors import UserError
from diffedit_jax.scenes.captions import article
from diffedit_jax.scenes.edits import Edit
from diffedit_jax.scenes.render import render
from diffedit_jax.scenes.spec import Scene, Thing, place


def instruction(edit: Edit) -> str:
    """What to do, for models that follow orders: "turn the cat into a dog".

    Example: "make the car red", "make the background blue", "make the background striped",
    "make it a neon sign", "add a red heart on the left", "remove the cat".
    """
    if edit.kind not in _ORDERS:
        raise UserError(f"there is no instruction for an edit of kind {edit.kind!r}")
    return _ORDERS[edit.kind](edit)


def exemplar(edit: Edit) -> np.ndarray:
    """A picture of the new object alone, uint8 [64, 64, 3], on a background of another colour.

    It is another render than the edit's target, so nothing is gained by copying pixels.
    Raises UserError for an edit that brings no new object.
    """
    new = _changed(edit)[1]
    if new is None:
        raise UserError(f"an edit of kind {edit.kind!r} shows no new object")
    ground = "black" if edit.target.background == "white" else "white"
    return render(Scene((place(new.name, new.colour, "centre"),), ground, "plain",
                        edit.target.style))  # fmt: skip


def _changed(edit: Edit) -> tuple[Thing | None, Thing | None]:
    """(the thing that goes, the thing that comes)."""
    before = [t for t in edit.source.things if t not in edit.target.things]
    after = [t for t in edit.target.things if t not in edit.source.things]
    return (before or [None])[0], (after or [None])[0]


def _words(thing: Thing) -> str:
    return f"{thing.colour} {thing.name}" if thing.colour else thing.name


def _swap(edit):
    old, new = _changed(edit)
    return f"turn the {old.name} into {article(_words(new))}"


def _recolour(edit):
    new = _changed(edit)[1]
    return f"make the {new.name} {new.colour}"


def _restyle(edit):
    style = edit.target.style
    return f"make it {'plain' if style == 'none' else article(style)}"


def _add(edit):
    new = _changed(edit)[1]
    return f"add {article(_words(new))} on the {new.place}"


_ORDERS = {
    "object": _swap,
    "colour": _recolour,
    "background": lambda edit: f"make the background {edit.target.background}",
    "pattern": lambda edit: f"make the background {edit.target.pattern}",
    "style": _restyle,
    "add": _add,
    "remove": lambda edit: f"remove the {_words(_changed(edit)[0])}",
}
