"""InstructPix2Pix against official trajectories, the live pipeline, and its own laws."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

import diffedit_jax as de
from diffedit_jax.core import Schedule
from diffedit_jax.methods import instruct_pix2pix
from diffedit_jax.methods.instruct_pix2pix import two_scales
from diffedit_jax.sweeps import sweep
from tests.golden_models import GOLDEN, golden_bundle, nhwc

# run: solver, steps, text scale, image scale, eta (manifest, 07; its 0 is of the pipeline, which
# hands it to no other solver than ddim)
RUNS = {
    "D0": ("ddim", 10, 7.5, 1.5, 0.0),
    "D1": ("euler_ancestral", 10, 7.5, 1.5, None),
    "D2": ("ddim", 5, 5.0, 2.0, 0.7),
    "D3": ("euler_ancestral", 5, 1.0, 1.5, None),
    "D4": ("euler_ancestral", 5, 7.5, 0.9, None),
    "D5": ("plms", 6, 6.0, 1.2, 0.0),
    "K0": ("euler_ancestral", 10, 7.5, 1.5, None),
    "K1": ("euler_ancestral", 5, 3.0, 1.2, None),
}
SINGLE_BRANCH = ("D3", "D4")  # where the pipeline drops its scales
PROMPT = "a painting of a squirrel eating a burger"


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "07_instruct_pix2pix" / "ip2p.npz"))


@pytest.fixture(scope="module")
def model(case):
    told = {"edit": case["emb_prompt"], "null": case["emb_negative"]}
    return golden_bundle("unet_ip2p", told, schedule=Schedule(spacing=None))


@pytest.fixture
def latents(monkeypatch):
    """The method gives its last latents instead of pictures."""
    module = sys.modules["diffedit_jax.methods.instruct_pix2pix"]
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


def run(case, model, name, **more):
    solver, steps, text, image, eta = RUNS[name]
    noise = {"start": nhwc(case["latents"])}
    if f"{name}_noise" in case:
        noise["steps"] = nhwc(case[f"{name}_noise"])[:, 0][None]
    pixels = case["image_u8"].astype(np.float32)[None] / 127.5 - 1
    given = dict(prompt=["edit"], negative=["null"], steps=steps, guidance=text, eta=eta,
                 image_guidance=image, solver=solver, noise=noise)  # fmt: skip
    return instruct_pix2pix(model, pixels, **given | more)


@pytest.mark.parametrize("name", RUNS)
def test_trajectories_end_where_the_official_ones_do(name, case, model, latents, highest):
    compat = "diffusers" if name in SINGLE_BRANCH else ""
    expected = case[f"{name}_final"] if name[0] == "K" else case[f"{name}_traj"][-1]
    found = run(case, model, name, compat=compat)
    assert np.abs(found - nhwc(expected)).max() < 2e-4 * max(expected.std(), 1)


def test_eta_0_silences_an_ancestral_solver(case, model, latents, highest):
    """Other noise of the steps then changes nothing; without eta it does."""
    start, rng = nhwc(case["latents"]), np.random.default_rng(3)
    steps = [rng.normal(size=(1, 10, *start.shape[1:])).astype(np.float32) for _ in range(2)]
    for eta, same in ((0.0, True), (None, False)):
        one, other = (run(case, model, "D1", eta=eta, noise={"start": start, "steps": s})
                      for s in steps)  # fmt: skip
        assert (np.abs(one - other).max() == 0) == same


@pytest.mark.parametrize("name", SINGLE_BRANCH)
def test_small_scales_are_honoured(name, case, model, latents, highest):
    """Without compat the scales count: text 1 is not the conditional branch alone."""
    found = run(case, model, name)
    assert np.abs(found - nhwc(case[f"{name}_traj"])[-1]).max() > 0.05


def test_the_weights_are_the_papers_formula():
    rng = np.random.default_rng(0)
    nothing, image, both = rng.normal(size=(3, 7))
    for s_text, s_image in [(7.5, 1.5), (0.5, 0.25), (0.0, 1.0), (1.0, 1.0)]:
        weights = np.asarray(two_scales(jnp.array([s_text]), jnp.array([s_image])), np.float64)[0]
        paper = nothing + s_image * (image - nothing) + s_text * (both - image)
        np.testing.assert_allclose(weights @ np.stack([nothing, image, both]), paper, atol=1e-6)


def test_the_picture_has_no_say_where_its_scale_is_zero(tiny_instruct, picture):
    """s_I = s_T = 0 leaves eps(0, 0): any picture gives the same result."""
    given = dict(prompt="make it red", steps=2, guidance=0.0, size=32)
    for scale, same in ((0.0, True), (1.0, False)):
        images = [
            de.edit(tiny_instruct, p, "instruct_pix2pix", image_guidance=scale, **given).image
            for p in (picture, picture[::-1])
        ]
        assert np.array_equal(*images) == same


def test_the_whole_pipeline_of_a_folder(tiny_instruct, highest):
    """Folder, tokenizer, text encoder, VAE, Euler ancestral: the official picture."""
    recorded = np.load(GOLDEN / "12_pipelines" / "trajectories.npz")
    draws = nhwc(recorded["ip2p_noise"])[:, 0][None]
    noise = {"start": nhwc(recorded["sd1_latents"][:1]), "steps": draws}
    image = de.edit(
        tiny_instruct, recorded["edit_image_u8"], "instruct_pix2pix", prompt=PROMPT,
        steps=4, guidance=7.5, image_guidance=1.5, noise=noise,
    ).image  # fmt: skip
    expected = np.round(np.moveaxis(recorded["ip2p_image"][0], 0, -1) * 255)
    assert np.abs(image - expected).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_live_pipeline(case, highest, kind):
    """Text and picture scales, a negative prompt, and DDIM in place of the folder's solver."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    folder = GOLDEN / "12_pipelines" / "ip2p"
    pipe = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(
        folder, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    schedule = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                    clip_sample=False, steps_offset=0, set_alpha_to_one=False,
                    prediction_type=kind)  # fmt: skip
    pipe.scheduler = diffusers.DDIMScheduler(timestep_spacing="leading", **schedule)
    start = np.random.default_rng(1).normal(size=(1, 4, 16, 8)).astype(np.float32)
    pixels = case["image_u8"]
    theirs = pipe(
        PROMPT, image=torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1))[None] / 255,
        num_inference_steps=5, guidance_scale=6.0, image_guidance_scale=1.3,
        negative_prompt="a flower", latents=torch.from_numpy(start), output_type="np",
    ).images[0]  # fmt: skip
    ours = de.edit(
        de.load(str(folder), prediction_type=kind), pixels, "instruct_pix2pix", prompt=PROMPT,
        negative="a flower", steps=5, guidance=6.0, image_guidance=1.3, solver="ddim",
        spacing="leading", noise=nhwc(start),
    ).image  # fmt: skip
    assert np.abs(np.round(theirs * 255) - ours).max() <= 1


def test_networks_of_another_kind_are_refused(tiny, tiny_instruct, picture):
    with pytest.raises(de.UserError, match="needs a network with 8 input channels.* 4"):
        de.edit(tiny, picture, "instruct_pix2pix", prompt="make it red", size=32)
    with pytest.raises(de.UserError, match="needs a network with 4 input channels.* 8"):
        de.edit(tiny_instruct, picture, "sdedit", prompt="a cat", size=32)
    with pytest.raises(de.UserError, match="compat must be"):
        de.edit(tiny_instruct, picture, "instruct_pix2pix", prompt="x", compat="k", size=32)


def test_the_official_size_is_a_cut_before_the_edit(tiny_instruct):
    """The same as giving the picture that PIL fits to the cells, and the mask with it."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (50, 22, 3), dtype=np.uint8)
    mask = np.zeros((50, 22), np.float32)
    mask[:25] = 1
    given = dict(prompt="make it red", steps=2, seed=3)
    cell = tiny_instruct.size // 8
    asked = 3 * cell  # 22 / 50 * 3 cells -> 2 cells, and 50 / 22 * 2 -> 4
    found = de.edit(tiny_instruct, pixels, "instruct_pix2pix", mask=mask, size=asked,
                    compat="official", **given)  # fmt: skip
    new = (2 * cell, 4 * cell)
    fitted = ImageOps.fit(Image.fromarray(pixels), new, Image.Resampling.LANCZOS)
    half = ImageOps.fit(Image.fromarray(mask), new, Image.Resampling.BOX)
    same = de.edit(tiny_instruct, fitted, "instruct_pix2pix", mask=np.asarray(half),
                   size=4 * cell, **given)  # fmt: skip
    np.testing.assert_array_equal(found.image, same.image)
    assert found.image.shape == (*new[::-1], 3)
    assert found.recipe["parameters"]["compat"] == "official"
    with pytest.raises(de.UserError, match="cannot come back; leave the original size"):
        de.edit(tiny_instruct, pixels, "instruct_pix2pix", compat="official", original_size=True,
                **given)  # fmt: skip
    with pytest.raises(de.UserError, match="do not fit one sheet"):
        sweep(tiny_instruct, pixels, "instruct_pix2pix", {"compat": ["", "official"]}, **given)


def test_an_empty_instruction_gives_the_picture_back(tiny_instruct, picture):
    seen = []
    given = dict(steps=2, size=32, seed=3, watch=lambda *said: seen.append(said))
    alone = de.edit(tiny_instruct, picture, "instruct_pix2pix", prompt=" ", **given)
    np.testing.assert_array_equal(alone.image, picture)
    assert not seen  # the network was not asked
    both = de.edit(tiny_instruct, [picture] * 2, "instruct_pix2pix", prompt=["", "red"], **given)
    np.testing.assert_array_equal(both.image[0], picture)
    assert len(seen) == 2 and np.abs(both.image[1].astype(int) - picture).max() > 1
