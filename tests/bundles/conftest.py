"""Bundles of the recorded pipelines, loaded once."""

import functools
from pathlib import Path

import numpy as np
import pytest

from diffedit_jax.bundles import load

PIPELINES = Path(__file__).parents[1] / "golden" / "latent" / "12_pipelines"


@functools.cache
def loaded(name: str):
    return load(PIPELINES / name)


@pytest.fixture(scope="session")
def recorded():
    with np.load(PIPELINES / "trajectories.npz") as file:
        return dict(file)
