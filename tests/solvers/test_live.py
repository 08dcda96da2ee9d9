"""Update rules against diffusers' schedulers run here, through the schedulers' own configs."""

import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import Schedule

from .toy import Toy, walk_all

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1)
SHAPE = (3, 2, 2)
RUNS = {  # class: (settings, [(spacing, kind, count, start)])
    "DDIMScheduler": (
        dict(clip_sample=False, set_alpha_to_one=False),
        [("leading", "epsilon", 25, 0), ("trailing", "v_prediction", 33, 0),
         ("leading", "epsilon", 20, 5), ("linspace", "sample", 12, 4)],
    ),
    "DDPMScheduler": (
        dict(clip_sample=True, clip_sample_range=2.0),
        [("leading", "epsilon", 25, 0), ("trailing", "v_prediction", 12, 0)],
    ),
    "PNDMScheduler": (
        dict(skip_prk_steps=True),
        [("leading", "epsilon", 25, 0), ("leading", "epsilon", 4, 0),
         ("trailing", "epsilon", 5, 0)],
    ),
    "EulerDiscreteScheduler": (
        dict(use_karras_sigmas=True, final_sigmas_type="sigma_min"),
        [("leading", "epsilon", 25, 0), ("linspace", "v_prediction", 33, 0),
         ("leading", "epsilon", 20, 5)],
    ),
    "EulerAncestralDiscreteScheduler": (
        dict(rescale_betas_zero_snr=True),
        [("trailing", "v_prediction", 25, 0), ("trailing", "v_prediction", 12, 3)],
    ),
    "HeunDiscreteScheduler": (
        {}, [("leading", "epsilon", 25, 0), ("trailing", "sample", 5, 0)],
    ),
    "LMSDiscreteScheduler": (
        {}, [("leading", "epsilon", 25, 0), ("linspace", "v_prediction", 33, 0)],
    ),
    "DPMSolverMultistepScheduler": (
        dict(rescale_betas_zero_snr=True),
        [("trailing", "v_prediction", 25, 0), ("trailing", "sample", 12, 0),
         ("leading", "epsilon", 20, 5), ("linspace", "v_prediction", 14, 8)],
    ),
    "UniPCMultistepScheduler": (
        dict(solver_order=3, final_sigmas_type="sigma_min"),
        [("trailing", "v_prediction", 25, 0), ("leading", "epsilon", 33, 0),
         ("leading", "epsilon", 20, 5), ("linspace", "sample", 12, 8)],
    ),
}  # fmt: skip
IN_SIGMA_SPACE = ("Euler", "Heun", "LMS")


def theirs(name, scheduler, count, start, x0, bank, monkeypatch):
    """(times, start, latents after every call) of the original, with our draws and toy network."""
    scheduler.set_timesteps(count)
    draws = iter(torch.from_numpy(bank[start:]))
    module = __import__(type(scheduler).__module__, fromlist=["x"])
    if hasattr(module, "randn_tensor"):
        monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: next(draws)[None])
    if start:
        scheduler.set_begin_index(start) if hasattr(scheduler, "set_begin_index") else None
        x = torch.from_numpy(x0)[None] * 3.0
    else:
        x = torch.from_numpy(x0)[None] * scheduler.init_noise_sigma
    begin, latents = x[0].numpy(), []
    for t in scheduler.timesteps[start:]:
        shown = scheduler.scale_model_input(x, t)
        output = 0.3 * shown / (1 + shown.abs()) + 0.05 * t / 1000
        x = scheduler.step(output.float(), t, x).prev_sample
        latents.append(x[0].numpy())
    return scheduler.timesteps.numpy(), begin, np.stack(latents)


@pytest.mark.parametrize("name", RUNS)
def test_matches_the_scheduler_of_that_config(name, monkeypatch):
    settings, runs = RUNS[name]
    rng = np.random.default_rng(0)
    x0 = rng.normal(size=SHAPE).astype(np.float32)
    bank = rng.normal(size=(50, *SHAPE)).astype(np.float32)
    cases = []
    for spacing, kind, count, start in runs:
        scheduler = getattr(diffusers, name)(
            **SD, **settings, timestep_spacing=spacing, prediction_type=kind
        )
        config = {"_class_name": name, **scheduler.config}
        times, begin, latents = theirs(name, scheduler, count, start, x0, bank, monkeypatch)
        cases.append((solvers.from_config(config), kind, start, times, begin, latents))
    schedule = Schedule(
        set_alpha_to_one=config.get("set_alpha_to_one", False),
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr")),
    )
    tables, starts = [], []
    for (spacing, _, count, start), case in zip(runs, cases, strict=True):
        steps = case[0].steps(schedule, count, spacing=spacing, start=start)
        tables.append(steps.replace(noise=bank[:count]))
        starts.append(begin_of(name, case, steps, x0))
    group_by_kind(name, cases, tables, starts)


def begin_of(name, case, steps, x0):
    """A run from noise begins where the solver says; one from the middle where theirs did."""
    solver, _, start, _, begin, _ = case
    scale = steps.alpha[start] if name.startswith(IN_SIGMA_SPACE) else 1.0
    if start == 0:
        np.testing.assert_allclose(solver.begin(steps, x0), begin * scale, rtol=1e-5)
    return begin * scale


def group_by_kind(name, cases, tables, starts):
    kinds = [case[1] for case in cases]
    toy = Toy(is_kind=None, kind=kinds[0] if name.startswith("PNDM") else None)
    walked = walk_all(toy, cases[0][0], tables, starts, kinds)
    for case, steps, x, begin in zip(cases, tables, walked, starts, strict=True):
        compare(name, case, steps, x, begin)


def compare(name, case, steps, x, begin):
    _, kind, start, times, _, latents = case
    count = len(steps.index)
    if name.startswith("Heun"):
        times, latents = (
            times[[0, *range(1, len(times), 2)]],
            latents[[*range(1, 2 * count - 2, 2), -1]],
        )
    if name.startswith("PNDM"):
        times, latents = np.delete(times, 1), latents[1:]
    np.testing.assert_allclose(steps.t, times, rtol=1e-6, atol=1e-3)
    x = x[start:count]
    if name.startswith(IN_SIGMA_SPACE):  # theirs is x / alpha
        x, begin = x / steps.alpha_next[start:, None, None, None], begin / steps.alpha[start]
    top = max(np.abs(latents).max(), np.abs(begin).max())
    error = np.abs(x - latents).max() / top
    assert error < 1e-5, f"{name} {kind} N={count} start={start}: {error:.2e}"
