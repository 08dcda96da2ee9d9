"""One door for weight files of every format: `read(path)` gives {name: array}."""

from pathlib import Path

import numpy as np

from diffedit_jax.checkpoints.files import map_file
from diffedit_jax.checkpoints.safetensors_file import is_safetensors, read_safetensors
from diffedit_jax.checkpoints.torch_file import read_torch
from diffedit_jax.errors import UserError

# Under one of these names a training script puts the weights beside its own bookkeeping.
WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "params_ema", "params")

Weights = dict[str, np.ndarray]


def read(path: str | Path) -> Weights:
    """Reads a weight file, .safetensors or what torch.save wrote, told apart by its content.

    Arrays are read-only views of the mapped file: nothing is in memory until it is used.

    Raises: UserError, one line that names the file and what is wrong with it.

        weights = read("v1-5-pruned-emaonly.ckpt")
        weights["model.diffusion_model.out.2.bias"].shape    # (4,)
    """
    head = map_file(path)[:16]
    if is_safetensors(head):
        return read_safetensors(path)
    return unwrap(read_torch(path), path)


def unwrap(found, path) -> Weights:
    """The state dict inside what torch.save stored: itself, or under one of WRAPPERS.

    Raises: UserError when there is none, or when something in it is not a tensor.
    """
    if isinstance(found, dict):
        inner = next((found[name] for name in WRAPPERS if isinstance(found.get(name), dict)), found)
        others = [key for key, value in inner.items() if not isinstance(value, np.ndarray)]
        if inner and not others:
            return {str(key): value for key, value in inner.items()}
        if len(others) < len(inner):
            raise UserError(f"{path} has entries that are not tensors: {_some(others)}")
    raise UserError(f"{path} holds no tensors by name (a state dict); it is not a model's weights")


def _some(names: list, limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(repr(name) for name in names[:limit]) + more
