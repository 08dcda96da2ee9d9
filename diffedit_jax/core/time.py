"""Time is a table: schedules give noise levels, a grid picks rows, the loop walks them.

Everything here is made once on the host; the rows become arrays that the loop scans, so step
sizes, strengths and windows change without recompiling anything.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

SPACINGS = ("leading", "linspace", "trailing")
_SETTLE = 1 << 16  # keeps the keys of a link's two methods apart


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The noise levels a network was trained with, as its checkpoint's scheduler config says.

    abar_t = prod_{s<=t} (1 - beta_s), float32, bit-equal to torch's table.

    Attributes:
      train_steps: T, number of training levels.
      beta_start, beta_end, shape: "scaled_linear" (linspace of square roots, squared; Stable
        Diffusion), "linear" (ADM, DDPM) or "squaredcos_cap_v2".
      betas: an explicit table of T betas; overrides the three above.
      steps_offset: added to every timestep of the "leading" grid.
      set_alpha_to_one: the level after the last step is 1 instead of abar_0.
      spacing: the grid a solver uses when the caller names none; None: the solver's own default.
      zero_terminal_snr: rescale so that abar_{T-1} = 0 (Lin et al. 2023, algorithm 1).

    Source: Ho et al. 2020 section 4; the tables of diffusers' schedulers.
    """

    train_steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    shape: str = "scaled_linear"
    betas: tuple | None = None
    steps_offset: int = 1
    set_alpha_to_one: bool = False
    spacing: str | None = None
    zero_terminal_snr: bool = False

    @functools.cached_property
    def abar(self) -> np.ndarray:
        """[T] float32, cumulative signal power."""
        betas = self._betas()
        if self.zero_terminal_snr:
            betas = _rescaled_to_zero_terminal_snr(betas)
        return _cumulative_product(np.float32(1) - betas)

    @property
    def final_abar(self) -> float:
        """Signal power after the last step of the timestep solvers (DDIM, DDPM, PNDM)."""
        return 1.0 if self.set_alpha_to_one else float(self.abar[0])

    def _betas(self) -> np.ndarray:
        if self.betas is not None:
            return np.asarray(self.betas, np.float32)
        if self.shape == "scaled_linear":
            return _linspace(self.beta_start**0.5, self.beta_end**0.5, self.train_steps) ** 2
        if self.shape == "linear":
            return _linspace(self.beta_start, self.beta_end, self.train_steps)
        if self.shape == "squaredcos_cap_v2":
            edges = np.arange(self.train_steps + 1) / self.train_steps
            signal = np.cos((edges + 0.008) / 1.008 * np.pi / 2) ** 2
            return np.minimum(1 - signal[1:] / signal[:-1], 0.999).astype(np.float32)
        raise ValueError(f"unknown beta schedule {self.shape!r}")


class Step(struct.PyTreeNode):
    """One row of the table (or, with a leading axis, the table): from now to next.

    x_now = alpha x0 + sigma eps -> x_next = alpha_next x0 + sigma_next eps.
    """

    index: Any  # [] int32, position in the table; never recover it from t
    t: Any  # [] float32, the time the network is told
    alpha: Any  # [] signal now
    sigma: Any  # [] noise now
    alpha_next: Any  # []
    sigma_next: Any  # []
    t_next: Any  # [] float32, the network's time of the level after the step
    last: Any  # [] bool, the run ends after this row
    key: Any = None  # [] PRNG key of this step of this image
    noise: Any = None  # [*rows, h, w, c] the draw of this step, given instead of a key
    active: Any = None  # [] bool, False: the row is skipped; None: every row is walked
    walked: Any = None  # [] int32, rows walked before this one; the loop fills it in
    more: Any = None  # dict of [...]: columns that one solver needs

    def fold(self, position: int) -> Step:
        """The same row with another key, for a part of an edit that draws its own noise."""
        if self.key is None:
            return self
        return self.replace(key=jax.random.fold_in(self.key, position % (2 * _SETTLE)))

    def normal(self, like):
        """Standard normal noise in the shape and dtype of `like`: given, or drawn from the key."""
        if self.noise is not None:
            return jnp.asarray(self.noise, like.dtype)
        if self.key is None:
            raise ValueError("a step that draws noise needs a key: use with_key(steps, key)")
        return jax.random.normal(self.key, like.shape, like.dtype)


def table(t, alpha, sigma, *, start: int = 0, more: dict | None = None, dtype=np.float32) -> Step:
    """Builds the table from n+1 levels; row i goes from level i to level i+1.

    Args:
      t, alpha, sigma: [n+1], noisiest first; the last level is where the run ends.
      start: rows before it are idle.
      more: columns [n, ...] that a solver needs.
    """
    t, alpha, sigma = (np.asarray(a, dtype) for a in (t, alpha, sigma))
    count = len(t) - 1
    return Step(
        index=np.arange(count, dtype=np.int32),
        **dict(t=t[:-1], alpha=alpha[:-1], sigma=sigma[:-1]),
        **dict(t_next=t[1:], alpha_next=alpha[1:], sigma_next=sigma[1:]),
        last=np.arange(count) == count - 1,
        active=np.arange(count) >= start,
        more=more,
    )


def levels(abar) -> tuple[np.ndarray, np.ndarray]:
    """(alpha, sigma) = (sqrt(abar), sqrt(1 - abar)) in float64."""
    abar = np.asarray(abar, np.float64)
    return np.sqrt(abar), np.sqrt(1 - abar)


def grid(train_steps: int, count: int, spacing: str, offset: int = 0) -> np.ndarray:
    """Timesteps, noisiest first, [count] float64; whole numbers except for "linspace".

    leading: k * (T // N) + offset;  linspace: N points on [0, T-1];
    trailing: round(T - k T / N) - 1.
    The offset shrinks where it would leave the table (N = T).
    """
    if not 1 <= count <= train_steps:
        raise ValueError(f"steps must be between 1 and {train_steps}, not {count}")
    if spacing == "leading":
        stride = train_steps // count
        offset = min(offset, train_steps - 1 - (count - 1) * stride)
        return np.arange(count - 1, -1, -1, dtype=np.float64) * stride + offset
    if spacing == "linspace":
        return np.linspace(0, train_steps - 1, count)[::-1].copy()
    if spacing == "trailing":
        return np.round(np.arange(train_steps, 0, -train_steps / count))[:count] - 1
    raise ValueError(f"spacing {spacing!r} is not one of {', '.join(SPACINGS)}")


def with_key(steps: Step, key) -> Step:
    """Gives every row its own key, folded from one key of one image."""
    return steps.replace(
        key=jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(steps.index))
    )


def image_keys(seed, indices):
    """[n] one key per image from (seed, the image's own index) alone, not from the batch."""
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices, jnp.uint32))


def row(steps: Step, index) -> Step:
    """One row of the table."""
    return jax.tree.map(lambda a: jnp.asarray(a)[index], steps)


def first(steps: Step) -> Step:
    """The first row that is walked."""
    return row(steps, 0 if steps.active is None else jnp.argmax(jnp.asarray(steps.active)))


def noised(step: Step, x0, eps):
    """x = alpha x0 + sigma eps at the level where the row begins."""
    return step.alpha.astype(x0.dtype) * x0 + step.sigma.astype(x0.dtype) * eps


def skipped(count: int, strength: float) -> int:
    """Rows that SDEdit skips: N - min(int(N * strength), N), truncated in float64 as diffusers."""
    return count - min(int(count * strength), count)


def counted(steps: Step) -> Step:
    """Fills in `walked`, the age of a multistep solver's memory: active rows before each row."""
    active = jnp.ones_like(steps.index) if steps.active is None else steps.active
    active = jnp.asarray(active, jnp.int32)
    return steps.replace(walked=jnp.cumsum(active, axis=-1, dtype=jnp.int32) - active)


def window(steps: Step, begin, end) -> Step:
    """Walks only the rows begin <= index < end of those that were walked before."""
    inside = (steps.index >= begin) & (steps.index < end)
    return steps.replace(active=inside if steps.active is None else inside & steps.active)


def reverse(steps: Step, label: str = "target") -> Step:
    """The table walked from clean to noisy, for DDIM inversion.

    Args:
      label: what the network is told while it sees the cleaner end of a row: "target", the time of
        the noisier level that the row leads to (null-text, PnP inversion, diffusers), or "source",
        the time of the level it sees (Song et al. 2021, Direct Inversion).
    """
    flipped = jax.tree.map(lambda a: a[::-1], steps)
    told = {"target": flipped.t, "source": flipped.t_next}[label]
    return flipped.replace(
        index=steps.index,
        last=steps.last,
        **dict(t=told, alpha=flipped.alpha_next, sigma=flipped.sigma_next),
        **dict(t_next=flipped.t, alpha_next=flipped.alpha, sigma_next=flipped.sigma),
    )


def _linspace(start: float, end: float, count: int) -> np.ndarray:
    """torch.linspace in float32: symmetric about the middle, one rounding per entry."""
    start, end = np.float32(start), np.float32(end)
    step = np.float64((end - start) / np.float32(count - 1))
    i = np.arange(count)
    up, down = np.float64(start) + step * i, np.float64(end) - step * (count - 1 - i)
    return np.where(i < count // 2, up, down).astype(np.float32)


def _cumulative_product(alphas: np.ndarray) -> np.ndarray:
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def _rescaled_to_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    root = np.sqrt(_cumulative_product(np.float32(1) - betas))
    shifted = root - root[-1]
    shifted = shifted * (root[0] / (root[0] - root[-1]))
    abar = shifted**2
    return np.float32(1) - np.concatenate([abar[:1], abar[1:] / abar[:-1]])
