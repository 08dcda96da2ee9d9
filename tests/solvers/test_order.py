"""How fast each rule approaches the exact flow of Gaussian data as the steps get shorter."""

import jax
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import Cond, Schedule, Transform, sample

from ..gaussian import Gaussian

DATA = Gaussian(mean=0.4, spread=0.5)
COUNTS = (20, 40, 100)  # divide 1000, so that PLMS' grid is even, as its rule supposes
ORDERS = {  # name: (solver, grid, least order, most)
    "ddim": (solvers.DDIM(), "linspace", 0.8, 1.3),
    "euler": (solvers.Euler(), "linspace", 0.8, 1.3),
    "heun": (solvers.Heun(), "linspace", 1.8, 3.5),
    "lms": (solvers.LMS(karras=True), "linspace", 2.0, 6.0),
    "plms": (solvers.PLMS(), "leading", 1.5, 6.0),
    "prk": (solvers.PLMS(prk=True), "leading", 1.5, 6.0),
    "dpmpp_2m": (solvers.DPMpp2M(final="sigma_min"), "linspace", 1.7, 3.5),
    "dpmpp_2m_heun": (solvers.DPMpp2M(final="sigma_min", rule="heun"), "linspace", 1.7, 3.5),
    "unipc": (solvers.UniPC(final="sigma_min"), "linspace", 1.9, 5.0),
    "unipc_3": (solvers.UniPC(final="sigma_min", order=3), "linspace", 1.9, 6.0),
}


def error_of(solver, spacing, count, walked=None):
    """How far the run is from the exact flow at 3/4 of its rows (before the last Euler steps)."""
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(2, 2, 3)
    steps = solver.steps(Schedule(), count, spacing=spacing)
    record = jax.jit(
        lambda steps, x: (
            sample(
                DATA, solver, Transform(), steps, x, Cond(), record=lambda move: move.x_next
            ).recorded
        )
    )
    row = 3 * count // 4 - 1
    exact = DATA.flow(
        x,
        *(
            np.float64(a)
            for a in (steps.alpha[0], steps.sigma[0], steps.alpha_next[row], steps.sigma_next[row])
        ),
    )
    return np.abs(np.asarray(record(steps, x))[row] - exact).max()


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(name):
    solver, spacing, least, most = ORDERS[name]
    errors = [error_of(solver, spacing, count) for count in COUNTS]
    order = np.polyfit(np.log(COUNTS), -np.log(errors), 1)[0]
    print(name, errors, order)
    assert least < order < most, f"{name}: errors {errors}"
