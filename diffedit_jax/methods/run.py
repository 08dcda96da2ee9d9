"""What every method does around its algorithm: draw noise, encode prompts, walk, decode."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import Cond, Result, Step, first, image_axes, image_keys, noised, sample_batch, stream
from ..errors import NotFiniteError, UserError

Watch = Callable[[int, int, Callable[[], np.ndarray]], None]
"""Called after every step with (steps done, steps in all, a function that makes a preview)."""

_PURPOSES = {"posterior": 1, "start": 2, "steps": 3, "masked": 4}


class Draws:
    """The noise of a batch, by purpose: drawn from (seed, image's index) or given by the caller.

    Args:
      count: number of images b.
      seed: one number, or one per image.
      index: the images' own indices; an image's noise depends on (seed, index) alone. A number n
        stands for n, n+1, ...; with one seed per image it stands for n, n, ...
      given: None, the starting noise [b, h, w, c], or a mapping from purpose to an array:
        "start" [b, h, w, c], "posterior" [b, h, w, c], "masked" (inpainting's second encoding),
        "steps" [b, steps, h, w, c].
    """

    def __init__(self, count: int, seed, index=0, given=None):
        many = np.ndim(seed) > 0
        if np.ndim(index) == 0:
            index = np.full(count, index) if many else np.arange(index, index + count)
        self._keys = _keys(np.broadcast_to(np.asarray(seed), (count,)), np.asarray(index))
        self._given = given if isinstance(given, Mapping) else {"start": given}
        unknown = set(self._given) - set(_PURPOSES)
        if unknown:
            raise UserError(f"noise has no part {unknown.pop()!r}; parts: {', '.join(_PURPOSES)}")

    def __call__(self, purpose: str, shape: Sequence[int]):
        """[b, *shape] standard normal noise for one purpose."""
        if self._given.get(purpose) is None:
            return _normal(self._keys, _PURPOSES[purpose], tuple(shape))
        given = jnp.asarray(self._given[purpose], jnp.float32)
        expected = (self._keys.shape[0], *shape)
        if given.shape != expected:
            raise UserError(f"noise {purpose!r} has shape {given.shape}, expected {expected}")
        return given

    def on(self, steps: Step) -> Step:
        """The table with every image's own keys (or the given draws)."""
        if self._given.get("steps") is not None:
            return steps.replace(noise=jnp.asarray(self._given["steps"], jnp.float32))
        return steps.replace(key=_step_keys(self._keys, steps.index))


def walk(denoiser, solver, edit, steps, x, cond, *, record=None, watch=None, preview=None):
    """`sample_batch`, or, where somebody watches, the same one step at a time.

    A solver that asks for float64 gets it, whatever jax's own default; its latents stay float64.
    Raises NotFiniteError naming the first step whose latent was NaN or infinite.
    """
    with jax.enable_x64(True) if solver.float64 else contextlib.nullcontext():
        if solver.float64:
            x = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), x)
        if watch is None:
            result = sample_batch(denoiser, solver, edit, steps, x, cond, record=record)
        else:
            results = stream(denoiser, solver, edit, steps, x, cond, record=record)
            result = _watched(results, steps, watch, preview)
    return checked(result, steps)


def _watched(results, steps, watch, preview) -> Result:
    rows, kept = np.flatnonzero(walked_rows(steps)), []
    for done, result in enumerate(results, 1):
        checked(result, steps)
        kept.append(result.recorded)
        watch(done, len(rows), functools.partial(preview, result.x) if preview else None)
    return result.replace(recorded=_stacked(kept, rows, len(steps.index)))


def walked_rows(steps: Step) -> np.ndarray:
    """[n] bool, the rows of a table that any image walks."""
    active = np.ones(len(steps.index), bool) if steps.active is None else np.asarray(steps.active)
    return np.any(active.reshape(-1, active.shape[-1]), axis=0)


def _stacked(kept: list, rows: np.ndarray, count: int):
    """What was recorded step by step, as one run records it: [b, count, ...], zeros between."""

    def one(*values):
        values = jnp.stack(values, axis=1)
        blank = jnp.zeros((values.shape[0], count, *values.shape[2:]), values.dtype)
        return blank.at[:, rows].set(values)

    return jax.tree.map(one, *kept)


def checked(result: Result, steps: Step) -> Result:
    """Stops a run that produced NaN or infinity; never let it reach a picture."""
    broken = int(np.min(np.asarray(result.broken)))
    if broken < len(steps.index):
        t = float(np.asarray(steps.t)[broken])
        raise NotFiniteError(
            f"step {broken + 1} of {len(steps.index)} (t = {t:g}) produced NaN or infinity; "
            "try float32, another solver or a smaller guidance"
        )
    return result


def guided(model, prompt: Sequence[str], negative: Sequence[str]) -> Cond:
    """Condition of classifier-free guidance: leaves [b, 2, ...], the negative prompt first."""
    both = model.condition([*negative, *prompt])
    return jax.tree.map(lambda a: jnp.stack(jnp.split(a, 2), axis=1), both)


def encode(model, images, noise=None):
    """[b, h, w, 3] in [-1, 1] -> scaled latents: a posterior sample, or its mean without noise."""
    return _encode(model, jnp.asarray(images, jnp.float32), noise)


def pictures(model, latents) -> np.ndarray:
    """Scaled latents -> uint8 [b, h, w, 3]; refuses a decoder that produced NaN."""
    with jax.enable_x64(False):  # a preview of a float64 run asks from inside it
        images, finite = _decode(model, jnp.asarray(np.asarray(latents), jnp.float32))
    if not bool(finite):
        raise NotFiniteError("the decoder produced NaN or infinity; try float32")
    return np.asarray(images)


def to_uint8(images):
    """[-1, 1] -> 0..255, rounded half to even as diffusers does."""
    return jnp.round(jnp.clip(images / 2 + 0.5, 0, 1) * 255).astype(jnp.uint8)


def begin_noised(steps: Step, x0, eps):
    """[b, h, w, c] the noised latents where each image's table begins."""
    return _begin_noised(steps, x0, eps)


def per_image(value, count: int, name: str):
    """[b] float32 from a number or one number per image."""
    value = np.asarray(value, np.float32)
    if value.ndim == 0:
        return jnp.full((count,), value)
    if value.shape != (count,):
        raise UserError(f"{name} has {value.shape[0]} values for {count} pictures")
    return jnp.asarray(value)


def check_steps(model, steps: int) -> None:
    """Refuses step counts that the schedule cannot honour."""
    if not 1 <= steps <= model.schedule.train_steps:
        raise UserError(f"steps must be between 1 and {model.schedule.train_steps}, not {steps}")


@jax.jit
def _keys(seed, index):
    return jax.vmap(lambda s, i: image_keys(s, i[None])[0])(seed, index)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _normal(keys, purpose, shape):
    return jax.vmap(lambda k: jax.random.normal(jax.random.fold_in(k, purpose), shape))(keys)


@jax.jit
def _step_keys(keys, index):
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    return jax.vmap(lambda k: fold(jax.random.fold_in(k, _PURPOSES["steps"]), index))(keys)


@jax.jit
def _encode(model, images, noise):
    return model.encode(images, noise=noise)


@jax.jit
def _decode(model, latents):
    images = model.decode(latents)
    return to_uint8(images), jnp.all(jnp.isfinite(images))


@jax.jit
def _begin_noised(steps: Step, x0, eps) -> Any:
    def one(steps, x0, eps):
        return noised(first(steps), x0, eps)

    return jax.vmap(one, in_axes=(image_axes(steps), 0, 0))(steps, x0, eps)
