"""Inpainting against the official pipeline's trajectories, and what it promises."""

import sys

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.methods import inpaint
from diffedit_jax.methods.inpaint import latent_mask, pasted
from tests.golden_models import GOLDEN, golden_bundle, nhwc

# run: network, solver, steps, strength, guidance (manifest, 08b)
RUNS = {
    "P0": ("unet_inpaint", "ddim", 10, 1.0, 7.5),
    "P1": ("unet_inpaint", "ddim", 10, 0.6, 5.0),
    "P2": ("unet_inpaint", "plms", 6, 1.0, 5.0),
    "P3": ("unet_sd1", "ddim", 8, 1.0, 5.0),
    "P4": ("unet_sd1", "ddim", 8, 0.5, 5.0),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "08_img2img_inpaint" / "inpaint.npz"))


@pytest.fixture(scope="module")
def models(case):
    told = {"edit": case["emb_prompt"], "null": case["emb_negative"]}
    return {name: golden_bundle(name, told) for name in ("unet_sd1", "unet_inpaint")}


@pytest.mark.parametrize("run", RUNS)
def test_trajectories_end_where_the_official_ones_do(run, case, models, monkeypatch, highest):
    unet, solver, steps, strength, guidance = RUNS[run]
    module = sys.modules["diffedit_jax.methods.inpaint"]
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))
    noise = {
        "start": nhwc(case["diffusion_noise"]),
        "posterior": nhwc(case["posterior_noise_image"]),
        "masked": nhwc(case["posterior_noise_masked"]),
    }
    image = case["image_u8"].astype(np.float32)[None] / 127.5 - 1
    x = inpaint(models[unet], image, prompt=["edit"], negative=["null"], solver=solver,
                mask=case["mask_u8"][None] / 255, strength=strength, steps=steps,
                guidance=guidance, noise=noise, paste=False)  # fmt: skip
    np.testing.assert_allclose(x, nhwc(case[f"{run}_traj"])[-1], atol=2e-4, rtol=0)


def test_the_latent_mask_is_the_official_one(case):
    mask = (case["mask_u8"][None] / 255 >= 0.5).astype(np.float32)
    np.testing.assert_array_equal(mask, case["mask_processed"][:, 0])
    np.testing.assert_array_equal(latent_mask(mask, 4)[..., 0], case["mask_latent"][:, 0])


HALF = np.zeros((32, 32), np.float32)
HALF[:, 16:] = 1


@pytest.mark.parametrize("which", ["tiny", "tiny_inpaint"])
def test_pixels_outside_the_mask_are_the_sources_own_bits(which, picture, request):
    model = request.getfixturevalue(which)
    given = dict(prompt="a cat", mask=HALF, steps=3, size=32)
    image = de.edit(model, picture, "inpaint", **given).image
    np.testing.assert_array_equal(image[:, :16], picture[:, :16])
    assert not np.array_equal(image[:, 20:], picture[:, 20:])
    loose = de.edit(model, picture, "inpaint", paste=False, **given).image
    assert not np.array_equal(loose[:, :16], picture[:, :16])
    np.testing.assert_array_equal(loose[:, 21:], image[:, 21:])  # beyond the band: the edit itself


def test_pasting_blends_inside_the_mask_alone():
    source = np.zeros((1, 32, 32, 3), np.float32) - 1
    edited = np.full((1, 32, 32, 3), 255, np.uint8)
    out = pasted(edited, source, HALF[None], band=4)[0, 10, :, 0]
    assert (out[:16] == 0).all() and (out[20:] == 255).all()
    assert (np.diff(out[15:21].astype(int)) > 0).all()
    assert set(pasted(edited, source, HALF[None], band=0)[0, 10, :, 0]) == {0, 255}


@pytest.mark.parametrize(
    ("mask", "message"),
    [(np.zeros((32, 32)), "empty"), (np.ones((16, 32)), "mask is 32x16"), (None, "needs mask")],
)
def test_masks_that_cannot_be_meant_are_refused(tiny, picture, mask, message):
    with pytest.raises(de.UserError, match=message):
        de.edit(tiny, picture, "inpaint", prompt="a cat", mask=mask, steps=2, size=32)


def test_networks_are_told_apart(tiny_inpaint, picture):
    with pytest.raises(de.UserError, match="needs a network with 4 input channels.* 9"):
        de.edit(tiny_inpaint, picture, "sdedit", prompt="a cat", size=32)
