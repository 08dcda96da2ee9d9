"""Parameter trees as flat safetensors files, for handing results from one run to the next."""

from pathlib import Path
from typing import Any

import numpy as np


def save(params: Any, path: Path) -> None:
    """Write a nested dict of arrays in float32, names joined by "/"."""
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save_file

    flat = flatten_dict(params, sep="/")
    save_file({k: np.array(v, np.float32, order="C") for k, v in flat.items()}, str(path))


def load(path: Path) -> Any:
    """Read what save wrote."""
    from flax.traverse_util import unflatten_dict
    from safetensors.numpy import load_file

    return unflatten_dict(load_file(str(path)), sep="/")
