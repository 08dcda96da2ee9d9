"""SDEdit against the official img2img pipeline's trajectories, and its own laws."""

import sys

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import skipped
from diffedit_jax.methods import sdedit
from tests.golden_models import GOLDEN, golden_bundle, nhwc

# run: solver, steps, strength, guidance, steps that run, first t, tolerance (manifest, 08a)
RUNS = {
    "I0": ("ddim", 50, 0.02, 7.5, 1, 1, 2e-4),
    "I1": ("ddim", 50, 0.3, 7.5, 15, 281, 2e-4),
    "I2": ("ddim", 50, 0.5, 7.5, 25, 481, 1e-3),
    "I3": ("ddim", 50, 0.58, 7.5, 28, 541, 1e-3),
    "I4": ("ddim", 50, 0.75, 7.5, 37, 721, 1e-3),
    "I5": ("ddim", 50, 0.8, 7.5, 40, 781, 1e-3),
    "I6": ("ddim", 50, 1.0, 7.5, 50, 981, 1e-3),
    "I8": ("euler_ancestral", 10, 0.6, 5.0, 6, 555, 2e-4),
    "I9": ("ddim", 7, 0.5, 5.0, 3, 285, 2e-4),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "08_img2img_inpaint" / "img2img.npz"))


@pytest.fixture(scope="module")
def model(case):
    return golden_bundle("unet_sd1", {"edit": case["emb_prompt"], "null": case["emb_negative"]})


@pytest.fixture
def latents(monkeypatch):
    """sdedit gives its last latents instead of pictures."""
    module = sys.modules["diffedit_jax.methods.sdedit"]  # the function hides the module's name
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


@pytest.mark.parametrize("run", RUNS)
def test_trajectories_end_where_the_official_ones_do(run, case, model, latents, highest):
    solver, steps, strength, guidance, count, first_t, tolerance = RUNS[run]
    timesteps = case[f"{run}_timesteps"]
    assert (len(timesteps), timesteps[0]) == (count, first_t)
    noise = {
        "posterior": nhwc(case["posterior_noise"]),
        "start": nhwc(case["diffusion_noise"]),
    }
    if solver == "euler_ancestral":
        draws = nhwc(case["I8_step_noise"])[:, 0]
        idle = np.zeros((skipped(steps, strength), *draws.shape[1:]), np.float32)
        noise["steps"] = np.concatenate([idle, draws])[None]
    image = case["image_u8"].astype(np.float32)[None] / 127.5 - 1
    x = sdedit(model, image, prompt=["edit"], negative=["null"], strength=strength, steps=steps,
               guidance=guidance, solver=solver, noise=noise)  # fmt: skip
    np.testing.assert_allclose(x, nhwc(case[f"{run}_traj"])[-1], atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("steps", "strength", "runs"),
    [(50, 0.02, 1), (50, 0.3, 15), (50, 0.58, 28), (100, 0.29, 28), (50, 0.29, 14), (50, 0.75, 37),
     (50, 0.8, 40), (50, 1.0, 50), (7, 0.5, 3)],
)  # fmt: skip
def test_strength_is_truncated_as_documented(steps, strength, runs):
    assert steps - skipped(steps, strength) == runs


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan")])
def test_impossible_strengths_are_refused(tiny, picture, strength):
    with pytest.raises(de.UserError, match=r"in \(0, 1\]"):
        de.edit(tiny, picture, "sdedit", prompt="a cat", strength=strength, size=32)


def test_a_strength_of_no_step_is_an_error_that_helps(tiny, picture):
    with pytest.raises(de.UserError, match="less than one step; use at least 0.1 or more steps"):
        de.edit(tiny, picture, "sdedit", prompt="a cat", strength=0.05, steps=10, size=32)


def test_little_strength_keeps_the_picture(tiny, picture):
    """Distance to the picture's own reconstruction grows with strength."""
    far = []
    for strength in (0.02, 0.3, 0.9):
        given = dict(prompt="a cat", strength=strength, posterior="mean", size=32, guidance=1.0)
        far.append(de.edit(tiny, picture, "sdedit", **given).image.astype(float))
    from diffedit_jax.methods.run import encode, pictures

    kept = pictures(tiny, encode(tiny, picture[None].astype(np.float32) / 127.5 - 1))[0]
    errors = [np.abs(image - kept).mean() for image in far]
    assert errors[0] < errors[1] < errors[2] and errors[0] < 8


@pytest.mark.parametrize("solver", ["ddim", "plms", "dpmpp_2m"])
def test_strengths_of_one_batch_are_their_own(tiny, picture, solver):
    given = dict(prompt="a cat", steps=8, size=32, guidance=2.0, solver=solver)
    batch = de.edit(tiny, [picture] * 2, "sdedit", strength=[0.3, 0.9], **given).image
    for index, strength in enumerate([0.3, 0.9]):
        alone = de.edit(tiny, picture, "sdedit", strength=strength, index=index, **given).image
        assert np.abs(alone.astype(int) - batch[index]).max() <= 1
