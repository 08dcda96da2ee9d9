"""Reference weights in our parameter trees, and how close two arrays are."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

GOLDEN = Path(__file__).parents[1] / "golden" / "latent"


def tree_path(key: str, rank: int, embedding: bool) -> tuple[str, ...]:
    """A torch key as a path in our tree."""
    parts = []
    for part in key.split("."):
        if part.isdigit():
            parts[-1] += "_" + part
        elif part not in ("text_model", "vision_model"):
            parts.append(part)
    if parts[-1] == "weight":
        parts[-1] = "embedding" if embedding else "scale" if rank == 1 else "kernel"
    return tuple(parts)


def our_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a torch tensor takes in our tree."""
    if name != "kernel":
        return tuple(shape)
    return (*shape[2:], shape[1], shape[0])


def tree_from_torch(state: dict) -> dict:
    """A torch state dict (numpy values) as our parameter tree."""
    flat = {}
    for key, value in state.items():
        if key.endswith("position_ids"):
            continue
        value = np.asarray(value)
        path = tree_path(key, value.ndim, key.endswith("_embedding.weight") and value.ndim == 2)
        if path[-1] == "kernel":
            value = value.transpose(*range(2, value.ndim), 1, 0)
        flat[path] = value
    return traverse_util.unflatten_dict(flat)


def shapes_of(module, *inputs, **more) -> dict:
    """{path: shape} of a module's parameters, without allocating them."""
    tree = jax.eval_shape(lambda key: module.init(key, *inputs, **more), jax.random.key(0))
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(tree["params"]).items()}


def relative(ours, theirs) -> float:
    """max |ours - theirs| / max |theirs|."""
    theirs = np.asarray(theirs, np.float64)
    return float(np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max())


def nhwc(x) -> jax.Array:
    """A torch or numpy picture batch [n, c, h, w] as [n, h, w, c]."""
    x = x.detach().numpy() if hasattr(x, "detach") else x
    return jnp.asarray(np.asarray(x).transpose(0, 2, 3, 1))


def torch_params(model) -> dict:
    """The variables of our network from a live torch module."""
    state = {key: value.detach().numpy() for key, value in model.state_dict().items()}
    return {"params": tree_from_torch(state)}


def golden_model(kind: type, folder: str):
    """A network and its variables from a reference folder in tests/golden."""
    from safetensors.numpy import load_file

    config = json.loads((GOLDEN / "models" / folder / "config.json").read_text())
    weights = load_file(GOLDEN / "models" / folder / "diffusion_pytorch_model.safetensors")
    return kind.from_config(config), {"params": tree_from_torch(weights)}
