"""Schedules, grids and tables: bit-equal to torch's, or by closed form."""

import pathlib

import jax
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import (
    SPACINGS,
    Schedule,
    counted,
    first,
    grid,
    image_keys,
    levels,
    noised,
    reverse,
    skipped,
    window,
    with_key,
)  # fmt: skip

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "latent" / "11_schedulers" / "tables.npz"
SHAPES = {  # name: (ours, diffusers')
    "main": ({}, dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")),
    "linear": (dict(beta_start=1e-4, beta_end=0.02, shape="linear"), {}),
    "cosine": (dict(shape="squaredcos_cap_v2"), dict(beta_schedule="squaredcos_cap_v2")),
    "text2im": (
        dict(beta_start=0.0015, beta_end=0.0195),
        dict(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear"),
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_tables_are_torchs_to_the_bit(name):
    diffusers = pytest.importorskip("diffusers")
    ours, theirs = SHAPES[name]
    live = diffusers.DDIMScheduler(**theirs).alphas_cumprod.numpy()
    np.testing.assert_array_equal(Schedule(**ours).abar, live)


@pytest.mark.parametrize("name", ["main", "linear", "cosine"])
def test_tables_are_the_recorded_ones_to_the_bit(name):
    recorded = np.load(GOLDEN)[f"alphas_cumprod_{name}"]
    np.testing.assert_array_equal(Schedule(**SHAPES[name][0]).abar, recorded)


@pytest.mark.parametrize("name", ["main", "linear"])
def test_zero_terminal_snr(name):
    """Within a few last places; torch's own square root differs between machines by more."""
    recorded = np.load(GOLDEN)[f"alphas_cumprod_zero_snr_{name}"]
    abar = Schedule(zero_terminal_snr=True, **SHAPES[name][0]).abar
    assert abar[-1] == 0
    np.testing.assert_allclose(abar[0], Schedule(**SHAPES[name][0]).abar[0], rtol=2e-7)
    np.testing.assert_allclose(abar[:-1], recorded[:-1], rtol=1e-6)


def test_explicit_betas():
    betas = tuple(np.linspace(0.1, 0.2, 5))
    schedule = Schedule(train_steps=5, betas=betas)
    np.testing.assert_allclose(schedule.abar, np.cumprod(1 - np.array(betas)), rtol=1e-6)


def test_noising_and_velocity_are_the_recorded_ones():
    with np.load(GOLDEN) as file:
        x, eps, t = file["add_noise_x"], file["add_noise_noise"], file["add_noise_t"]
        alpha, sigma = (a[:, None, None, None] for a in levels(Schedule().abar[t]))
        np.testing.assert_allclose(alpha * x + sigma * eps, file["add_noise_out"], atol=2e-6)
        np.testing.assert_allclose(alpha * eps - sigma * x, file["velocity_out"], atol=2e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("count", [1, 7, 30, 50, 333, 1000])
def test_grids(spacing, count):
    t = grid(1000, count, spacing, 1)
    assert len(t) == count
    assert (np.diff(t) < 0).all()
    assert t[-1] >= 0 and t[0] <= 999
    if spacing == "trailing":
        assert t[0] == 999
    if spacing == "linspace" and count > 1:
        assert (t[0], t[-1]) == (999, 0)


def test_the_leading_grid_of_stable_diffusion():
    t = solvers.DDIM().steps(Schedule(), 50).t
    assert (t[0], t[1], t[-1]) == (981, 961, 1)
    assert grid(1000, 30, "leading", 1)[0] == 958


@pytest.mark.parametrize(
    ("count", "strength", "walked"),
    [(50, 0.02, 1), (50, 0.3, 15), (50, 0.5, 25), (50, 0.75, 37), (50, 0.8, 40), (50, 1.0, 50),
     (50, 0.58, 28), (100, 0.29, 28), (50, 0.29, 14), (50, 0.01, 0), (10, 2.0, 10)],
)  # fmt: skip
def test_strength_is_truncated_as_diffusers_does(count, strength, walked):
    assert count - skipped(count, strength) == walked


def test_rows_lead_from_level_to_level():
    steps = solvers.DDIM().steps(Schedule(), 10)
    np.testing.assert_array_equal(steps.alpha[1:], steps.alpha_next[:-1])
    np.testing.assert_array_equal(steps.t[1:], steps.t_next[:-1])
    np.testing.assert_allclose(steps.alpha**2 + steps.sigma**2, 1, rtol=1e-6)
    assert steps.last.tolist() == [False] * 9 + [True]


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_sigma_tables_are_variance_preserving_and_end_clean(name):
    steps = solvers.named(name).steps(Schedule(zero_terminal_snr=True), 8, spacing="trailing")
    np.testing.assert_allclose(steps.alpha_next**2 + steps.sigma_next**2, 1, rtol=1e-6)
    assert np.isfinite(jax.tree.leaves(steps.more) and np.concatenate(
        [np.ravel(a) for a in jax.tree.leaves(steps.more)])).all()  # fmt: skip
    assert (steps.sigma_next < steps.sigma).all()
    if name not in ("ddim", "plms"):
        assert steps.sigma_next[-1] == 0


@pytest.mark.parametrize("name", ["euler", "heun", "lms", "dpmpp_2m", "unipc", "euler_ancestral"])
def test_sigma_solvers_never_see_a_vanished_signal(name):
    """The top level of a zero-terminal-SNR schedule counts as abar = 2^-24."""
    steps = solvers.named(name).steps(Schedule(zero_terminal_snr=True), 5, spacing="trailing")
    assert steps.t[0] == 999
    np.testing.assert_allclose(steps.alpha[0], 2.0**-12, rtol=1e-6)
    assert (
        solvers.DDIM().steps(Schedule(zero_terminal_snr=True), 5, spacing="trailing").alpha[0] == 0
    )


def test_reverse_walks_the_same_levels_back():
    steps = solvers.DDIM().steps(Schedule(), 10)
    for label, told in (("target", steps.t[::-1]), ("source", steps.t_next[::-1])):
        back = reverse(steps, label)
        np.testing.assert_array_equal(back.alpha, steps.alpha_next[::-1])
        np.testing.assert_array_equal(back.sigma_next, steps.sigma[::-1])
        np.testing.assert_array_equal(back.t, told)
        np.testing.assert_array_equal(back.index, np.arange(10))


def test_rows_walked_before():
    steps = solvers.DDIM().steps(Schedule(), 6, start=2)
    assert counted(steps).walked.tolist() == [0, 0, 0, 1, 2, 3]
    assert counted(window(steps, 3, 5)).walked.tolist() == [0, 0, 0, 0, 1, 2]
    assert counted(steps.replace(active=None)).walked.tolist() == [0, 1, 2, 3, 4, 5]


def test_the_first_row_walked_is_where_a_picture_is_noised():
    steps = solvers.DDIM().steps(Schedule(), 50, start=13)
    assert float(first(steps).t) == 721
    x0, eps = np.float32(2), np.float32(-1)
    alpha, sigma = levels(Schedule().abar[721])
    np.testing.assert_allclose(noised(first(steps), x0, eps), alpha * 2 - sigma, rtol=1e-6)


def test_keys_belong_to_rows_and_images():
    keys = image_keys(3, np.arange(8))
    np.testing.assert_array_equal(
        jax.random.key_data(image_keys(3, [5])), jax.random.key_data(keys)[5:6]
    )
    rows = with_key(solvers.DDIM().steps(Schedule(), 6), keys[0]).key
    longer = with_key(solvers.DDIM().steps(Schedule(), 9), keys[0]).key
    data = jax.random.key_data(rows)
    assert len(np.unique(data, axis=0)) == 6
    np.testing.assert_array_equal(data, jax.random.key_data(longer)[:6])
