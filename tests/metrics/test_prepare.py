"""Resizing against PIL and torch, crops, and what the named preparations do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffedit_jax.metrics.prepare import (
    CLIP_FILES,
    DINO_FILES,
    INSTRUCT_PIX2PIX,
    PIE_BENCH,
    STRUCTURE,
)
from diffedit_jax.models.resize import centre_crop, resize, resize_bytes, shorter_side

RNG = np.random.default_rng(0)
SIZES = [((40, 31), (17, 23)), ((17, 23), (40, 31)), ((1, 9), (5, 3)), ((64, 48), (64, 20))]
PROPORTIONAL = [((40, 60), (20, 30)), ((17, 23), (40, 54)), ((64, 64), (20, 20))]
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("old, new", SIZES)
def test_pils_floats(method, old, new):
    x = RNG.random((*old, 1), np.float32)
    theirs = Image.fromarray(x[..., 0]).resize(new[::-1], FILTERS[method])
    np.testing.assert_allclose(resize(jnp.asarray(x), new, method)[..., 0], theirs, atol=2e-6)


@pytest.mark.parametrize("old, new", PROPORTIONAL)
def test_pils_bytes(old, new):
    """PIL multiplies in fixed point, so that a value at a half may be one off."""
    x = RNG.integers(0, 256, (*old, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(x).resize(new[::-1], FILTERS["bicubic"]), int)
    ours = np.asarray(resize_bytes(jnp.asarray(x, jnp.float32) / 255, new) * 255)
    off = np.abs(np.round(ours) - theirs)
    assert off.max() <= 1 and (off > 0).mean() < 0.01


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("method", FILTERS)
@pytest.mark.parametrize("old, new", SIZES)
def test_torchs_interpolation(method, old, new, antialias):
    torch = pytest.importorskip("torch")
    x = RNG.random((2, 3, *old))  # float64 there: in float32 torch rounds its coordinates too
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(x), new, mode=method, align_corners=False, antialias=antialias
    )
    ours = resize(
        jnp.asarray(x, jnp.float32).transpose(0, 2, 3, 1), new, method, antialias=antialias
    )
    np.testing.assert_allclose(ours.transpose(0, 3, 1, 2), theirs, atol=3e-6)


def test_sides_and_crops():
    assert shorter_side((480, 640, 3), 224) == (224, 298)  # int, not round
    assert shorter_side((640, 480, 3), 224) == (298, 224)
    assert shorter_side((2, 100, 300, 3), 224, 480) == (160, 480)
    x = jnp.arange(7.0)[:, None, None] * jnp.ones((7, 4, 1))
    assert centre_crop(x, 4, whole=True)[0, 0, 0] == 1  # a margin of 3: down
    assert centre_crop(x, 4, whole=False)[0, 0, 0] == 2  # 1.5 rounds to the even 2
    small = centre_crop(x, 9, whole=True)
    assert small.shape == (9, 9, 1) and small[0].sum() == 0 and small.sum() == x.sum()


def test_clip_as_transformers_prepares_it():
    """Within a byte's step: PIL rounds at halves by its own fixed point."""
    transformers = pytest.importorskip("transformers")
    processor = transformers.CLIPImageProcessorPil
    x = RNG.integers(0, 256, (300, 413, 3), np.uint8)
    theirs = processor()(Image.fromarray(x), return_tensors="np")["pixel_values"][0]
    off = np.abs(np.moveaxis(theirs, 0, -1) - CLIP_FILES(x))
    assert off.shape == (224, 224, 3)
    assert off.max() < 1.01 / 255 / 0.26 and (off > 1e-4).mean() < 0.01


def test_dinos_files_have_the_crop_of_torchvision():
    assert DINO_FILES(np.zeros((300, 413, 3), np.uint8)).shape == (224, 224, 3)
    black = DINO_FILES(np.zeros((300, 300, 3), np.uint8))[0, 0]
    np.testing.assert_allclose(black, [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225], rtol=1e-6)


def test_the_quirks_reach_the_ranges_that_the_scripts_reach():
    white, black = np.ones((8, 8, 3)), np.zeros((8, 8, 3))
    np.testing.assert_allclose(PIE_BENCH(white).max(), (255 - 0.456) / 0.224, rtol=1e-6)
    np.testing.assert_allclose(STRUCTURE(white)[0, 0, 2], (1 - 0.406) / 0.225, rtol=1e-6)
    np.testing.assert_allclose(PIE_BENCH(black), STRUCTURE(black), rtol=1e-6)
    lowest = float(INSTRUCT_PIX2PIX(black).min())
    np.testing.assert_allclose(lowest, (-1 - 0.4578275) / 0.26130258, rtol=1e-6)
    assert INSTRUCT_PIX2PIX(np.zeros((30, 50, 3))).shape == (224, 224, 3)


def test_what_does_not_round_has_a_gradient():
    slope = jax.grad(lambda x: jnp.square(STRUCTURE(x)).sum())(jnp.full((10, 12, 3), 0.7))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0
