"""What holds for every solver by name: cost, noise, strength, pulls, dtype, names."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffedit_jax import solvers
from diffedit_jax.core import Cond, Schedule, Transform, first, noised, sample, window, with_key
from diffedit_jax.errors import UserError

from ..gaussian import Gaussian

SHAPE = (2, 2, 3)
DATA = Gaussian(mean=0.3, spread=0.7)
NAMES = list(solvers.SOLVERS)
_asked = []


class Counted(struct.PyTreeNode):
    """Gaussian data that notes, at run time, every time it is asked at."""

    def __call__(self, x, step, cond, control=None):
        jax.debug.callback(lambda t: _asked.append(float(t)), step.t)
        return DATA(x, step, cond, control)


@jax.jit
def run(denoiser, solver, steps, x):
    return sample(denoiser, solver, Transform(), steps, x, Cond()).x


@pytest.fixture(scope="module")
def x():
    return jax.random.normal(jax.random.key(0), SHAPE)


def keyed(solver, count, **rest):
    return with_key(solver.steps(Schedule(), count, **rest), jax.random.key(1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("start", [0, 2, 5])
def test_asks_as_often_as_it_says(name, start, x):
    """At six steps, also where the first rows are skipped, down to a single row."""
    solver = solvers.named(name)
    _asked.clear()
    jax.block_until_ready(run(Counted(), solver, keyed(solver, 6, start=start), x))
    jax.effects_barrier()
    assert len(_asked) == solver.evaluations(6 - start)


def test_runge_kutta_warm_up_asks_as_often_as_it_says(x):
    solver = solvers.PLMS(prk=True)
    for start in (0, 4, 5):
        _asked.clear()
        jax.block_until_ready(run(Counted(), solver, keyed(solver, 6, start=start), x))
        jax.effects_barrier()
        assert len(_asked) == solver.evaluations(6 - start)


@pytest.mark.parametrize("name", NAMES)
def test_draws_tells_whether_a_key_is_needed(name, x):
    solver = solvers.named(name)
    steps = solver.steps(Schedule(), 4)
    if not solver.draws:
        assert np.isfinite(run(DATA, solver, steps, x)).all()
        return
    with pytest.raises(ValueError, match="with_key"):
        run(DATA, solver, steps, x)


@pytest.mark.parametrize("name", NAMES)
def test_strength_changes_no_shape_and_recompiles_nothing(name, x):
    solver = solvers.named(name)
    walk = jax.jit(lambda steps, x: sample(DATA, solver, Transform(), steps, x, Cond()).x)
    tables = [keyed(solver, 5, start=start) for start in (0, 1, 4)]
    for steps in tables:
        assert np.isfinite(walk(steps, noised(first(steps), 0 * x, x))).all()
    assert walk._cache_size() == 1


@pytest.mark.parametrize("name", NAMES)
def test_memory_counts_from_the_first_row_walked(name, x):
    """Skipping by strength and skipping by a window are the same run."""
    solver = solvers.named(name)
    by_strength = run(DATA, solver, keyed(solver, 8, start=3), x)
    by_window = run(DATA, solver, window(keyed(solver, 8), 3, 8), x)
    np.testing.assert_array_equal(by_strength, by_window)


@pytest.mark.parametrize("name", NAMES)
def test_ends_near_the_data(name):
    """From noise to Gaussian data: mean and spread of 3000 numbers."""
    solver = solvers.named(name)
    steps = keyed(solver, 150 if solver.draws else 30)  # short ancestral runs lose spread
    noise = jax.random.normal(jax.random.key(2), (10, 100, 3))
    end = run(DATA, solver, steps, jnp.asarray(solver.begin(steps, noise)))
    assert abs(end.mean() - 0.3) < 0.08
    assert abs(end.std() - 0.7) < 0.08


@pytest.mark.parametrize("name", NAMES)
def test_dtype_of_the_latent_is_kept(name, x):
    solver = solvers.named(name)
    end = run(DATA, solver, keyed(solver, 4), x.astype(jnp.bfloat16))
    assert end.dtype == jnp.bfloat16


class Observed(struct.PyTreeNode):
    """The prior, pulled by the exact gradient of log p(y | x_t): the posterior's score."""

    posterior: Any
    prior: Any

    def __call__(self, x, step, cond, control=None):
        prior = self.prior(x, step, cond, control)
        posterior = self.posterior(x, step, cond, control)
        return prior.replace(pull=(prior.eps - posterior.eps) / step.sigma)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "ddpm"])
def test_a_pull_shifts_the_score(name, x):
    """Prior plus pull is the posterior: y = x0 + n seen, both Gaussian."""
    solver = solvers.named(name)
    posterior = Gaussian(mean=0.9, spread=0.4)
    steps = keyed(solver, 6)
    pulled = run(Observed(posterior=posterior, prior=DATA), solver, steps, x)
    np.testing.assert_allclose(pulled, run(posterior, solver, steps, x), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_shifts_the_mean_by_its_variance(variance, x):
    """One step: the difference that a pull makes, over the pull, is the variance of the draw."""
    solver = solvers.DDPM(variance=variance)
    one = window(keyed(solver, 10), 4, 5)
    observed = Observed(posterior=Gaussian(mean=0.9, spread=0.7), prior=DATA)
    shift = run(observed, solver, one, x) - run(DATA, solver, one, x)
    pull = observed(x, jax.tree.map(lambda a: a[4], one), Cond()).pull
    ends = [
        run(DATA, solver, one.replace(key=None, noise=jnp.full((10, *SHAPE), z)), x)
        for z in (0.0, 1.0)
    ]
    np.testing.assert_allclose(shift / pull, (ends[1] - ends[0]) ** 2, rtol=1e-3)


def test_names_and_knobs_with_the_nearest_one():
    assert solvers.named("ddim", eta=0.0) == solvers.DDIM()
    assert solvers.named("euler", eta=0, karras=True).karras
    assert (
        solvers.named("euler_ancestral").eta == 1
        and solvers.named("euler_ancestral", eta=0).eta == 0
    )
    assert solvers.named("unipc_karras", order=3).order == 3
    for name, knobs, said in [
        ("dimm", {}, "ddim"),
        ("something", {}, "choose from"),
        ("ddim", {"ета": 1}, "ета"),
        ("euler", {"karas": True}, "karras"),
        ("heun", {"eta": 0.5}, "eta"),
        ("ddpm", {"eta": 0}, "eta"),
    ]:
        with pytest.raises(UserError, match=said):
            solvers.named(name, **knobs)


def test_knobs_out_of_range_are_the_users_mistakes():
    for solver in (solvers.DDPM(variance="x"), solvers.DPMpp2M(rule="x"), solvers.UniPC(order=4),
                   solvers.Euler(final="x")):  # fmt: skip
        with pytest.raises(UserError):
            solver.steps(Schedule(), 4)
    for name in NAMES:
        for count in (0, 1001):
            with pytest.raises(UserError):
                solvers.named(name).steps(Schedule(), count)
        with pytest.raises(UserError, match="spacing"):
            solvers.named(name).steps(Schedule(), 4, spacing="leadin")


def test_configs_that_ask_for_what_is_not_built_are_refused():
    for config in (
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"},
        {"_class_name": "DDIMScheduler", "thresholding": True},
        {"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"},
    ):
        with pytest.raises(UserError):
            solvers.from_config(config)


def test_stable_diffusion_folders_get_their_own_solver():
    own = {"skip_prk_steps": True, "clip_sample": False, "set_alpha_to_one": False}
    assert isinstance(solvers.from_config({"_class_name": "PNDMScheduler", **own}), solvers.PLMS)
    ddim = solvers.from_config({"_class_name": "DDIMScheduler", **own})
    assert isinstance(ddim, solvers.DDIM) and ddim.clip is None
