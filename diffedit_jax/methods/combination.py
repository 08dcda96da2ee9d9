"""Several methods as one: where the run begins, what edits it, which mask confines it.

"edict+prompt_to_prompt+diffedit" is Prompt-to-Prompt on EDICT's trajectory inside DiffEdit's mask.
"""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np

from ..core import skipped
from ..errors import UserError
from ..notices import show_mask
from .cells import in_cells, in_pixels
from .diffedit import diffedit_mask, softened
from .inpaint import pasted
from .painted import OWN, STARTS, painted
from .prompt_to_prompt import named_inversion, walk_rows
from .registry import Method, Parameter, find, methods
from .starts import INVERSIONS, Inversion

_ORDER = ("start", "edit", "mask", "example")
_OF_THE_SEARCH = ("source", "maps", "mask_strength", "clip_ratio", "threshold", "dilate", "blur",
                  "paste", "compat")  # fmt: skip
_OF_THE_FIRST = ("dilate", "paste", "compat")  # means another thing in another method
_SEARCHED = (4, 8)  # input channels of the networks that a mask can be looked for with
_TEXTS = ("source", "prompt", "negative")
_NEVER = ("height", "width", "report")
_OF_THE_START = ("solver", "spacing", "negative")  # an edit has them where its start has
_WHY = {
    "inversion": "the method in front of it is the inversion",
    "solver": "the inversion walks with its own update rule",
    "eta": "fresh noise at every step would tear the rows apart",
    "report": "it measures a method that runs alone",
    "inversion_guidance": "the rows are inverted without guidance",
    "height": "the picture gives the size",
    "width": "the picture gives the size",
    "negative": "its null prompt is what it finds",
    "spacing": "it has a grid of its own",
    "encode_prompt": "the picture is encoded by the other method",
    "encode_guidance": "the picture is encoded by the other method",
}


class Roles(NamedTuple):
    """The methods of a combination by what they bring; None where nobody brings it."""

    start: Method | None
    edit: Method | None
    mask: Method | None
    example: Method | None

    @property
    def named(self) -> list[Method]:
        """In the order of the roles."""
        return [m for m in self if m is not None]

    @property
    def lead(self) -> Method:
        """Who walks: the edit if there is one."""
        return self.edit or self.start

    @property
    def inversion(self) -> Inversion | None:
        """The start as rows of [source, targets] begin from it."""
        return INVERSIONS.get({"ddim_inversion": "ddim"}.get(self.start.name, self.start.name))


def combined(text: str) -> Method:
    """The combination of methods joined by "+"; their order does not matter.

    Its parameters are the union. A name that several have is one parameter, told to all of them;
    its default is that of the start, else of the edit, else of the mask. `compat`, `dilate` and
    `paste` belong to the first of them alone.
    Raises: UserError that says why the methods do not go together.
    """
    roles = _roles([find(name) for name in _names(text)])
    parameters, absent = _union(roles)
    name = "+".join(m.name for m in roles.named)

    def function(model, images=None, *, watch=None, **p):
        return _run(roles, model, images, p, watch)

    function.__name__ = name
    function.__signature__ = inspect.Signature([_declared(p) for p in parameters])
    function.__doc__ = _documented(roles, parameters)
    paper = "; ".join(m.paper for m in roles.named)
    channels = (roles.example or roles.lead).channels
    if roles.mask:
        channels = tuple(c for c in channels if c in _SEARCHED)
    known = {p.name for p in parameters}
    return Method(
        name, function, paper, "picture", channels, lambda p: _evaluations(roles, p), "chain",
        tuple(k for k in sorted(known) if _is_per_image(roles, k)),
        told_by=(roles.example or roles.lead).told_by, absent=absent,
        cuts=roles.lead.cuts)  # fmt: skip


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split("+")]
    if not all(names):
        raise UserError(f"{text!r} should be names of methods joined by +, a+b")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{twice[0]} is named twice in {text!r}")
    return names


def _roles(named: list[Method]) -> Roles:
    """Who brings what; refuses what cannot mean anything."""
    found: dict[str, Method] = {}
    for method in named:
        if not method.role:
            raise UserError(f"{method.name} cannot be combined: {_why_alone(method)}")
        if method.role in found:
            both = f"{found[method.role].name} and {method.name}"
            raise UserError(f"{both} both say {_SAYS[method.role]}; name one of them")
        found[method.role] = method
    roles = Roles(*(found.get(role) for role in _ORDER))
    if roles.example:
        _check_example(roles)
    if roles.start and roles.edit and roles.inversion is None:
        raise UserError(f"{roles.start.name}+{roles.edit.name} cannot run: {roles.start.name} "
                        "finds no noise of the picture for a source row to start from")  # fmt: skip
    if roles.mask and not roles.lead:
        raise UserError(f"{roles.mask.name} needs a method whose edit its mask confines")
    return roles


_SAYS = {
    "start": "where the run begins",
    "edit": "what edits it",
    "mask": "which mask confines it",
    "example": "what is painted into the hole",
}
_NO_EXAMPLE = {
    "inpaint": "both say what the network sees of the hole",
    "instruct_pix2pix": "their networks are different ones, of 8 and of 9 channels",
    "null_text": "it fits null texts, and this network reads none",
    "negative_prompt": "it puts the source's text in place of the null; this network reads none",
    "pnp_inversion": "it is Prompt-to-Prompt, and this network reads no words",
    "prompt_to_prompt": "it shares the attention of words, and this network reads none",
    "diffedit": "it looks for a mask with two texts, and this network reads none; give a mask",
}


def _check_example(roles: Roles) -> None:
    """Refuses what does not go with a network that is told by an example in a hole."""
    for other in (roles.edit, roles.mask, roles.start):
        if other and other.name not in STARTS:
            why = _NO_EXAMPLE.get(other.name, "it works on texts, and this network reads none")
            raise UserError(f"{other.name}+{roles.example.name} cannot run: {why}")


def _why_alone(method: Method) -> str:
    if method.start == "noise":
        return "it draws from noise and edits no picture"
    can = ", ".join(m.name for m in methods().values() if m.role)
    return f"it has no part that another method could take over; these have: {can}"


def _union(roles: Roles) -> tuple[list[Parameter], dict[str, str]]:
    """(the parameters, why those of a single method that are not among them are left out)."""
    taken: dict[str, Parameter] = {}
    for method in roles.named:
        for p in method.parameters.values():
            if not _belongs(roles, method, p.name):
                continue
            before = taken.get(p.name)
            if before is None or (p.required and not before.required):
                taken[p.name] = p
    if roles.mask and "mask" in taken:  # found, unless given
        given = roles.mask.parameters["mask"]
        taken["mask"] = Parameter("mask", None, given.kind, given.doc)
    gone = {p for m in roles.named for p in m.parameters} - set(taken)
    return list(taken.values()), {name: _why_gone(roles, name) for name in gone}


def _belongs(roles: Roles, method: Method, name: str) -> bool:
    """Whether a method's parameter has a place in the combination."""
    if method is roles.example:
        return name in OWN
    if roles.example and name in _TEXTS:
        return False
    if method is roles.mask:
        return name in (*_OF_THE_SEARCH, "mask", "prompt")
    if name in _NEVER:
        return False
    if not (roles.start and roles.edit):
        return True
    if method is roles.edit:
        return name != "inversion" and (name not in _OF_THE_START or name in roles.start.parameters)
    return name in (*roles.inversion.parameters, *roles.edit.parameters) and name != "inversion"


def _why_gone(roles: Roles, name: str) -> str:
    if roles.example and name in _TEXTS:
        return "its network is told by the example"
    if name in _WHY:
        return _WHY[name]
    owner = next(m.name for m in roles.named if name in m.parameters)
    return f"{owner} has it only where it runs alone"


def _is_per_image(roles: Roles, name: str) -> bool:
    owners = [m for m in roles.named if name in m.parameters]
    return all(name in m.per_image for m in owners if _belongs(roles, m, name))


def _declared(p: Parameter) -> inspect.Parameter:
    return inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, default=p.default,
                             annotation=p.kind)  # fmt: skip


def _documented(roles: Roles, parameters: list[Parameter]) -> str:
    """A docstring as `registry` reads it."""
    says = [f"{m.name} says {_SAYS[m.role]}" for m in roles.named]
    entries = "\n".join(f"  {p.name}: {p.doc}" for p in parameters if p.doc)
    return f"{', '.join(says)}.\n\nArgs:\n{entries}\n"


def _run(roles: Roles, model, images, p: dict, watch):
    """The mask, then the walk of the one who leads, then the source's pixels around it."""
    if roles.example:
        return painted(roles.start, model, images, p, watch)
    if roles.mask is None:
        return _walked(roles, model, images, p, watch)
    searching = p["maps"] if p["mask"] is None else 0
    own = {k: p[k] for k in _OF_THE_SEARCH if k in p and _tells_the_mask(roles, k)}
    paste = own.pop("paste", False)
    if searching:
        shared = {k: p[k] for k in ("prompt", "steps", "seed", "index", "spacing") if k in p}
        total = searching + _reported(roles, p)
        found = diffedit_mask(model, images, **shared, **own, watch=_before(watch, 0, total))
    else:
        cells = softened(in_cells(p["mask"], model.factor), own.get("dilate", 0), p["blur"], False)
        found = in_pixels(cells, model.factor)
    show_mask(found)
    edited = _walked(roles, model, images, p | {"mask": found}, _before(watch, searching))
    return pasted(edited, images, (found > 0).astype(np.float32), 0) if paste else edited


def _walked(roles: Roles, model, images, p: dict, watch):
    """The start alone, or rows that begin from it."""
    own = {k: p[k] for k in roles.lead.parameters if k in p}
    if not (roles.start and roles.edit):
        return roles.lead.function(model, images, watch=watch, **own)
    inversion = roles.inversion
    knobs = {k: p[k] for k in inversion.parameters if k in p}
    rows = {k: q.default for k, q in roles.edit.parameters.items()} | own
    if "compat" in knobs:  # the start's, not a way to count windows
        rows["compat"] = ""
    return walk_rows(model, images, inversion._replace(knobs=knobs), rows, watch)


def _tells_the_mask(roles: Roles, name: str) -> bool:
    lead = {p for m in roles.named if m is not roles.mask for p in m.parameters}
    return not (name in _OF_THE_FIRST and name in lead)


def _before(watch, done_before: int, total: int | None = None):
    """Lets a run report as one part of a longer one."""
    if watch is None:
        return None
    return lambda done, own, look: watch(done_before + done, total or done_before + own, look)


def _reported(roles: Roles, p: dict) -> int:
    """How often the walk after the search is reported."""
    if roles.start is None:
        inversion = named_inversion(p["inversion"])
    else:
        inversion = roles.inversion
    if inversion is None:  # begins from noise
        return p["steps"] - skipped(p["steps"], p.get("strength", 1.0))
    rows = inversion.rows(p)
    return inversion.reports(rows) + rows


def _evaluations(roles: Roles, p: dict) -> tuple[int, int]:
    """Network calls, and rows in one of the walk; a call of the mask's search has 2."""
    if roles.start and roles.edit:
        inversion = roles.inversion
        calls, rows = inversion.calls(p, inversion.rows(p)), 2 * inversion.branches(p)
    else:
        calls, rows = roles.lead.evaluations(_complete(roles.lead, p))
    return calls + (p["maps"] if roles.mask and p["mask"] is None else 0), rows


def _complete(method: Method, p: dict[str, Any]) -> dict[str, Any]:
    return {k: p.get(k, q.default) for k, q in method.parameters.items()}
