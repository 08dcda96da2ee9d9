"""The bundle against the recorded pipelines, and what it promises to methods."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import UserError

from .conftest import loaded

PROMPTS = ["a painting of a squirrel eating a burger", "a photo of a butterfly, on a flower!"]


def close(ours, theirs, tolerance=2e-5):
    assert np.shape(ours) == np.shape(theirs)
    assert np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


def nhwc(array):
    return np.moveaxis(array, -3, -1)


@pytest.mark.parametrize("name", ["sd1", "sd1_fp16", "sd2"])
def test_prompts_become_the_recorded_embeddings(name, recorded, highest):
    model = loaded("sd1_fp16_variant" if name == "sd1_fp16" else name)
    ids = model.tokenize(PROMPTS)
    np.testing.assert_array_equal(ids, recorded[f"{name}_ids"])
    close(model.text(ids), recorded[f"{name}_prompt_embeds"])
    close(model.null().text, recorded[f"{name}_negative_embeds"])
    close(model.condition(PROMPTS).text, recorded[f"{name}_prompt_embeds"])


def test_earlier_layers_of_the_text(recorded, highest):
    model = loaded("sd1")
    close(model.text(recorded["sd1_ids"], skip=1), recorded["sd1_text_clip_skip1"])
    _, more = model.texts[0](recorded["sd1_ids"])
    close(np.stack(more["hidden_states"]), recorded["sd1_text_hidden_states"])
    close(more["pooled"], recorded["sd1_text_pooled"])


@pytest.mark.parametrize("name", ["sd1", "sd2"])
def test_latents_become_the_recorded_pictures(name, recorded, highest):
    picture = loaded(name).decode(nhwc(recorded[f"{name}_traj"][-1]))
    shown = np.clip(np.asarray(picture) / 2 + 0.5, 0, 1)
    np.testing.assert_allclose(shown, nhwc(recorded[f"{name}_image"]), atol=2e-5)


def test_inpainting_starts_from_the_recorded_posterior(recorded, highest):
    """strength 1 hides the encoding; here the posterior itself is checked against torch."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    model = loaded("inpaint")
    vae = diffusers.AutoencoderKL.from_pretrained(model.origin["source"], subfolder="vae")
    image = recorded["edit_image_u8"][None].astype(np.float32) / 127.5 - 1
    noise = recorded["inpaint_posterior_noise"]
    with torch.no_grad():
        posterior = vae.encode(torch.from_numpy(nhwc_to_nchw(image))).latent_dist
        sampled = posterior.mean + posterior.std * torch.from_numpy(noise)
    close(model.encode(image), nhwc(0.18215 * posterior.mean.numpy()))
    close(model.encode(image, noise=nhwc(noise)), nhwc(0.18215 * sampled.numpy()))


def nhwc_to_nchw(array):
    return np.ascontiguousarray(np.moveaxis(array, -1, -3))


@pytest.mark.parametrize("name", ["ip2p", "inpaint"])
def test_wider_networks(name, recorded, highest):
    model = loaded(name)
    x, context = nhwc(recorded[f"{name}_unet_x"]), recorded[f"{name}_unet_ctx"]
    unet = model.denoiser
    out, _ = jax.jit(unet.module.apply)({"params": unet.params}, x, 500, context)
    close(out, nhwc(recorded[f"{name}_unet_out_t500"]))
    assert model.in_channels == {"ip2p": 8, "inpaint": 9}[name]


def test_what_the_files_say():
    sd1, sd2, pix2pix = loaded("sd1"), loaded("sd2"), loaded("ip2p")
    assert (sd1.denoiser.kind, sd2.denoiser.kind) == ("epsilon", "v_prediction")
    assert sd1.factor == 4 and sd1.size == 64 and sd1.latent_channels == 4
    assert sd1.schedule.steps_offset == 1 and sd1.schedule.spacing == "leading"
    assert pix2pix.schedule.steps_offset == 0 and pix2pix.schedule.spacing == "linspace"
    assert sd1.defaults == {"solver": "plms"}
    assert pix2pix.defaults == {"solver": "euler_ancestral"}


def test_rows_before_the_picture():
    model = loaded("sd1")
    image = jax.random.uniform(jax.random.key(0), (2, 3, 16, 24, 3), minval=-1, maxval=1)
    latent = model.encode(image)
    assert latent.shape == (2, 3, *model.latent_shape(16, 24))
    one = model.encode(image[1, 2])
    np.testing.assert_allclose(latent[1, 2], one, atol=1e-5)
    np.testing.assert_allclose(model.decode(latent)[1, 2], model.decode(one), atol=1e-5)


def test_tiles_of_a_small_picture_change_nothing():
    model = loaded("sd1")
    image = jnp.ones((1, 32, 32, 3)) * 0.3
    np.testing.assert_allclose(model.encode(image), model.encode(image, tiled=True), atol=1e-6)
    latent = model.encode(image)
    np.testing.assert_allclose(model.decode(latent), model.decode(latent, tiled=True), atol=1e-5)


@pytest.mark.parametrize("sides", [(63, 64), (64, 65), (0, 64), (-4, 64), (2, 64)])
def test_sides_that_do_not_fit(sides):
    with pytest.raises(UserError, match="multiple of 4"):
        loaded("sd1").latent_shape(*sides)


def test_the_bundle_is_a_pytree_that_jit_takes():
    model = loaded("sd1")
    again = jax.jit(lambda m, z: m.decode(z))
    latent = jnp.zeros((1, 4, 4, 4))
    again(model, latent)
    again(jax.tree.map(lambda a: a * 2, model), latent)
    assert again._cache_size() == 1
    assert hash(jax.tree.structure(model)) == hash(jax.tree.structure(model))


def test_loading_twice_shares_programs():
    from diffedit_jax.bundles import load

    first, second = loaded("sd1"), load(loaded("sd1").origin["source"])
    assert jax.tree.structure(first) == jax.tree.structure(second)


def test_gradients_reach_the_picture():
    model = loaded("sd1")
    power = jax.grad(lambda x: jnp.sum(model.decode(model.encode(x)) ** 2))
    gradient = jax.jit(power)(jnp.full((8, 8, 3), 0.1))
    assert bool(jnp.all(jnp.isfinite(gradient))) and float(jnp.abs(gradient).max()) > 0
