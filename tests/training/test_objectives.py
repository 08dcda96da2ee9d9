"""Objectives: closed forms, and a whole training step of a tiny model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.core.time import Schedule
from diffedit_jax.models import AutoencoderKL, CLIPText, UNet
from diffedit_jax.training import autoencoder, objectives
from diffedit_jax.training.conditions import text_condition
from diffedit_jax.training.contrastive import contrastive
from diffedit_jax.training.optimisers import make_optimiser
from diffedit_jax.training.selections import Everything, Paths
from diffedit_jax.training.settings import complete
from diffedit_jax.training.state import create_state
from diffedit_jax.training.step import make_step
from diffedit_jax.training.task import Task


def test_times_are_stratified():
    t = np.asarray(objectives.stratified_times(jax.random.PRNGKey(0), 10, 1000))
    assert (t // 100 == np.arange(10)).all()
    long = objectives.stratified_times(jax.random.PRNGKey(1), 4000, 1000)
    assert int(long.min()) == 0 and int(long.max()) == 999


def test_focused_times_favour_middle_noise_and_still_reach_both_ends():
    t = np.asarray(objectives.stratified_times(jax.random.PRNGKey(0), 4000, 1000, focus=0.5))
    assert t.min() == 0 and t.max() == 999
    middle = ((t >= 250) & (t < 750)).mean()  # 0.5 of the even half, 0.728 of the other
    assert middle == pytest.approx(0.614, abs=0.01)


def test_velocity_gives_back_noise_and_picture():
    rng = np.random.default_rng(0)
    x0, noise = rng.normal(size=(2, 4)), rng.normal(size=(2, 4))
    alpha, sigma = np.cos(0.3), np.sin(0.3)
    x, v = alpha * x0 + sigma * noise, objectives.velocity(x0, noise, alpha, sigma)
    np.testing.assert_allclose(alpha * x - sigma * v, x0, atol=1e-6)
    np.testing.assert_allclose(sigma * x + alpha * v, noise, atol=1e-6)
    assert objectives.target("epsilon", x0, noise, alpha, sigma) is noise
    assert objectives.target("sample", x0, noise, alpha, sigma) is x0


class Perfect:
    """A network that is told the answer: it finds x0 = 0 behind any noise."""

    def apply(self, variables, x, t, context):
        abar = jnp.asarray(Schedule().abar)[t][:, None, None, None]
        noise = x / jnp.sqrt(1 - abar)
        return jnp.sqrt(abar) * noise + variables["params"]["off"], {}


class Silent:
    def apply(self, variables, ids):
        return jnp.zeros((*ids.shape, 2)), {}


@pytest.mark.parametrize("off", [0.0, 0.5])
def test_the_diffusion_loss_of_a_perfect_network_is_zero(off):
    objective = objectives.denoising(Perfect(), kind="v_prediction", schedule=Schedule())
    condition = text_condition(Silent(), drop=0.1, empty=jnp.zeros(3, jnp.int32))
    params = {"unet": {"off": jnp.float32(off)}, "text_encoder": {}}
    batch = {"latent": jnp.zeros((8, 4, 4, 2)), "ids": jnp.ones((8, 3), jnp.int32)}
    key = jax.random.PRNGKey(0)
    value, _ = objective(params, condition(params, batch, key), batch, key, 0)
    np.testing.assert_allclose(value, off**2, atol=1e-5)


class Tower:
    def apply(self, variables, x):
        return None, {"projected": x}


def test_the_contrastive_loss_prefers_the_right_pairs():
    loss = contrastive(Tower(), Tower())
    params = {"text": {}, "vision": {}, "logit_scale": jnp.log(100.0)}
    words = jnp.eye(6)
    batch = {"ids": words, "pixels": words, "same": jnp.eye(6)}
    right, facts = loss(params, None, batch, None, 0)
    wrong, _ = loss(params, None, {**batch, "pixels": words[::-1]}, None, 0)
    assert (right < 1e-3).all() and (wrong > 1e-3).all() and float(facts["hit"]) == 1


def test_divergence_and_psnr_in_closed_form():
    nothing = jnp.zeros((1, 1, 1, 2))
    assert float(autoencoder.divergence(nothing, nothing)[0]) == 0
    assert float(autoencoder.divergence(nothing + 3, nothing)[0]) == 4.5
    picture = jnp.zeros((1, 4, 4, 3))
    assert float(autoencoder.psnr(picture + 0.2, picture)) == pytest.approx(20, abs=1e-4)


@pytest.fixture(scope="module")
def vae():
    return AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4)


@pytest.fixture(scope="module")
def vae_params(vae):
    return jax.jit(vae.init)(jax.random.PRNGKey(0), jnp.zeros((1, 16, 16, 3)))["params"]


def test_folding_makes_unit_latents_and_keeps_every_picture(vae, vae_params):
    picture = jax.random.uniform(jax.random.PRNGKey(1), (4, 16, 16, 3), minval=-1)

    def both(params):
        mean, logvar = vae.apply({"params": params}, picture, method="encode")
        return mean, logvar, vae.apply({"params": params}, mean, method="decode")

    mean, logvar, out = jax.jit(both)(vae_params)
    centre, spread = mean.mean((0, 1, 2)), mean.std((0, 1, 2))
    mean2, logvar2, out2 = jax.jit(both)(autoencoder.fold_statistics(vae_params, centre, spread))
    np.testing.assert_allclose(mean2.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(mean2.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(jnp.exp(0.5 * logvar2) * spread, jnp.exp(0.5 * logvar), rtol=1e-3)
    np.testing.assert_allclose(out2, out, atol=1e-4)


def train(task, batch, **settings):
    """Losses of steps on one batch, and the state after them."""
    config = complete(settings)
    optimiser = make_optimiser(config)
    step, now = make_step(task, optimiser, config), create_state(task, optimiser, config)
    losses = []
    for _ in range(config.steps):
        now, metrics = step(now, task.params, batch)
        losses.append(float(metrics["loss"]))
    return losses, now


def test_a_decoder_trained_alone_leaves_the_encoder_out_and_lowers_the_loss(vae, vae_params):
    picture = jax.random.uniform(jax.random.PRNGKey(2), (4, 16, 16, 3), minval=-1)
    selection = Paths(autoencoder.DECODER)
    task = Task("decoder", {"vae": vae_params}, autoencoder.decoded(vae), selection)
    losses, now = train(task, {"image": picture}, steps=30, rate=3e-3)
    assert set(now.trained["vae"]) == {"decoder", "post_quant_conv"}
    assert losses[-1] < 0.9 * losses[0]


def test_a_whole_autoencoder_learns_a_batch(vae, vae_params):
    picture = jax.random.uniform(jax.random.PRNGKey(2), (4, 16, 16, 3), minval=-1)
    objective = autoencoder.whole(vae, kl=1e-5, noise_after=5)
    task = Task("whole", {"vae": vae_params}, objective, Everything())
    losses, _ = train(task, {"image": picture}, steps=20, rate=3e-3)
    assert losses[-1] < 0.9 * losses[0]


def test_a_training_step_of_a_tiny_model_lowers_the_loss_on_a_fixed_batch():
    unet = UNet(
        sample_size=8, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), attention_head_dim=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), cross_attention_dim=8,
    )  # fmt: skip
    text = CLIPText(
        vocab_size=20, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=6, eos_token_id=19,
    )  # fmt: skip
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    ids = jax.random.randint(keys[0], (8, 6), 0, 19)
    x = jnp.broadcast_to(2 * jax.random.normal(keys[1], (4,)), (8, 8, 8, 4))
    params = {
        "unet": jax.jit(unet.init)(keys[2], x, jnp.zeros(8), jnp.zeros((8, 6, 8)))["params"],
        "text_encoder": jax.jit(text.init)(keys[3], ids)["params"],
    }
    times = objectives.stratified_times
    objective = objectives.denoising(unet, kind="v_prediction", schedule=Schedule(), times=times)
    condition = text_condition(text, drop=0.1, empty=ids[0])
    task = Task("both", params, objective, Everything(), condition)
    settings = dict(steps=60, rate=1e-2, schedule="constant_with_warmup", warmup=2)
    losses, now = train(task, {"latent": x, "ids": ids}, **settings)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), now.trained["text_encoder"],
                         params["text_encoder"])  # fmt: skip
    assert max(jax.tree.leaves(moved)) > 0
