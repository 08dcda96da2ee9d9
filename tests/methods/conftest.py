"""A complete tiny Stable Diffusion with random weights, made by the official code."""

import pathlib

import numpy as np
import pytest

import diffedit_jax as de
from tests.golden_models import exemplar_folder

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "latent"


@pytest.fixture(scope="session")
def golden():
    return GOLDEN


@pytest.fixture(scope="session")
def tiny():
    """The 4-channel model (64 x 32 pictures at its own size)."""
    return de.load(str(GOLDEN / "12_pipelines" / "sd1"))


@pytest.fixture(scope="session")
def tiny_inpaint():
    """The 9-channel model."""
    return de.load(str(GOLDEN / "12_pipelines" / "inpaint"))


@pytest.fixture(scope="session")
def tiny_instruct():
    """The 8-channel model."""
    return de.load(str(GOLDEN / "12_pipelines" / "ip2p"))


@pytest.fixture(scope="session")
def tiny_exemplar(tmp_path_factory):
    """The 9-channel model that an example picture tells what to paint."""
    return de.load(str(exemplar_folder(tmp_path_factory.mktemp("exemplar"))))


@pytest.fixture(scope="session")
def picture():
    """uint8 [32, 32, 3], nothing in particular."""
    y, x = np.mgrid[:32, :32] / 31
    return (np.stack([x, y, (x + y) / 2], -1) * 255).astype(np.uint8)
