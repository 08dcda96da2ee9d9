"""Vectors of the official code, and how close they must be met."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

GOLDEN = Path(__file__).parents[1] / "golden" / "pixel"


def vectors(name):
    return dict(np.load(GOLDEN / f"{name}.npz"))


def weights(name):
    """A state dict whose 16 bits mean the same 32-bit numbers."""
    return {k: v.astype(np.float32) for k, v in load_file(GOLDEN / f"{name}.safetensors").items()}


def nhwc(x):
    return jnp.asarray(np.moveaxis(np.asarray(x), 1, -1))


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, 1)


def relative_l2(ours, theirs):
    return np.linalg.norm(np.asarray(ours) - theirs) / np.linalg.norm(theirs)
