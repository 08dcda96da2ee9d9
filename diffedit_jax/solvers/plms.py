"""PLMS, the pseudo linear multistep method for DDIM's transfer (PNDM, Liu et al. 2022)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ..core import Solver, levels
from .grids import abar_at, timestep_table
from .moves import for_age, landing, moved, no_past, pulled_score, remembered, weighted

_ADAMS_BASHFORTH = np.array(
    [[24, 0, 0, 0], [36, -12, 0, 0], [46, -32, 10, 0], [55, -59, 37, -9]], np.float32
) / np.float32(24)
_RUNGE_KUTTA_ROWS = 3


class PLMS(Solver):
    """x' = alpha' x0(e) + sigma' e,  x0(e) = (x - sigma e) / alpha,  e = sum_j c_j eps_j.

    c: Adams-Bashforth of order 4 over the last four answers. The first row walked asks twice
    (Heun's average) unless it is also the last; with `prk` the first three rows ask four times each
    (Runge-Kutta 4, through the time half-way). A pull shifts each score, eps <- eps - sigma * pull.
    The prediction of a step is the mixed one, seen from x.
    Source: Liu et al. 2022 (2202.09778) eq. 9, 12, 13; CompVis' PLMSSampler; PNDMScheduler.

    Attributes:
      prk: Runge-Kutta warm-up instead of Heun's.
      compat: "diffusers" for its t - T // N rule on every grid, and for mixing the network's raw
        answers, which under v-prediction costs an order: v is turned into eps after the mixing.
    """

    prk: bool = struct.field(pytree_node=False, default=False)
    compat: str = struct.field(pytree_node=False, default="")

    def evaluations(self, count: int) -> int:
        extra = 3 * min(_RUNGE_KUTTA_ROWS, count - 1) if self.prk else min(1, count - 1)
        return count + extra

    def steps(self, schedule, count, *, spacing=None, start=0):
        steps = timestep_table(schedule, count, spacing, start, self.compat)
        if self.compat == "diffusers":
            return steps.replace(more=_diffusers_levels(schedule, steps, count))
        return steps.replace(more=_half_way(schedule, steps)) if self.prk else steps

    def init(self, x):
        return no_past(x, 3)

    def step(self, denoise, x, past, step):
        here = pulled_score(denoise(x, step))
        said = self._said(here)

        def ask(x, step):
            return self._said(pulled_score(denoise(x.astype(here.x.dtype), step)))

        def warm(_):
            rule = self._runge_kutta if self.prk else self._heun
            return rule(ask, here, step)

        def run(_):
            mixed = weighted(for_age(jnp.asarray(_ADAMS_BASHFORTH), step), (said, *past))
            return mixed, self._led(here, mixed, step.alpha_next, step.sigma_next)

        rows = _RUNGE_KUTTA_ROWS if self.prk else 1
        warming = (step.walked < rows) & ~step.last
        mixed, x_next = jax.lax.cond(warming, warm, run, None)
        return x_next, remembered(said, past), self._meant(here, mixed)

    def _said(self, prediction):
        """What is remembered and mixed: eps, or diffusers' raw answers."""
        return prediction.output if self.compat == "diffusers" else prediction.eps

    def _meant(self, here, said):
        """The prediction at x that says so."""
        return here.with_output(said) if self.compat == "diffusers" else here.with_eps(said)

    def _led(self, here, said, alpha, sigma):
        return moved(self._meant(here, said), alpha, sigma)

    def _heun(self, ask, here, step):
        """e = (e(x) + e(x1)) / 2, x1 = where e(x) leads."""
        said = self._said(here)
        there = self._led(here, said, step.alpha_next, step.sigma_next)
        begin, end = self._quirky(here, step)
        mixed = (said + ask(there, end)) / 2
        return mixed, self._led(begin, mixed, end.alpha, end.sigma)

    def _runge_kutta(self, ask, here, step):
        """e = (e1 + 2 e2 + 2 e3 + e4) / 6, asked at x, twice half-way, and where e3 leads."""
        half = step.replace(**step.more["half"])
        _, end = self._quirky(here, step)
        e1 = self._said(here)
        e2 = ask(self._led(here, e1, **step.more["half_first"]), half)
        e3 = ask(self._led(here, e2, half.alpha, half.sigma), half)
        e4 = ask(self._led(here, e3, end.alpha, end.sigma), end)
        mixed = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        return mixed, self._led(here, mixed, end.alpha, end.sigma)

    def _quirky(self, here, step):
        """(where the second pass of a warm-up begins, where it ends); see `_diffusers_levels`."""
        if self.compat != "diffusers":
            return here, landing(step)
        return here.replace(**step.more["again"]), step.replace(**step.more["end"])


def _half_way(schedule, steps) -> dict:
    """The time and level half-way along each row."""
    half = np.round((steps.t.astype(np.float64) + steps.t_next) / 2).astype(int)
    level = _level(schedule, half)
    return {"half": {"t": half.astype(np.float32), **level}, "half_first": level}


def _diffusers_levels(schedule, steps, count: int) -> dict:
    """What diffusers reads off its list of times, with D = T // N and t' the next time on it.

    The second pass of the first row goes from t' + D (not t) to t' (not t - D); Runge-Kutta's
    half-way time is t' + D // 2, and its first visit there lands on t - D // 2.
    """
    stride = schedule.train_steps // count
    t = steps.t.astype(int)
    following = np.append(t[1:], t[-1] - stride)
    half = following + stride // 2
    return {
        "again": _level(schedule, following + stride),
        "end": {"t": np.maximum(following, 0).astype(np.float32), **_level(schedule, following)},
        "half": {"t": np.maximum(half, 0).astype(np.float32), **_level(schedule, half)},
        "half_first": _level(schedule, t - stride // 2),
    }


def _level(schedule, t) -> dict:
    alpha, sigma = levels(abar_at(schedule, t, schedule.final_abar))
    return {"alpha": alpha.astype(np.float32), "sigma": sigma.astype(np.float32)}
