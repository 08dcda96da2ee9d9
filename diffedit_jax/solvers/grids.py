"""Tables of the solvers: which times a run visits, and the noise level at each of them.

Two families, as diffusers' classes have them. Timestep solvers (DDIM, DDPM, PLMS) walk whole
training timesteps. Sigma solvers (Euler, Heun, LMS, DPM-Solver++, UniPC) walk levels
s = sqrt((1 - abar) / abar), which may lie between timesteps; a row holds alpha = 1 / sqrt(1 + s^2)
and sigma = s alpha all the same, because every latent here is variance preserving.
"""

from __future__ import annotations

import numpy as np

from ..core import SPACINGS, Schedule, Step, grid, levels, table
from ..errors import UserError

_FLOOR = 2.0**-24  # signal power that stands for zero where sigma would be infinite


def timestep_table(schedule: Schedule, count: int, spacing: str | None, start: int,
                   compat: str = "", final_abar: float | None = None) -> Step:  # fmt: skip
    """The table of the solvers that walk whole training timesteps.

    The level after a row is the next row's; `compat="diffusers"` takes t - T // N instead, which
    differs where the grid's stride is not T // N (linspace, trailing that does not divide T).

    Args:
      final_abar: signal power after the last row; None takes the schedule's.
    """
    t = whole_timesteps(schedule, count, spacing)
    after = t - schedule.train_steps // count if compat == "diffusers" else np.append(t[1:], -1)
    final = schedule.final_abar if final_abar is None else final_abar
    abar_after = abar_at(schedule, after, final)
    alpha, sigma = levels(np.append(schedule.abar[t], abar_after[-1]))
    steps = table(np.append(t, max(after[-1], 0)), alpha, sigma, start=start)
    alpha_next, sigma_next = (a.astype(np.float32) for a in levels(abar_after))
    t_next = np.maximum(after, 0).astype(np.float32)
    return steps.replace(t_next=t_next, alpha_next=alpha_next, sigma_next=sigma_next)


def whole_timesteps(schedule: Schedule, count: int, spacing: str | None) -> np.ndarray:
    """[count] int, noisiest first, rounded half to even; "leading" where nobody names a grid."""
    spacing = chosen(schedule, count, spacing, "leading")
    return np.round(grid(schedule.train_steps, count, spacing, schedule.steps_offset)).astype(int)


def abar_at(schedule: Schedule, t, final: float) -> np.ndarray:
    """Signal power at whole timesteps; below 0 lies the level where the run ends."""
    t = np.asarray(t)
    return np.where(t < 0, final, schedule.abar[np.clip(t, 0, schedule.train_steps - 1)])


def chosen(schedule: Schedule, count: int, spacing: str | None, default: str) -> str:
    """The grid by the caller's choice, else the schedule's, else the solver's own default."""
    spacing = spacing or schedule.spacing or default
    if spacing not in SPACINGS:
        raise UserError(f"spacing must be one of {', '.join(SPACINGS)}, not {spacing!r}")
    if not 1 <= count <= schedule.train_steps:
        raise UserError(f"steps must be between 1 and {schedule.train_steps}, not {count}")
    return spacing


def training_sigmas(schedule: Schedule) -> np.ndarray:
    """[T] float64, s_t = sqrt((1 - abar_t) / abar_t), increasing.

    A schedule with zero terminal SNR would end in infinity: its last abar counts as 2^-24 (or less
    where the level before is already smaller).
    """
    abar = schedule.abar.astype(np.float64)
    if schedule.zero_terminal_snr:
        abar[-1] = min(_FLOOR, abar[-2] / 2)
    return np.sqrt((1 - abar) / abar)


def fractional_grid(schedule: Schedule, count: int, spacing: str, karras: bool):
    """(t, s) of Euler, LMS and Heun: sigmas interpolated at grid points that may be fractions.

    With `karras` the sigmas run from the grid's first to its last (Karras et al. 2022), and the
    network is told the fractional time of each.
    """
    sigmas = training_sigmas(schedule)
    t = grid(schedule.train_steps, count, spacing, schedule.steps_offset).astype(np.float32)
    s = np.interp(t, np.arange(len(sigmas)), sigmas)
    if karras:
        s = karras_sigmas(s[0], s[-1], count)
        t = times_of(s, sigmas)
    return t, s


def rounded_grid(schedule: Schedule, count: int, spacing: str, karras: bool):
    """(t, s) of DPM-Solver++ and UniPC: whole timesteps, the last point left to the end of the run.

    leading and linspace lay count + 1 points and leave out the cleanest; trailing has none to leave
    out. With `karras` the sigmas span the whole schedule, and times are rounded.
    """
    sigmas = training_sigmas(schedule)
    if karras:
        s = karras_sigmas(sigmas[-1], sigmas[0], count)
        return np.round(times_of(s, sigmas)), s
    points = count if spacing == "trailing" else count + 1
    if points > schedule.train_steps:
        raise UserError(f"steps must be below {points} with this solver on {spacing!r} spacing")
    t = np.round(grid(schedule.train_steps, points, spacing, schedule.steps_offset)[:count])
    return t, sigmas[t.astype(int)]


def karras_sigmas(high: float, low: float, count: int, rho: float = 7.0) -> np.ndarray:
    """[count] s_i = (high^(1/rho) + i/(count-1) (low^(1/rho) - high^(1/rho)))^rho.

    Source: Karras et al. 2022 (2206.00364) eq. 5.
    """
    ramp = np.linspace(0, 1, count)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def times_of(s, sigmas) -> np.ndarray:
    """The fractional training time of each sigma, linear in log sigma between timesteps."""
    return np.interp(np.log(s), np.log(sigmas), np.arange(len(sigmas)))


def sigma_table(t, s, final: float, start: int, more: dict | None = None) -> Step:
    """The table of the levels s, ending at sigma = `final` (0: the clean latent)."""
    s = np.append(s, final)
    alpha = 1 / np.sqrt(1 + s**2)
    return table(np.append(t, 0), alpha, s * alpha, start=start, more=more)


def log_snr(steps_s) -> np.ndarray:
    """lambda = log(alpha / sigma) = -log s; infinite at the clean end."""
    with np.errstate(divide="ignore"):
        return -np.log(np.asarray(steps_s, np.float64))


def final_sigma(schedule: Schedule, kind: str) -> float:
    """Where a sigma solver ends: "zero" at the clean latent, "sigma_min" at the lowest trained."""
    ends = {"zero": 0.0, "sigma_min": float(training_sigmas(schedule)[0])}
    if kind not in ends:
        raise UserError(f"final sigma must be 'zero' or 'sigma_min', not {kind!r}")
    return ends[kind]
