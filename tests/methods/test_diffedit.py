"""DiffEdit against diffusers' pipeline and the restated paper, and its laws."""

import sys
import warnings

import jax
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import chain
from diffedit_jax.methods.cells import blurred, dilated, in_cells, in_pixels
from diffedit_jax.methods.diffedit import (
    contrast,
    diffedit_mask,
    encoded,
    kept,
    mask_level,
    mask_of,
    usable,
)
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import descend, editing_table
from diffedit_jax.methods.run import Draws, guided
from tests.golden_models import GOLDEN, golden_bundle, nhwc
from tests.methods.toy_attention import a_picture, toy

MASKS = {  # name: (pictures, noises, strength, clip ratio, guidance, steps)
    "m0": (1, 4, 0.5, 3.0, 7.5, 10),
    "m1": (1, 10, 0.5, 2.2, 3.0, 10),
    "m2": (2, 3, 0.5, 2.0, 7.5, 10),
    "m3": (1, 5, 0.8, 2.0, 5.0, 50),
}
INVERSIONS = {"i0": ("", 1.0, 1), "i1": ("source", 7.5, 1), "i2": ("source", 1.0, 2)}
EDITS = {"e0": ("i0", 7.5), "e1": ("i0", 7.5), "e2": ("i0", 7.5), "e3": ("i1", 5.0),
         "e4": ("i2", 4.0)}  # fmt: skip


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "05_diffedit" / "diffedit.npz"))


@pytest.fixture(scope="module")
def model(case):
    told = {name: case[f"emb_{name}"] for name in ("source", "target", "negative")}
    return golden_bundle("unet_sd1", told | {"": case["emb_negative"]})


def latents(case, count):
    return np.asarray(nhwc(case[f"latents{count}"]))


def measured(case, model, name):
    """D as we measure it; noise by noise but for m0, so that few programs are compiled."""
    count, maps, strength, _, _, steps = MASKS[name]
    noise = nhwc(case[f"{name}_noise"])
    noise = noise.reshape(count, maps, *noise.shape[1:])
    level = mask_level(model, steps, strength, None)

    def found(z0, noise):
        draws = Draws(len(z0), 0, 0, {"steps": noise})
        return contrast(model, z0, ["target"] * len(z0), ["source"] * len(z0), level=level,
                        maps=noise.shape[1], draws=draws)  # fmt: skip

    if name == "m0":
        return found(latents(case, 1), noise)
    each = [
        np.mean([found(z0[None], draw[None, None]) for draw in own], axis=0)[0]
        for z0, own in zip(latents(case, count), noise, strict=True)
    ]
    return np.stack(each)


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_the_official_ones(name, case, model, highest):
    ratio, guidance = MASKS[name][3:5]
    found = measured(case, model, name)
    np.testing.assert_allclose(found, case[f"{name}_D_unguided"], atol=1e-5, rtol=0)
    # the pipeline guides with the roles of text and negative exchanged: |1 - w| times as much
    np.testing.assert_allclose(
        found * abs(1 - guidance), case[f"{name}_D_official"], atol=1e-5 * guidance, rtol=0
    )
    np.testing.assert_array_equal(mask_of(found, ratio, 0.5, "diffusers"), case[f"{name}_mask"])
    np.testing.assert_array_equal(mask_of(found, ratio, 0.5), case[f"{name}_mask_minmax"])
    for one, official in zip(found, case[f"{name}_mask_per_image_mean"], strict=True):
        np.testing.assert_array_equal(mask_of(one[None], ratio, 0.5, "diffusers")[0], official)


def grid_of(model, count, strength=0.8):
    return editing_table(model, steps=10, count=count, strength=strength)


@pytest.fixture(scope="module")
def inverted(case, model):
    with jax.default_matmul_precision("highest"):
        return {
            name: encoded(model, latents(case, count), prompt, guidance, grid_of(model, count))
            for name, (prompt, guidance, count) in INVERSIONS.items()
        }


@pytest.mark.parametrize("name", INVERSIONS)
def test_encoding_is_the_official_one(name, case, inverted):
    recorded = np.asarray(inverted[name].recorded)[:, :8]  # clean first, two rows idle
    np.testing.assert_allclose(recorded[:, ::-1], nhwc(case[f"{name}_latents"]), atol=5e-4, rtol=0)


def decoded(case, model, up, name, guidance, z0, compat):
    mask = case[f"{name}_mask"].astype(np.float32)
    count = len(mask)
    edit = chain(guidance_edit(guidance, 0.0, count), kept(mask, up.recorded, z0, compat))
    cond = guided(model, ["target"] * count, ["negative"] * count)
    return descend(model, edit, grid_of(model, count), up.x, cond, record=lambda move: move.x_next)


@pytest.mark.parametrize("name", EDITS)
def test_decoding_is_the_official_one(name, case, model, inverted, highest):
    source, guidance = EDITS[name]
    up = inverted[source]
    down = decoded(case, model, up, name, guidance, latents(case, len(up.x)), "diffusers")
    ours = np.asarray(down.recorded)[:, 2:].swapaxes(0, 1)
    np.testing.assert_allclose(ours, nhwc(case[f"{name}_traj"]), atol=1e-3, rtol=0)
    if name == "e1":  # an empty mask returns the last encoded latent
        np.testing.assert_array_equal(down.x, up.recorded[:, 0])


def test_the_paper_is_followed_by_default(case, model, highest):
    z0 = latents(case, 1)
    up = encoded(model, z0, "", 1.0, grid_of(model, 1))
    path = np.concatenate([z0[:, None], np.asarray(up.recorded)[:, :8]], axis=1)[0]
    np.testing.assert_allclose(path, nhwc(case["paper_encoded"])[:, 0], atol=5e-4, rtol=0)
    mask = case["paper_mask"].astype(np.float32)
    edit = chain(guidance_edit(7.5, 0.0, 1), kept(mask, up.recorded, z0))
    cond = guided(model, ["target"], ["negative"])
    down = descend(model, edit, grid_of(model, 1), up.x, cond, record=lambda move: move.x_next)
    ours = np.asarray(down.recorded)[0, 2:]
    np.testing.assert_allclose(ours, nhwc(case["paper_decoded"])[:, 0], atol=1e-3, rtol=0)
    outside = mask[0] == 0
    assert outside.any() and not outside.all()
    np.testing.assert_array_equal(np.asarray(down.x)[0][outside], z0[0][outside])


@pytest.mark.parametrize("compat", ["", "diffusers"])
def test_the_ends_of_the_mask(compat, case, model, inverted):
    """Empty: the source (or its last encoded latent) to the bit; full: plain decoding."""
    z0, up = latents(case, 1), inverted["i0"]
    cond = guided(model, ["target"], ["negative"])
    guide = guidance_edit(7.5, 0.0, 1)
    plain = descend(model, guide, grid_of(model, 1), up.x, cond).x
    ends = []
    for value in (0.0, 1.0):
        cells = np.full(z0.shape[:3], value, np.float32)
        edit = chain(guide, kept(cells, up.recorded, z0, compat))
        ends.append(descend(model, edit, grid_of(model, 1), up.x, cond).x)
    np.testing.assert_array_equal(ends[0], up.recorded[:, 0] if compat else z0)
    np.testing.assert_allclose(ends[1], plain, atol=1e-5)


def test_from_pixels_to_pixels_it_is_the_official_pipeline(case, model, highest):
    """Encoding a picture, then decoding it inside a given mask, strength 0.5."""
    image = case["chain_image_u8"].astype(np.float32)[None] / 127.5 - 1
    mask = in_pixels(case["e0_mask"], model.factor)
    noise = {"posterior": nhwc(case["chain_posterior_noise"])}
    shown = de.methods.diffedit(
        model, image, prompt=["target"], negative=["negative"], mask=mask, strength=0.5, steps=10,
        guidance=5.0, posterior="sample", compat="diffusers", noise=noise)  # fmt: skip
    official = case["chain_image_out"] * 255
    assert np.abs(shown.astype(float) - official).max() <= 0.5 + 255e-3


def test_statistics_are_each_pictures_own():
    """In a batch with a picture of twice the contrast, ours stays and diffusers' moves."""
    found = np.random.default_rng(0).gamma(2.0, size=(1, 16, 16)).astype(np.float32)
    both = np.concatenate([found, 3 * found])
    np.testing.assert_array_equal(mask_of(both, 3.0, 0.5)[:1], mask_of(found, 3.0, 0.5))
    assert (mask_of(both, 3.0, 0.5, "diffusers")[:1] != mask_of(found, 3.0, 0.5, "diffusers")).any()


def test_a_lower_threshold_finds_more():
    found = np.random.default_rng(1).gamma(2.0, size=(2, 16, 16)).astype(np.float32)
    small, large = mask_of(found, 3.0, 0.75), mask_of(found, 3.0, 0.25)
    assert (large >= small).all() and large.sum() > small.sum()
    np.testing.assert_array_equal(mask_of(found, 3.0, [0.75, 0.25])[1], large[1])


def test_dilation_and_blur():
    dot = np.zeros((1, 9, 9), np.float32)
    dot[0, 4, 4] = 1
    assert dilated(dot, 0).sum() == 1 and dilated(dot, 1).sum() == 5 and dilated(dot, 2).sum() == 13
    soft = blurred(dot, 1.0)[0]
    np.testing.assert_allclose(soft.sum(), 1, atol=1e-3)
    np.testing.assert_allclose(soft, soft.T)
    assert soft.argmax() == dot.argmax()
    np.testing.assert_array_equal(blurred(np.ones((1, 5, 5), np.float32), 2.0).round(6), 1)


def test_cells_and_pixels():
    cells = np.random.default_rng(2).integers(0, 2, (2, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(in_cells(in_pixels(cells, 8), 8), cells)


def test_masks_that_mean_nothing_are_refused():
    with pytest.raises(de.UserError, match="lower the threshold or give a mask"):
        usable(np.zeros((1, 4, 4), np.float32), True)
    both = np.stack([np.eye(4), np.ones((4, 4))]).astype(np.float32)
    with pytest.raises(de.UserError, match="picture 2 covers the whole"), pytest.warns():
        usable(both, False)


@pytest.fixture(scope="module")
def model6():
    return toy()


@pytest.fixture
def latents_back(monkeypatch):
    """diffedit gives its last latents instead of pictures."""
    module = sys.modules["diffedit_jax.methods.diffedit"]
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


HALF = np.zeros((1, 6, 6), np.float32)
HALF[:, :, 3:] = 1


def edited(model, **more):
    given = dict(prompt=["a dog on a mat"], source=["a cat on a mat"], steps=4, guidance=3.0,
                 maps=3, images=a_picture()) | more  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return de.methods.diffedit(model, **given)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(prompt=["a cat on a mat"]), "prompt and source say the same"),
        (dict(compat="official"), "compat must be"),
        (dict(maps=0), "maps must be"),
        (dict(clip_ratio=-1.0), "clip_ratio must be above 0"),
        (dict(threshold=-2.0), "threshold must be in"),
        (dict(threshold=1.0), "threshold must be in"),
        (dict(mask_strength=0.0), "mask_strength must be"),
        (dict(dilate=-1), "dilate must not"),
        (dict(blur=-1), "blur must not"),
        (dict(noise=np.zeros((1, 2, 3, 3, 4))), "noise has shape"),
        (dict(mask=0 * HALF), "mask is empty: nothing would change"),
        (dict(mask=0 * HALF + 1), "covers the whole picture"),
    ],
)
def test_mistakes_are_answered_in_one_line(wrong, named, model6):
    with pytest.raises(de.UserError, match=named) as told:
        edited(model6, **wrong)
    assert "\n" not in str(told.value)


def test_the_mask_can_be_seen_and_given_to_other_methods(model6):
    given = dict(prompt=["a dog on a mat"], source=["a cat on a mat"], steps=4, maps=3, seed=5)
    with pytest.warns(UserWarning, match="covers"):
        mask = diffedit_mask(model6, a_picture(), **given)
    assert mask.shape == (1, 6, 6) and set(np.unique(mask)) == {0.0, 1.0}
    np.testing.assert_array_equal(edited(model6, seed=5), edited(model6, mask=mask, source=None))
    painted = de.methods.inpaint(model6, a_picture(), prompt=["a dog"], mask=mask, steps=4, band=0)
    source = np.round((a_picture() / 2 + 0.5) * 255)
    np.testing.assert_array_equal(painted[mask == 0], source[mask == 0])


def test_no_knob_compiles_anything(model6):
    """Statistics, strengths, prompts and the mask's own noise are data."""
    seen = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    edited(model6)
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        edited(model6, prompt=["two dogs"], source=["a boat"], mask_strength=0.8, clip_ratio=2.0,
               dilate=1, threshold=0.4, blur=0.7, strength=0.5, guidance=4.0, seed=4,
               encode_prompt="a boat", compat="diffusers")  # fmt: skip
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not seen


def test_pasting_keeps_every_pixel_outside(model6):
    source = np.round((a_picture() / 2 + 0.5) * 255)
    shown = edited(model6, mask=HALF, paste=True)
    np.testing.assert_array_equal(shown[:, :, :3], source[:, :, :3])
    assert (shown[:, :, 3:] != source[:, :, 3:]).any()


@pytest.mark.parametrize(("strength", "guidance"), [(0.5, 2.0), (1.0, 9.0)])
def test_the_background_is_the_pictures_own(strength, guidance, model6, latents_back):
    """In latents, to the bit, whatever guidance and strength are."""
    z, z0 = edited(model6, mask=HALF, strength=strength, guidance=guidance), a_picture()
    np.testing.assert_array_equal(z[:, :, :3], z0[:, :, :3])
    assert (z[:, :, 3:] != z0[:, :, 3:]).all()


def test_pictures_of_a_batch_are_what_they_are_alone(model6, latents_back):
    """Masks, noises, strengths and encodings are each picture's own."""
    images = np.concatenate([a_picture(), a_picture()[:, ::-1] * 0.5])
    prompts, strength = ["a dog on a mat", "a red boat"], [0.5, 1.0]
    both = edited(model6, images=images, prompt=prompts, source=["a cat", "a cat"],
                  strength=strength, seed=[3, 8])  # fmt: skip
    for i in range(2):
        alone = edited(model6, images=images[i : i + 1], prompt=prompts[i : i + 1],
                       source=["a cat"], strength=strength[i], seed=[3, 8][i])  # fmt: skip
        np.testing.assert_allclose(alone[0], both[i], atol=1e-5)


def test_a_whole_edit_beside_the_live_pipeline(case, model, highest):
    """Mask, encoding and decoding of another strength, guidance and noise than the stored runs."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.set_num_threads(1)
    folder = GOLDEN / "models"
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        set_alpha_to_one=False, steps_offset=1)  # fmt: skip
    pipe = diffusers.StableDiffusionDiffEditPipeline(
        vae=diffusers.AutoencoderKL.from_pretrained(folder / "vae"), text_encoder=None,
        tokenizer=None, unet=diffusers.UNet2DConditionModel.from_pretrained(folder / "unet_sd1"),
        scheduler=scheduler, safety_checker=None, feature_extractor=None,
        inverse_scheduler=diffusers.DDIMInverseScheduler.from_config(scheduler.config),
        requires_safety_checker=False)  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    text = {name: torch.tensor(case[f"emb_{name}"]) for name in ("source", "target", "negative")}
    z0 = torch.tensor(case["latents1"]) * 0.7
    noise = torch.randn((4, *z0.shape[1:]), generator=torch.Generator().manual_seed(1))
    null = dict(source_negative_prompt_embeds=text["negative"],
                target_negative_prompt_embeds=text["negative"])  # fmt: skip
    mask = pipe.generate_mask(
        z0, source_prompt_embeds=text["source"], target_prompt_embeds=text["target"], **null,
        num_maps_per_mask=4, mask_thresholding_ratio=2.2, num_inference_steps=10,
        generator=torch.Generator().manual_seed(1))  # fmt: skip
    shared = dict(inpaint_strength=0.6, num_inference_steps=10, output_type="latent")
    inverted = pipe.invert(prompt_embeds=text["negative"], image=z0, guidance_scale=1.0, **shared)
    edited = pipe(prompt_embeds=text["target"], negative_prompt_embeds=text["negative"],
                  mask_image=torch.tensor(mask).float(), image_latents=inverted.latents,
                  guidance_scale=4.0, **shared).images  # fmt: skip

    z0, count = nhwc(z0.numpy()), 1
    level = mask_level(model, 10, 0.5, None)
    draws = Draws(count, 0, 0, {"steps": nhwc(noise.numpy())[None]})
    found = contrast(model, z0, ["target"], ["source"], level=level, maps=4, draws=draws)
    cells = mask_of(found, 2.2, 0.5, "diffusers")
    np.testing.assert_array_equal(cells, mask)
    grid = grid_of(model, count, 0.6)
    up = encoded(model, z0, "negative", 1.0, grid)
    edit = chain(guidance_edit(4.0, 0.0, count), kept(cells, up.recorded, z0, "diffusers"))
    cond = guided(model, ["target"], ["negative"])
    down = descend(model, edit, grid, up.x, cond, record=lambda move: move.x_next)
    np.testing.assert_allclose(down.x, nhwc(edited.numpy()), atol=1e-3, rtol=0)
