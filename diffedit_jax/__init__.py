"""Diffusion image editing in JAX: load a checkpoint, edit a picture.

Example:
    import diffedit_jax as de
    model = de.load("emoji")
    result = de.edit(model, "cat.png", "sdedit", prompt="a dog on a blue background", seed=0)
    result.save("dog.png")
"""

__version__ = "0.1.0"

from .api import Result, edit, generate, load
from .errors import NotFiniteError, UserError
from .methods import methods
