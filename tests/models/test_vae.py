"""The autoencoder against diffusers, and its tiles against the whole picture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.models import AutoencoderKL
from diffedit_jax.models.vae_tiles import blend_tiles, ramp, tile_starts

from .reference import golden_model, nhwc, relative, torch_params

TINY = {
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def test_recorded_moments_and_pictures(forward_golden):
    vae, params = golden_model(AutoencoderKL, "vae")
    mean, logvar = vae.apply(params, nhwc(forward_golden["vae_image"]), method="encode")
    assert relative(mean, nhwc(forward_golden["vae_mean"])) < 2e-5
    assert relative(logvar, nhwc(forward_golden["vae_logvar"])) < 2e-5
    picture = vae.apply(params, nhwc(forward_golden["vae_latent"]), method="decode")
    assert relative(picture, nhwc(forward_golden["vae_decoded_f64"])) < 2e-5


def live(**more):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    return torch, diffusers.AutoencoderKL(**(TINY | more)).eval()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"layers_per_block": 2, "latent_channels": 16},
        {"use_quant_conv": False, "use_post_quant_conv": False},
        {"mid_block_add_attention": False},
    ],
)
@pytest.mark.parametrize("size", [(32, 24), (36, 28)])
def test_live_parity(more, size):
    torch, model = live(**more)
    x = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    with torch.no_grad():
        posterior = model.encode(torch.from_numpy(x)).latent_dist
        picture = model.decode(posterior.mean).sample
    vae, params = AutoencoderKL.from_config(dict(model.config)), torch_params(model)
    mean, logvar = vae.apply(params, nhwc(x), method="encode")
    assert relative(mean, nhwc(posterior.mean)) < 2e-5
    assert relative(logvar, nhwc(posterior.logvar)) < 2e-5
    ours = vae.apply(params, nhwc(posterior.mean), method="decode")
    assert relative(ours, nhwc(picture)) < 2e-5


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_match_torch(remat):
    torch, model = live()
    x = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    leaf = torch.from_numpy(x).requires_grad_()
    model.decode(model.encode(leaf).latent_dist.mean).sample.square().mean().backward()
    vae = AutoencoderKL.from_config(dict(model.config), remat=remat)
    params = torch_params(model)
    ours = jax.grad(lambda x: jnp.square(vae.apply(params, x)).mean())(nhwc(x))
    assert relative(ours, nhwc(leaf.grad)) < 1e-4


def test_log_variance_is_clamped():
    vae, params = golden_model(AutoencoderKL, "vae")
    _, logvar = vae.apply(params, jnp.full((1, 16, 16, 3), 1e4), method="encode")
    assert float(logvar.min()) >= -30 and float(logvar.max()) <= 20


@pytest.mark.parametrize(("length", "tile", "overlap", "multiple"), [
    (64, 64, 16, 1), (65, 64, 16, 1), (100, 64, 16, 1), (200, 64, 0, 8), (136, 64, 24, 8),
    (513, 64, 16, 1), (1048, 512, 128, 8),
])  # fmt: skip
def test_tiles_cover_everything_and_overlap(length, tile, overlap, multiple):
    starts = tile_starts(length, tile, overlap, multiple)
    assert starts[0] == 0 and starts[-1] == length - tile and not (starts % multiple).any()
    assert (np.diff(starts) <= tile - overlap + multiple).all()


@pytest.mark.parametrize(("size", "tile", "overlap"), [((40, 56), 24, 8), ((24, 24), 24, 8)])
def test_blending_tiles_of_a_pointwise_function_is_that_function(size, tile, overlap):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3))
    whole = jnp.sin(x) + 2
    tiles = blend_tiles(lambda part: jnp.sin(part) + 2, x, tile, overlap, 1, 1)
    np.testing.assert_allclose(tiles, whole, rtol=1e-5)


def test_blending_tiles_of_a_change_of_scale_puts_every_cell_in_its_place():
    x = jax.random.normal(jax.random.key(0), (1, 40, 32, 2))

    def grow(part):
        return jnp.repeat(jnp.repeat(part, 4, 1), 4, 2)

    def shrink(part):
        return part[:, ::4, ::4]

    np.testing.assert_allclose(blend_tiles(grow, x, 16, 4, 4, 1), grow(x), rtol=1e-5)
    np.testing.assert_allclose(blend_tiles(shrink, x, 16, 4, 1, 4), shrink(x), rtol=1e-5)


def test_weights_rise_from_the_edge_and_never_vanish():
    weights = ramp(16, 4)
    assert weights.min() > 0 and weights.max() == 1
    assert (np.diff(weights[:8]) >= 0).all() and (weights == weights[::-1]).all()


@pytest.fixture(scope="module")
def waves():
    """A picture of waves that fit every tile, and the autoencoder that sees it."""
    vae, params = golden_model(AutoencoderKL, "vae")
    rows, columns = jnp.meshgrid(jnp.arange(160.0), jnp.arange(160.0), indexing="ij")
    waves = (jnp.sin(rows * jnp.pi / 16), jnp.cos(columns * jnp.pi / 8))
    return vae, params, jnp.stack([*waves, jnp.sin((rows + columns) * jnp.pi / 16)], -1)[None]


def test_tiled_equals_whole_when_one_tile_is_enough(waves):
    vae, params, picture = waves
    mean, logvar = vae.apply(params, picture, method="encode")
    tiled = vae.apply(params, picture, method="tiled_encode")
    np.testing.assert_array_equal(tiled[0], mean)
    np.testing.assert_array_equal(tiled[1], logvar)
    whole = vae.apply(params, mean, method="decode")
    np.testing.assert_array_equal(vae.apply(params, mean, method="tiled_decode"), whole)


def test_tiled_agrees_with_whole_where_tiles_see_what_the_whole_sees(waves):
    """Tiles have their own group norm and attention; waves that fit make these nearly equal.

    What is left comes from the zeros around each tile. Bound: root mean square difference below
    15 % of the whole's standard deviation, for random weights and small tiles (worst case).
    """
    vae, params, picture = waves
    mean, _ = vae.apply(params, picture, method="encode")
    tiled, _ = vae.apply(params, picture, 96, 32, method="tiled_encode")
    assert tiled.shape == mean.shape
    assert float(jnp.sqrt(jnp.mean((tiled - mean) ** 2)) / mean.std()) < 0.15
    whole = vae.apply(params, mean, method="decode")
    pieces = vae.apply(params, mean, 24, 8, method="tiled_decode")
    assert pieces.shape == picture.shape
    assert float(jnp.sqrt(jnp.mean((pieces - whole) ** 2)) / whole.std()) < 0.15


@pytest.mark.parametrize("numbers", [{"dtype": jnp.bfloat16}, {"operands": jnp.bfloat16}])
def test_bfloat16_stays_finite_and_close(numbers, forward_golden):
    vae, params = golden_model(AutoencoderKL, "vae")
    x = nhwc(forward_golden["vae_image"])
    exact, ours = vae.apply(params, x), vae.clone(**numbers).apply(params, x)
    assert ours.dtype == jnp.float32 and relative(ours, exact) < 0.1


def test_old_configs_get_the_default_scale():
    assert AutoencoderKL.from_config({}).scaling_factor == 0.18215


@pytest.mark.parametrize(
    "entry",
    [{"act_fn": "relu"}, {"down_block_types": ["AttnDownEncoderBlock2D"]}, {"latents_mean": [0.0]}],
)
def test_values_that_cannot_be_honoured_are_named(entry):
    with pytest.raises(UserError, match=next(iter(entry))):
        AutoencoderKL.from_config(entry)
