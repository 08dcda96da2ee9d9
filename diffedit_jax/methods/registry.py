"""The list of editing methods: a method is a function, and registering it is all it takes."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UserError

_METHODS: dict[str, Method] = {}
_BATCH = ("images", "model", "watch")  # given by the library, not by the user


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One knob of a method."""

    name: str
    default: Any  # inspect.Parameter.empty where the user must give it
    kind: str  # the annotation, as text
    doc: str

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclasses.dataclass(frozen=True)
class Method:
    """An editing method as users see it.

    Attributes:
      name: the registry name.
      function: (model, images, *, ...) -> uint8 [b, h, w, 3].
      paper: title, year and arXiv number.
      start: what it begins with: "picture", "noise", or "either".
      channels: input channels of the networks it works with.
      evaluations: parameters -> (network calls, rows in one call) for one picture.
      role: what it brings to a combination: "start", "edit", "mask", or nothing.
      per_image: parameters that may differ from picture to picture of a batch, besides texts,
        masks and seeds.
      told_by: what tells the network what to paint, "text" or "example".
      absent: why parameters that one would expect are not there, by name.
      cuts: parameters -> whether pictures are cut to whole cells (`Frame.cut`), not filled up.
    """

    name: str
    function: Callable
    paper: str
    start: str
    channels: tuple[int, ...]
    evaluations: Callable[[dict], tuple[int, int]]
    role: str = ""
    per_image: tuple[str, ...] = ()
    told_by: str = "text"
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    cuts: Callable[[dict], bool] = lambda parameters: False

    @property
    def summary(self) -> str:
        return inspect.getdoc(self.function).split("\n", 1)[0]

    @property
    def parameters(self) -> dict[str, Parameter]:
        docs = _argument_docs(inspect.getdoc(self.function))
        return {
            p.name: Parameter(p.name, p.default, str(p.annotation), docs.get(p.name, ""))
            for p in inspect.signature(self.function).parameters.values()
            if p.kind is p.KEYWORD_ONLY and p.name not in _BATCH
        }

    def complete(self, given: dict) -> dict:
        """Fills in defaults; unknown and missing parameters are refused by name."""
        known = self.parameters
        for name in given:
            if name not in known:
                raise self.unknown(name)
        missing = [p.name for p in known.values() if p.required and given.get(p.name) is None]
        if missing:
            raise UserError(f"{self.name} needs {' and '.join(missing)}")
        return {p.name: given.get(p.name, p.default) for p in known.values()}

    def unknown(self, name: str) -> UserError:
        """The error for a parameter that it does not have."""
        why = self.absent.get(name)
        hint = f": {why}" if why else nearest(name, self.parameters)
        return UserError(f"{self.name} has no parameter {name!r}{hint}")

    def check_model(self, model) -> None:
        """Refuses a network of the wrong kind (input channels, who tells it), saying which fits."""
        if model.in_channels not in self.channels:
            fits = " or ".join(map(str, self.channels))
            kind = _KINDS.get(model.in_channels, "unknown kind")
            raise UserError(
                f"{self.name} needs a network with {fits} input channels, "
                f"this one has {model.in_channels} ({kind})"
            )
        if (self.told_by == "example") != (getattr(model, "exemplar", None) is not None):
            raise UserError(f"{self.name} {_MISMATCHES[self.told_by]}")


_MISMATCHES = {
    "text": "needs a network that is told by texts; this one is told by an example picture "
    "(method paint_by_example)",
    "example": "needs a network that is told by an example picture (Paint by Example's); "
    "this one is told by texts (method inpaint)",
}
_KINDS = {4: "text to image", 8: "InstructPix2Pix", 9: "inpainting or Paint by Example"}


def method(*, paper: str, start: str, channels: tuple[int, ...], evaluations, role: str = "",
           per_image: tuple[str, ...] = (), told_by: str = "text", **more) -> Callable:  # fmt: skip
    """Registers a function as an editing method under its own name (`more`: see `Method`)."""

    def register(function):
        name = function.__name__
        _METHODS[name] = Method(
            name, function, paper, start, channels, evaluations, role, per_image, told_by, **more
        )
        return function

    return register


def methods() -> dict[str, Method]:
    """Every registered method by name.

    Example: `methods()["sdedit"].parameters["strength"].doc`.
    """
    return dict(_METHODS)


def find(name: str) -> Method:
    """The method of that name, or the combination a+b; an unknown name is refused with the nearest.

    Example: `find("edict+prompt_to_prompt")`.
    """
    if "+" in name:
        from .combination import combined

        return combined(name)
    if name not in _METHODS:
        raise UserError(f"there is no method {name!r}{nearest(name, _METHODS)}")
    return _METHODS[name]


def nearest(name: str, known) -> str:
    """' (did you mean ...?)' or '; there are: ...' for error messages."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else f"; there are: {', '.join(known)}"


def _argument_docs(text: str) -> dict[str, str]:
    """The entries of a docstring's Args section."""
    section = re.search(r"^Args:\n((?:[ ]+.*\n?|\n)*)", text, re.M)
    entries = re.split(r"\n[ ]{2}(?=\w+:)", "\n" + (section[1] if section else ""))
    pairs = (entry.split(":", 1) for entry in entries if ":" in entry)
    return {name.strip(): " ".join(doc.split()) for name, doc in pairs}
