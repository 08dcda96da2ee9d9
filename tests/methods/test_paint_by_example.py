"""Paint by Example against official trajectories, the live pipeline, and its own laws."""

import sys

import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Cond
from diffedit_jax.methods import paint_by_example, run
from diffedit_jax.methods.paint_by_example import bilinear_mask, binary_hole, channels
from tests.golden_models import GOLDEN, nhwc

# run: solver, steps, guidance, compat (manifest, 09)
RUNS = {
    "R0": ("plms", 10, 5.0, "diffusers"),
    "R1": ("ddim", 5, 5.0, "diffusers"),
    "R2": ("ddim", 4, 1.0, "diffusers"),
    "O0": ("plms", 10, 5.0, ""),
}
MODULE = "diffedit_jax.methods.paint_by_example"


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "09_paint_by_example" / "pbe.npz"))


@pytest.fixture
def told(case, monkeypatch):
    """The recorded pixels stand for the prepared example."""

    def shown(model, examples, *, crop=False):
        pixels = case["enc_pixel_values"][:1] if not crop else case["example_pixel_values"]
        both = [model.null(1).text, model.example(jnp.asarray(nhwc(pixels))).text]
        return Cond(text=jnp.stack(both, axis=1))

    monkeypatch.setattr(sys.modules[MODULE], "shown", shown)


@pytest.fixture
def latents(monkeypatch):
    """The last latents of every run."""
    seen = []

    def pictures(model, x):
        seen.append(np.asarray(x))
        return run.pictures(model, x)

    monkeypatch.setattr(sys.modules[MODULE], "pictures", pictures)
    return seen


def ran(case, model, name, **more):
    solver, steps, guidance, compat = RUNS[name]
    noise = {"start": nhwc(case["latents"]), "masked": nhwc(case["posterior_noise_masked"])}
    pixels = case["image_u8"].astype(np.float32)[None] / 127.5 - 1
    given = dict(example=[case["image_u8"]], mask=case["mask_u8"][None] / np.float32(255),
                 solver=solver, steps=steps, guidance=guidance, compat=compat,
                 noise=noise)  # fmt: skip
    return paint_by_example(model, pixels, **given | more)


@pytest.mark.parametrize("name", RUNS)
def test_trajectories_end_where_the_official_ones_do(
    name, case, tiny_exemplar, told, latents, highest
):
    found = ran(case, tiny_exemplar, name)
    np.testing.assert_allclose(latents[0], nhwc(case[f"{name}_traj"])[-1], atol=1e-3, rtol=0)
    if f"{name}_image" in case:
        official = np.clip(nhwc(case[f"{name}_image"]) / 2 + 0.5, 0, 1) * 255
        assert np.abs(found - official).max() <= 0.5 + 2e-3 * 127.5


def test_masks_and_the_first_input_are_the_official_ones(case, tiny_exemplar, highest):
    hole = binary_hole(case["mask_u8"][None] / np.float32(255), (1, *case["image_u8"].shape))
    np.testing.assert_array_equal(1 - hole, case["keep_mask"][:, 0])
    small = bilinear_mask(1 - hole, 4)
    np.testing.assert_allclose(small, nhwc(case["keep_mask_latent_bilinear"]), atol=1e-6)
    masked = nhwc(case["masked_image"])
    noise = nhwc(case["posterior_noise_masked"])
    hidden = tiny_exemplar.encode(jnp.asarray(masked), noise=noise)
    np.testing.assert_allclose(hidden, nhwc(case["masked_image_latent"]), atol=1e-4, rtol=0)
    keep = jnp.asarray(nhwc(case["keep_mask_latent_nearest"]))
    ours = channels(hidden, keep, "paint_by_example")
    np.testing.assert_allclose(ours, nhwc(case["R0_first_unet_input"])[..., 4:], atol=1e-4, rtol=0)


def test_the_mask_between_pixels_is_torchs_bilinear_resize():
    torch = pytest.importorskip("torch")
    keep = np.random.default_rng(0).integers(0, 2, (2, 24, 16)).astype(np.float32)
    for factor in (1, 2, 4, 8):
        size = (24 // factor, 16 // factor)
        official = torch.nn.functional.interpolate(
            torch.from_numpy(keep)[:, None], size=size, mode="bilinear", align_corners=False
        )
        np.testing.assert_allclose(bilinear_mask(keep, factor)[..., 0], official[:, 0], atol=1e-6)


@pytest.mark.slow
def test_the_live_pipeline(case, tiny_exemplar, highest):
    """diffusers' own example and mask preparation, networks and scheduler: the same picture."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    from diffusers.pipelines.deprecated.paint_by_example.image_encoder import (
        PaintByExampleImageEncoder,
    )
    from PIL import Image
    from transformers import CLIPImageProcessor, CLIPVisionConfig

    load = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    folder = tiny_exemplar.origin["source"]
    parts = {name: kind.from_pretrained(f"{folder}/{name}") for name, kind in load.items()}
    place = f"{folder}/image_encoder"
    config = CLIPVisionConfig.from_pretrained(place)
    parts["image_encoder"] = PaintByExampleImageEncoder.from_pretrained(place, config=config)
    pipe = diffusers.PaintByExamplePipeline(
        **parts, scheduler=diffusers.PNDMScheduler.from_pretrained(f"{folder}/scheduler"),
        safety_checker=None, requires_safety_checker=False,
        feature_extractor=CLIPImageProcessor(
            size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(3)
    example = rng.integers(0, 256, (50, 90, 3), np.uint8)
    start = rng.normal(size=(1, 4, 8, 12)).astype(np.float32)
    mask = (case["mask_u8"] > 127).astype(np.float32)
    theirs = pipe(
        Image.fromarray(example), Image.fromarray(case["image_u8"]),
        Image.fromarray(case["mask_u8"]), num_inference_steps=10, guidance_scale=4.0,
        latents=torch.from_numpy(start), generator=torch.Generator().manual_seed(7),
        output_type="np",
    ).images[0]  # fmt: skip
    drawn = torch.randn((1, 4, 8, 12), generator=torch.Generator().manual_seed(7)).numpy()
    ours = de.edit(
        tiny_exemplar, case["image_u8"], "paint_by_example", example=example, mask=mask, size=48,
        steps=10, guidance=4.0, compat="diffusers",
        noise={"start": nhwc(start), "masked": nhwc(drawn)},
    ).image  # fmt: skip
    assert np.abs(np.round(theirs * 255) - ours).max() <= 1


HALF = np.zeros((32, 32), np.float32)
HALF[:, 16:] = 1
GIVEN = dict(mask=HALF, steps=2, size=32)


def test_the_picture_under_the_mask_has_no_say(tiny_exemplar, picture):
    """The network sees mid grey there; what is kept has its say."""
    given = GIVEN | dict(example=picture[:20], solver="ddim")
    other = picture.copy()
    other[:, 16:] = 255 - other[:, 16:]
    images = [
        de.edit(tiny_exemplar, p, "paint_by_example", **given).image for p in (picture, other)
    ]
    np.testing.assert_array_equal(*images)
    kept = de.edit(tiny_exemplar, 255 - picture, "paint_by_example", **given).image
    assert not np.array_equal(kept, images[0])


def test_pasted_pixels_are_the_sources_own_bits(tiny_exemplar, picture):
    given = GIVEN | dict(example=picture[:20], solver="ddim")
    loose = de.edit(tiny_exemplar, picture, "paint_by_example", **given).image
    pasted = de.edit(tiny_exemplar, picture, "paint_by_example", paste=True, **given).image
    np.testing.assert_array_equal(pasted[:, :16], picture[:, :16])
    np.testing.assert_array_equal(pasted[:, 21:], loose[:, 21:])
    assert not np.array_equal(loose[:, :16], picture[:, :16])


def test_the_other_order_of_channels_is_inpaintings():
    rng = np.random.default_rng(0)
    hidden, keep = jnp.asarray(rng.normal(size=(1, 2, 3, 4))), jnp.asarray(rng.random((1, 2, 3, 1)))
    seen = channels(hidden, keep, "inpaint")
    np.testing.assert_allclose(seen[..., :1], 1 - keep)
    np.testing.assert_array_equal(seen[..., 1:], hidden)


def test_a_network_that_predicts_v_is_asked_for_v(tiny_exemplar, picture):
    """v-prediction is legal: the same weights read as v give another picture, and a finite one."""
    model = de.load(tiny_exemplar.origin["source"], prediction_type="v_prediction")
    given = GIVEN | dict(example=picture[:20], solver="ddim")
    images = [
        de.edit(m, picture, "paint_by_example", **given).image for m in (tiny_exemplar, model)
    ]
    assert not np.array_equal(*images)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (dict(mask=0 * HALF), "mask is empty"),
        (dict(mask=0 * HALF + 1), "covers the whole picture"),
        (dict(example=np.zeros((1, 1, 3), np.uint8)), "1x1 pixels"),
        (dict(example="nowhere.png"), "nowhere.png does not exist"),
        (dict(example=None), "needs example"),
        (dict(mask=None), "needs mask"),
        (dict(layout="other"), "layout must be"),
        (dict(compat="official"), "compat must be"),
        (dict(steps=0), "steps must be"),
        (dict(prompt="a cat"), "no parameter 'prompt'"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(tiny_exemplar, picture, given, said):
    told = GIVEN | dict(example=picture) | given
    with pytest.raises(de.UserError, match=said) as caught:
        de.edit(tiny_exemplar, picture, "paint_by_example", **told)
    assert "\n" not in str(caught.value)


def test_networks_are_told_apart(tiny, tiny_inpaint, tiny_exemplar, picture):
    told = GIVEN | dict(example=picture)
    with pytest.raises(de.UserError, match="needs a network with 9 input channels.* 4"):
        de.edit(tiny, picture, "paint_by_example", **told)
    with pytest.raises(de.UserError, match=r"told by an example .*this one is told by texts"):
        de.edit(tiny_inpaint, picture, "paint_by_example", **told)
    with pytest.raises(de.UserError, match=r"told by texts; this one is told by an example"):
        de.edit(tiny_exemplar, picture, "inpaint", prompt="a cat", **GIVEN)
    with pytest.raises(de.UserError, match="no text encoder"):
        tiny_exemplar.condition(["a cat"])
    with pytest.raises(de.UserError, match="told by texts"):
        tiny_inpaint.example(jnp.zeros((1, 28, 28, 3)))
