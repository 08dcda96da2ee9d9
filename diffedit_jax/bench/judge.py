"""The judge: reads objects, colours, background, pattern and style off an emoji picture.

Trained on noisy and blurred renders only, never on generated pictures; see train/pretrain_judge.py.
"""

from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.scenes import world
from diffedit_jax.scenes.spec import Scene

NOTHING = "nothing"
_NAMES = (*world.OBJECTS, *world.HELD_OUT_OBJECTS, NOTHING)
_SHADES = (*world.COLOURS, NOTHING)

# Slot 1: the thing at the centre or the left; slot 2: the thing at the right.
HEADS: dict[str, tuple[str, ...]] = {
    "object": _NAMES,
    "colour": _SHADES,
    "object_2": _NAMES,
    "colour_2": _SHADES,
    "background": tuple(world.BACKGROUNDS),
    "pattern": world.PATTERNS,
    "style": world.STYLES,
}


class Judge(nn.Module):
    """A small residual classifier of 64x64 pictures with one linear head per attribute."""

    widths: tuple[int, ...] = (24, 48, 96)

    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> dict[str, Array]:
        """Pictures in [-1, 1] to logits [n, options] per name of HEADS."""
        for k, width in enumerate(self.widths):
            x = nn.relu(nn.Conv(width, (3, 3), (2, 2), name=f"down_{k}")(x))
            if k:
                y = nn.GroupNorm(8, name=f"norm_{k}")(x)
                x = x + nn.Conv(width, (3, 3), name=f"same_{k}")(nn.relu(y))
        half = x.shape[2] // 2
        parts = [x, x[:, :, :half], x[:, :, half:]]
        pooled = [pool(part, (1, 2)) for part in parts for pool in (jnp.max, jnp.mean)]
        hidden = nn.relu(nn.Dense(192, name="hidden")(jnp.concatenate(pooled, -1)))
        return {name: nn.Dense(len(o), name=f"head_{name}")(hidden) for name, o in HEADS.items()}


def answers(scene: Scene) -> dict[str, str]:
    """The true option per head; slots without a thing, and things without a colour: NOTHING."""
    slots = {"": None, "_2": None}
    for k, thing in enumerate(scene.things):
        slots["_2" if k == 1 or thing.place == "right" else ""] = thing
    found = {"background": scene.background, "pattern": scene.pattern, "style": scene.style}
    for suffix, thing in slots.items():
        found[f"object{suffix}"] = thing.name if thing else NOTHING
        found[f"colour{suffix}"] = (thing.colour if thing else None) or NOTHING
    return found


def labels(scenes: Iterable[Scene]) -> dict[str, np.ndarray]:
    """The true options as indices, int32 [n] per head."""
    rows = [answers(scene) for scene in scenes]
    return {
        name: np.asarray([options.index(row[name]) for row in rows], np.int32)
        for name, options in HEADS.items()
    }


@jax.jit
def _logits(params, images):
    return Judge().apply({"params": params}, images.astype(jnp.float32) / 127.5 - 1)


def read(params, images: np.ndarray, batch: int = 64) -> dict[str, np.ndarray]:
    """What the judge sees in uint8 pictures [n, 64, 64, 3]: names, str [n] per head."""
    count = len(images)
    padded = np.concatenate([images, np.zeros((-count % batch, *images.shape[1:]), np.uint8)])
    parts = [_logits(params, padded[k : k + batch]) for k in range(0, len(padded), batch)]
    return {
        name: np.asarray(options)[np.concatenate([p[name] for p in parts])[:count].argmax(-1)]
        for name, options in HEADS.items()
    }


def right(params, images: np.ndarray, scenes: list[Scene]) -> dict[str, np.ndarray]:
    """Which attributes the judge finds as the scene says, bool [n] per head."""
    truth = [answers(scene) for scene in scenes]
    seen = read(params, images)
    return {name: seen[name] == np.asarray([row[name] for row in truth]) for name in HEADS}


def save_judge(params, path: Path) -> None:
    """Write the weights as float16 safetensors, names joined by "/"."""
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save_file

    flat = flatten_dict(params, sep="/")
    save_file({name: np.asarray(value, np.float16) for name, value in flat.items()}, path)


def load_judge(path: Path):
    """Read the weights that save_judge wrote, as float32."""
    from flax.traverse_util import unflatten_dict
    from safetensors.numpy import load_file

    flat = {name: value.astype(np.float32) for name, value in load_file(path).items()}
    return unflatten_dict(flat, sep="/")


def embedded_judge():
    """The weights of the judge that ships with the package."""
    return load_judge(
        str(files("diffedit_jax") / "assets" / "emoji" / "judge" / "judge.safetensors")
    )
