"""Editing methods, one file per paper; importing the package registers them all.

The package is callable: `diffedit_jax.methods()` is the registry, also once the package of the same
name has been imported.
"""

import sys
import types

from .ddim_inversion import ddim_inversion
from .diffedit import diffedit
from .direct_inversion import direct_inversion
from .edict import edict
from .generate import generate
from .inpaint import inpaint
from .inst import inst
from .instruct_pix2pix import instruct_pix2pix
from .negative_prompt import negative_prompt
from .null_text import null_text
from .paint_by_example import paint_by_example
from .pnp_inversion import pnp_inversion
from .prompt_to_prompt import prompt_to_prompt
from .registry import Method, Parameter, find, methods
from .sdedit import sdedit


class _Registry(types.ModuleType):
    """The package's own type, so that `de.methods()` works whatever was imported before."""

    def __call__(self) -> dict[str, Method]:
        return methods()


sys.modules[__name__].__class__ = _Registry
