"""Diffusion image editing in JAX: load a checkpoint, edit a picture.

Example:
    import diffedit_jax as de
    model = de.load("emoji")
    result = de.edit(model, "cat.png", "sdedit", prompt="a dog on a blue background", seed=0)
    result.save("dog.png")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Result, edit, generate, load
    from .errors import NotFiniteError, UserError
    from .methods import methods

__version__ = "0.1.0"

_HOME = dict(Result="api", edit="api", generate="api", load="api",
             NotFiniteError="errors", UserError="errors")  # fmt: skip
__all__ = ["NotFiniteError", "Result", "UserError", "edit", "generate", "load", "methods"]


def __getattr__(name: str):
    """Fetches a public name when it is first asked for, so that `diffedit --help` needs no jax."""
    if name == "methods":  # the package is itself callable: de.methods()
        return importlib.import_module(".methods", __name__)
    if name in _HOME:
        return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})
