"""Every combination of some parameters' values, run in few programs and laid out as one picture."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from . import api
from .errors import UserError
from .methods.registry import Method, find
from .sheets import Grid

MOST = 400  # cells
_SINGLE = ("mask", "example", "style", "noise", "index")
_ALWAYS = ("prompt", "source", "negative", "seed")  # one per picture in every method


@dataclasses.dataclass(frozen=True)
class Sweep:
    """The pictures of a sweep.

    Attributes:
      axes: (name, values) of each swept parameter; the last one varies fastest.
      images: uint8 [h, w, 3], one per cell in that order.
      recipes: one per cell; run alone, it gives the cell's picture.
      notices: as those of a `Result`.
    """

    axes: tuple[tuple[str, tuple], ...]
    images: tuple[np.ndarray, ...]
    recipes: tuple[dict, ...]
    notices: tuple[str, ...] = ()

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The swept parameters of every cell."""
        return cells_of(self.axes)

    @property
    def grid(self) -> Grid:
        """Where every cell stands on the sheet."""
        return Grid.of(self.axes, self.images[0].shape)

    def sheet(self) -> np.ndarray:
        """uint8 [H, W, 3]: rows and columns named; a third parameter and more make blocks below."""
        return self.grid.drawn(self.images)

    @property
    def recipe(self) -> dict:
        """The recipe of the sheet: the first cell's, and what was swept (see `cell_recipe`)."""
        axes = [[name, list(values)] for name, values in self.axes]
        return {**self.recipes[0], "sweep": {"axes": axes, "tile": list(self.images[0].shape[:2])}}


def sweep(model, image, method: str, over: Mapping[str, Sequence], *, batch: int = 4, watch=None,
          **parameters) -> Sweep:  # fmt: skip
    """Runs a method for every combination of the values of some of its parameters.

    Parameters that may differ from picture to picture (`methods()[method].per_image`, texts, seeds)
    share one program, `batch` cells at a time; others, such as steps, take a program per value.

    Args:
      model: a bundle, or anything `load` takes.
      image: one picture, as `edit` takes it; None to draw.
      method: a name of `methods()`, or a combination.
      over: values by parameter, {"guidance": [3, 5, 7.5], "strength": [0.4, 0.9]}.
      batch: cells that run together.
      watch: called after every step of every run, as for `edit`.
      parameters: the method's others, one value each.
    Raises: UserError for an unknown parameter, one without values, or too many cells.
    Example: `sweep(load(), "cat.png", "sdedit", {"strength": [0.4, 0.8]}, prompt="a dog").sheet()`.
    """
    known = find(method)
    axes = checked_axes(known, over, parameters)
    model = api.load(model) if isinstance(model, str) else model
    cells, done = cells_of(axes), {}
    for numbers in pieces(known, axes, parameters, batch):
        result = _run(known, model, image, [cells[n] for n in numbers], parameters, watch)
        for position, number in enumerate(dict.fromkeys(numbers)):
            done[number] = result.images[position], result.recipe_of(position), result.notices
    images, recipes, notices = zip(*(done[n] for n in range(len(cells))), strict=True)
    return Sweep(axes, images, recipes, tuple(dict.fromkeys(itertools.chain(*notices))))


def cells_of(axes) -> list[dict[str, Any]]:
    """Every combination of the axes' values, the last axis varying fastest."""
    names = [name for name, _ in axes]
    return [dict(zip(names, c, strict=True)) for c in itertools.product(*(v for _, v in axes))]


def checked_axes(known: Method, over: Mapping[str, Sequence], given: Mapping) -> tuple:
    """((name, values), ...), each name a parameter that can be swept."""
    axes, count = [], 1
    for name, values in over.items():
        if name not in known.parameters:
            raise known.unknown(name)
        if name in _SINGLE:
            raise UserError(f"{name} cannot be swept; sweep numbers, words or seeds")
        if isinstance(values, str) or not len(values):
            raise UserError(f"the sweep of {name} names no values")
        if given.get(name) is not None:
            raise UserError(f"{name} is swept and given; leave one of them out")
        axes.append((name, tuple(v.item() if hasattr(v, "item") else v for v in values)))
        count *= len(values)
    if not axes:
        raise UserError("a sweep needs at least one parameter with values")
    if count > MOST:
        raise UserError(f"the sweep has {count:,} cells; at most {MOST} are run")
    if len({known.cuts({**given, **cell}) for cell in cells_of(axes)}) > 1:
        raise UserError("pictures that are cut and pictures that are not do not fit one sheet")
    return tuple(axes)


def pieces(known: Method, axes, given: Mapping, batch: int) -> Iterator[list[int]]:
    """The numbers of the cells that run together; the last piece is filled up with its last cell.

    So that all pieces of a group are one compiled program.
    """
    if batch < 1:
        raise UserError(f"a batch should be at least 1, not {batch}")
    groups: dict[str, list[int]] = {}
    for number, cell in enumerate(cells_of(axes)):
        apart = {k: v for k, v in cell.items() if not _is_per_image(known, k, {**given, **cell})}
        groups.setdefault(repr(apart), []).append(number)
    for group in groups.values():
        length = min(batch, len(group))
        for start in range(0, len(group), length):
            piece = group[start : start + length]
            yield piece + piece[-1:] * (length - len(piece))


def cell_recipe(said: dict, wanted: str) -> tuple[dict, int]:
    """(the recipe of a sheet's cell, its number); the cell is named "guidance=5, strength=0.4".

    Raises: UserError that lists what there is.
    """
    axes = [(str(name), tuple(values)) for name, values in said["sweep"]["axes"]]
    pairs = dict(re.findall(r"\s*(\w+)=((?:(?!,\s*\w+=).)*)", wanted))
    for number, cell in enumerate(cells_of(axes)):
        if cell.keys() == pairs.keys() and all(_means(pairs[k], v) for k, v in cell.items()):
            own = {k: v for k, v in said.items() if k != "sweep"}
            return own | {"parameters": {**said["parameters"], **cell}}, number
    there = "; ".join(f"{name}={'|'.join(map(str, values))}" for name, values in axes)
    raise UserError(f"the sheet has no cell {wanted!r}; name one value of each: {there}")


def _means(text: str, value: Any) -> bool:
    """Whether a text names a value: "5" is 5.0."""
    try:
        return text == value if isinstance(value, str) else float(text) == value
    except ValueError:
        return text == str(value)


def _run(known: Method, model, image, cells: list[dict], parameters: dict, watch) -> api.Result:
    """One batch: what differs per picture as lists, the rest as it is."""
    both = [{"seed": 0, **parameters, **cell} for cell in cells]
    own = {k for k in cells[0] if _is_per_image(known, k, both[0])} | {"seed"}
    given = both[0] | {k: [b[k] for b in both] for k in own if both[0][k] is not None}
    if known.start == "noise":
        return api.generate(model, watch=watch, **given)
    if image is None:
        given["prompt"] = [b["prompt"] for b in both]
        return api.edit(model, None, known.name, watch=watch, **given)
    return api.edit(model, [image] * len(cells), known.name, watch=watch, **given)


def _is_per_image(known: Method, name: str, given: Mapping) -> bool:
    """Whether cells that differ in a parameter can run together."""
    if name == "strength" and given.get("solver") not in (None, "ddim"):
        return False  # tables of other solvers may depend on where they begin
    return name in (*_ALWAYS, *known.per_image)
