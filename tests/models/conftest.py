"""What every network test needs: exact products and the reference outputs."""

import jax
import numpy as np
import pytest

from .reference import GOLDEN


@pytest.fixture(autouse=True)
def full_precision():
    """Parity needs float32 products everywhere."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="session")
def forward_golden():
    """Inputs and outputs of the reference networks."""
    return dict(np.load(GOLDEN / "00_networks" / "forward.npz"))


@pytest.fixture
def quick_compile():
    """Compiles a whole network in seconds, at the cost of slow code."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
