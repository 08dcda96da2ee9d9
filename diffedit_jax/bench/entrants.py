"""Who takes part in the measurement of methods, and what each is told about an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from diffedit_jax.bench import unseen
from diffedit_jax.bench.method_entry import model_for
from diffedit_jax.errors import UserError
from diffedit_jax.scenes import Edit, exemplar, instruction
from diffedit_jax.scenes.edits import KINDS

BASELINE = "sdedit"
STRENGTHS = (0.4, 0.6, 0.7, 0.8, 0.9)  # of the baseline's curve; 0.8 is the published default
RECONSTRUCT = "reconstruct"  # the edit that asks for nothing: the source prompt twice
ALL_KINDS = (*KINDS, *unseen.UNSEEN, RECONSTRUCT)
TOLD = ("source", "seed", "example", "blend_words", "prompt", "mask")  # see `arguments`
NAMED = ("object", "colour")  # kinds whose word stands in both prompts, as LocalBlend needs it


@dataclass(frozen=True)
class Entrant:
    """A method with the options that it is measured with.

    Attributes:
      name: as tables show it, "sdedit 0.6"; unique.
      method: the registry name.
      model: what `load` takes; methods of other networks have models of their own.
      options: parameters beside those that the edit gives.
    """

    name: str
    method: str
    model: str
    options: dict = field(default_factory=dict)

    @property
    def baseline(self) -> bool:
        """Whether it is a point of the curve that the others are compared with."""
        return self.method == BASELINE


def entrants(model: str, chosen: Sequence[str] = (), **options) -> tuple[list[Entrant], dict]:
    """(who takes part, {method: why it does not}).

    The baseline enters once per strength; every other method with its registered defaults, which
    are the published ones, under what the model itself recommends (steps, guidance).

    Args:
      model: of text to image; methods of 8 or 9 channels use its sister where one ships.
      chosen: registry names; all of them if empty.
      options: of every method that has them (steps, guidance).
    """
    from diffedit_jax.methods import find, methods

    names = [find(name).name for name in chosen] or list(methods())
    found, left_out = [], {}
    for name in names:
        source = model_for(name, model)
        if find(name).start == "noise":
            left_out[name] = "it edits no picture"
        elif source is None:
            left_out[name] = f"no model of {' or '.join(map(str, find(name).channels))} channels"
        elif demands := _demands(name):
            left_out[name] = f"it needs {' and '.join(demands)}, which no edit gives"
        else:
            known = find(name).parameters
            found += _versions(name, source, {k: v for k, v in options.items() if k in known})
    return found, left_out


def _demands(name: str) -> list[str]:
    """What a method cannot do without and no edit says."""
    from diffedit_jax.methods import find

    return [p.name for p in find(name).parameters.values() if p.required and p.name not in TOLD]


def _versions(name: str, model: str, options: dict) -> list[Entrant]:
    if name != BASELINE:
        return [Entrant(name, name, model, options)]
    return [Entrant(f"{name} {s:g}", name, model, {**options, "strength": s}) for s in STRENGTHS]


def takes_part(entrant: Entrant, kind: str) -> bool:
    """Whether a method can be asked for this kind of edit at all.

    An exemplar shows an object, so methods of exemplars do not change backgrounds or styles, and
    nothing else can be asked for an object that no word names; only methods that know the source
    prompt can be asked to reconstruct. What training held out of instructions is asked of
    instructions, and of the baseline.
    """
    parameters = _parameters(entrant)
    if kind == RECONSTRUCT:
        return "source" in parameters and "mask_strength" not in parameters
    if kind == unseen.SWAP:
        return _instructed(entrant) or entrant.baseline
    if "example" in parameters:
        return kind in ("object", "colour", "add", unseen.OBJECT)
    return kind != unseen.OBJECT


def reconstructions(edits: Sequence[Edit]) -> list[Edit]:
    """The sources of edits, asked to stay as they are."""
    return [Edit(RECONSTRUCT, e.source, e.source, np.zeros_like(e.mask)) for e in edits]


def arguments(entrant: Entrant, edits: Sequence[Edit], seeds: Sequence[int]) -> dict:
    """What `edit` is given for these edits: prompts, seeds, and a mask or exemplar if needed.

    A mask is given only where a method cannot do without (inpainting, exemplars).
    """
    known = _parameters(entrant)
    own = {
        "source": lambda: [edit.source_caption for edit in edits],
        "seed": lambda: list(seeds),
        "example": lambda: [exemplar(edit) for edit in edits],
        "blend_words": lambda: [blended(edit) for edit in edits] if _blends(entrant) else None,
        "prompt": lambda: [_words(entrant, edit) for edit in edits],
    }
    given = {name: value for name in known if name in own and (value := own[name]()) is not None}
    if "mask" in known and (known["mask"].required or "example" in known):
        given["mask"] = [edit.mask.astype(np.float32) for edit in edits]
    return {**given, **entrant.options}


def blended(edit: Edit) -> str:
    """The words whose region alone may change, of both prompts; none where they name no object."""
    if edit.kind not in NAMED:
        return ""
    pairs = zip(edit.source.things, edit.target.things, strict=True)
    return next(f"{a.name}, {b.name}" for a, b in pairs if a != b)


def _words(entrant: Entrant, edit: Edit) -> str:
    return instruction(edit) if _instructed(entrant) else edit.target_caption


def _instructed(entrant: Entrant) -> bool:
    from diffedit_jax.methods import find

    return find(entrant.method).channels == (8,)


def _blends(entrant: Entrant) -> bool:
    """PIE-Bench's protocol gives its words to the method that it was made for."""
    return entrant.method == "pnp_inversion"


def _parameters(entrant: Entrant) -> dict:
    from diffedit_jax.methods import find

    return find(entrant.method).parameters


def calls(entrant: Entrant, defaults: dict) -> tuple[int, int]:
    """(network calls, rows in one call) of one picture; `defaults`: the model's own."""
    from diffedit_jax.methods import find

    known = find(entrant.method)
    filled = {name: p.default for name, p in known.parameters.items()}
    told = {"source": ["a"], "prompt": ["b"], **entrant.options}
    given = {k: v for k, v in {**defaults, **told}.items() if k in known.parameters}
    return known.evaluations({**filled, **given})


def every_kind(names: Sequence[str] = ()) -> tuple[str, ...]:
    """Kinds of edits by name, all in a fixed order if none are named, reconstruction last."""
    for name in names:
        if name not in ALL_KINDS:
            raise UserError(f"unknown kind {name!r}: choose of {', '.join(ALL_KINDS)}")
    return tuple(kind for kind in ALL_KINDS if kind in (names or ALL_KINDS))
