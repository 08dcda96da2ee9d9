"""Parameter trees as flat safetensors files, for handing results from one run to the next."""

from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoints.write import whole_file, write_safetensors


def save(params: Any, path: Path) -> None:
    """Write a nested dict of arrays in float32, names joined by "/", whole or not at all."""
    from flax.traverse_util import flatten_dict

    flat = flatten_dict(params, sep="/")
    with whole_file(path) as temporary:
        write_safetensors(temporary, {k: np.array(v, np.float32) for k, v in flat.items()})


def load(path: Path) -> Any:
    """Read what save wrote."""
    from flax.traverse_util import unflatten_dict
    from safetensors.numpy import load_file

    return unflatten_dict(load_file(str(path)), sep="/")
