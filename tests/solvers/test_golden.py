"""Every update rule against recorded trajectories of diffusers' schedulers."""

import pathlib

import jax
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import KINDS, Schedule, reverse

from .toy import Toy, walk_all

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "latent" / "11_schedulers"
COUNTS = (1, 2, 7, 10, 50)
SPACINGS = ("leading", "linspace", "trailing")
LINEAR = dict(beta_start=1e-4, beta_end=0.02, shape="linear")
Q = dict(compat="diffusers")

VARIANTS = {
    "ddim_eta0": (solvers.DDIM(**Q), {}),
    "ddim_eta1": (solvers.DDIM(eta=1.0, **Q), {}),
    "ddim_clip_alpha1": (
        solvers.DDIM(eta=0.5, clip=1.0, **Q),
        dict(set_alpha_to_one=True, steps_offset=0),
    ),
    "ddim_clip_model_output": (
        solvers.DDIM(clip=1.0, recompute_eps=True, **Q),
        dict(set_alpha_to_one=True),
    ),
    "ddim_zero_snr": (solvers.DDIM(**Q), dict(zero_terminal_snr=True)),
    "ddim_inverse": (solvers.DDIM(**Q), {}),
    "ddpm_fixed_small": (solvers.DDPM(**Q), {}),
    "ddpm_fixed_large_clip_linear": (solvers.DDPM(clip=1.0, variance="fixed_large", **Q), LINEAR),
    "ddpm_learned_range_linear": (
        solvers.DDPM(variance="learned_range", **Q),
        dict(steps_offset=0, **LINEAR),
    ),
    "pndm": (solvers.PLMS(**Q), {}),
    "pndm_prk": (solvers.PLMS(prk=True, **Q), {}),
    "lms": (solvers.LMS(), {}),
    "lms_karras": (solvers.LMS(karras=True), {}),
    "euler": (solvers.Euler(), {}),
    "euler_karras": (solvers.Euler(karras=True), {}),
    "euler_zero_snr": (solvers.Euler(), dict(zero_terminal_snr=True)),
    "euler_ancestral": (solvers.EulerAncestral(), {}),
    "heun": (solvers.Heun(), {}),
    "heun_karras": (solvers.Heun(karras=True), {}),
    "dpmpp_2m": (solvers.DPMpp2M(), {}),
    "dpmpp_2m_karras": (solvers.DPMpp2M(karras=True), {}),
    "dpmpp_2m_heun_sigma_min": (solvers.DPMpp2M(rule="heun", final="sigma_min"), {}),
    "unipc": (solvers.UniPC(), {}),
    "unipc_order3": (solvers.UniPC(order=3), {}),
    "unipc_karras": (solvers.UniPC(karras=True), {}),
}
# two steps down to s = 0.03 and (x - x0) / s there: the recording is itself 1.3e-5 from its own
# rule in float64 (ours is 1.3e-7 from it)
ROUGH = ("heun", "linspace", "N2")
SIGMA_SPACE = ("euler", "heun", "lms")  # the recording is in x / alpha


@pytest.fixture(scope="module")
def drawn():
    with np.load(GOLDEN / "ddim_eta0.npz") as file:
        return file["x0"][0], file["noise_bank"][:, 0]


def cases(variant, file):
    """(spacing, kind, count) of every run that the original completed with finite numbers."""
    for spacing in SPACINGS:
        for kind in KINDS:
            for count in COUNTS:
                name = f"{spacing}_{kind}_N{count}"
                if f"{name}_traj" in file and np.isfinite(file[f"{name}_traj"]).all():
                    yield name, spacing, kind, count


def recorded(variant, file, name, count):
    """The recorded latents after each of our rows, one per row."""
    trajectory = file[f"{name}_traj"][:, 0]
    if variant.startswith("heun"):
        return np.concatenate([trajectory[1::2], trajectory[-1:]])
    if variant == "pndm" and count > 1:
        return trajectory[1:]
    if variant == "pndm_prk":
        return np.concatenate([trajectory[3:12:4], trajectory[12:]])
    return trajectory


def asked(variant, solver, steps, count):
    """The times that the network is told, in the order of the recording."""
    t = steps.t
    if variant.startswith("heun"):
        return np.concatenate([t[:1], np.repeat(t[1:], 2)])
    if variant == "pndm" and count > 1:
        return np.concatenate([t[:1], t[1:2], t[1:2], t[2:]])
    if variant == "pndm_prk":
        half = steps.more["half"]["t"]
        warm = [(t[i], half[i], half[i], t[i + 1]) for i in range(3)]
        return np.concatenate([np.ravel(warm), t[3:]])
    return t


@pytest.mark.parametrize("variant", VARIANTS)
def test_recorded_trajectories(variant, drawn):
    solver, schedule = VARIANTS[variant]
    schedule = Schedule(**schedule)
    x0, bank = drawn
    tables, starts, kinds, expected = [], [], [], []
    with np.load(GOLDEN / f"{variant}.npz") as file:
        runs = list(cases(variant, file))
        for name, spacing, kind, count in runs:
            steps = solver.steps(schedule, count, spacing=spacing)
            if variant == "ddim_inverse":
                steps = reverse(steps, "target")
            check_times(variant, asked(variant, solver, steps, count), file[f"{name}_timesteps"])
            tables.append(steps.replace(noise=bank[:count]))
            starts.append(np.asarray(solver.begin(steps, x0)))
            kinds.append(kind)
            expected.append(recorded(variant, file, name, count))
    assert len(runs) >= 18
    check_trajectories(variant, solver, tables, starts, kinds, expected, runs)


def check_times(variant, ours, theirs):
    if theirs.dtype == np.int64 or "karras" not in variant:
        np.testing.assert_array_equal(ours, theirs)
    else:  # interpolated in float32 logarithms there
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-3)


def check_trajectories(variant, solver, tables, starts, kinds, expected, runs):
    toy = Toy(is_kind=None, learned="learned" in variant)
    groups = [range(len(runs))]
    if variant.startswith("pndm"):  # diffusers mixes raw outputs: the kind is part of the program
        groups = [[i for i, k in enumerate(kinds) if k == kind] for kind in sorted(set(kinds))]
    for group in groups:
        own = toy.replace(kind=kinds[group[0]]) if variant.startswith("pndm") else toy
        pick = [[a[i] for i in group] for a in (tables, starts, kinds)]
        with jax.default_matmul_precision("highest"):
            walked = walk_all(own, solver, *pick)
        for i, x in zip(group, walked, strict=True):
            check_one(variant, tables[i], x, starts[i], expected[i], runs[i][0])


def check_one(variant, steps, x, start, expected, name):
    """1e-5 of the run's largest latent, its start included: float32 subtracts from that."""
    x = x[: len(steps.index)]
    if variant.startswith(SIGMA_SPACE):
        start, x = start / steps.alpha[0], x / steps.alpha_next[:, None, None, None]
    error = np.abs(x - expected).max() / max(np.abs(expected).max(), np.abs(start).max())
    bound = 2e-5 if (variant[:4], name[:8], name[-2:]) == ROUGH else 1e-5
    assert error < bound, f"{variant} {name}: {error:.2e}"
