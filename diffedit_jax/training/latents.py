"""A pool of encoded scenes, so that the diffusion model trains without running the encoder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffedit_jax.scenes import render_batch, sample_caption
from diffedit_jax.scenes.spec import Scene
from diffedit_jax.training.agree import by_first
from diffedit_jax.training.data import scenes_of, to_unit
from diffedit_jax.training.digests import of_tree
from diffedit_jax.training.kept import forget, is_of, note

_PART = 200  # scenes per encoder call


def encode_pool(vae: Any, params: Any, count: int, seed: int, path: Path) -> np.ndarray:
    """Posterior means [count, h, w, c] float16 of training scenes; kept in `path` for a resume.

    A pool of another autoencoder, count or seed is made anew.
    """
    about = {"count": count, "seed": seed, "autoencoder": of_tree(params)}
    by_first(lambda: _encode(vae, params, count, path, about))
    return np.load(path)


def _encode(vae, params, count, path, about) -> None:
    if is_of(path, about):
        return
    encode = jax.jit(lambda x: vae.apply({"params": params}, x, method="encode")[0])
    parts = []
    for k in range(count // _PART):
        pictures = to_unit(render_batch(scenes_of(about["seed"], k, _PART)))
        parts.append(np.asarray(encode(jnp.asarray(pictures)), np.float16))
    pool = np.concatenate(parts)
    forget(path)
    np.save(path, pool)
    note(path, about)


def pool_scenes(count: int, seed: int) -> list[Scene]:
    """The scenes of the pool, in its order."""
    return [scene for k in range(count // _PART) for scene in scenes_of(seed, k, _PART)]


def emphasised(scenes: list[Scene], weights: Mapping[str, float]) -> np.ndarray:
    """How often each scene is drawn, [n], sum 1: the weights of its style and layout multiplied.

    Example: emphasised(scenes, {"pixel art": 2, "pair": 2}); what is not named has weight 1.
    """
    share = [weights.get(s.style, 1) * weights.get(s.layout, 1) for s in scenes]
    return np.asarray(share, np.float64) / np.sum(share)


def latent_batches(
    pool: np.ndarray,
    scenes: list[Scene],
    tokenize: Callable,
    batch: int,
    seed: int,
    weights: Mapping[str, float] = MappingProxyType({}),
) -> Callable[[int], dict[str, np.ndarray]]:
    """Batches {"latent", "ids"} by step: random members of the pool, each with a fresh caption."""
    share = emphasised(scenes, weights)

    def make(step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((seed, step, 2))
        chosen = rng.choice(len(pool), batch, p=share)
        ids = tokenize([sample_caption(rng, scenes[k]) for k in chosen])
        return {"latent": pool[chosen].astype(np.float32), "ids": ids}

    return make
