"""The UNet against diffusers (recorded and live), and the laws of its interface."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffedit_jax.core.control import Control
from diffedit_jax.errors import UserError
from diffedit_jax.models import UNet

from .reference import golden_model, nhwc, relative, torch_params

CROSS = {"down": "CrossAttnDownBlock2D", "up": "CrossAttnUpBlock2D"}
PLAIN = {"down": "DownBlock2D", "up": "UpBlock2D"}
TINY = {
    "sample_size": 16,
    "block_out_channels": (8, 16, 16),
    "down_block_types": (CROSS["down"], CROSS["down"], PLAIN["down"]),
    "up_block_types": (PLAIN["up"], CROSS["up"], CROSS["up"]),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
}
VARIANTS = {
    "sd2": {
        "use_linear_projection": True,
        "attention_head_dim": [1, 2, 4],
        "upcast_attention": True,
    },
    "inpaint": {"in_channels": 9, "layers_per_block": 2},
    "pix2pix": {"in_channels": 8},
    "emoji": {
        "down_block_types": (PLAIN["down"], CROSS["down"], CROSS["down"]),
        "up_block_types": (CROSS["up"], CROSS["up"], PLAIN["up"]),
    },
    "sdxl": {
        "block_out_channels": (8, 16, 32),
        "down_block_types": (PLAIN["down"], CROSS["down"], CROSS["down"]),
        "up_block_types": (CROSS["up"], CROSS["up"], PLAIN["up"]),
        "attention_head_dim": [1, 2, 4],
        "use_linear_projection": True,
        "transformer_layers_per_block": [1, 2, 3],
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 10,
        "upcast_attention": None,
    },
    "deep": {"layers_per_block": [1, 2, 1], "freq_shift": 1, "flip_sin_to_cos": False},
}


@pytest.mark.parametrize("name", ["sd1", "ip2p", "inpaint"])
def test_recorded_outputs(name, forward_golden):
    unet, params = golden_model(UNet, f"unet_{name}")
    for tag in (name, f"{name}_odd"):
        x, t, text = (jnp.asarray(forward_golden[f"{tag}_{part}"]) for part in ("x", "t", "ctx"))
        out, _ = unet.apply(params, nhwc(x), t, text)
        assert out.dtype == jnp.float32
        assert relative(out, nhwc(forward_golden[f"{tag}_out_f64"])) < 2e-5


def test_recorded_outputs_with_a_mask_and_a_fractional_time(forward_golden):
    unet, params = golden_model(UNet, "unet_sd1")
    x, text = nhwc(forward_golden["mask_x"]), jnp.asarray(forward_golden["mask_ctx"])
    keep = jnp.asarray(forward_golden["mask_keep"])
    masked, _ = unet.apply(params, x, 401, text, context_mask=keep)
    assert relative(masked, nhwc(forward_golden["mask_out"])) < 2e-5
    between, _ = unet.apply(params, x, 401.5, text)
    assert relative(between, nhwc(forward_golden["fractional_t_out"])) < 2e-5


def live(variant, seed=0):
    """A diffusers UNet with random weights everywhere, biases and norms included."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(seed)
    model = diffusers.UNet2DConditionModel(**(TINY | VARIANTS[variant])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return torch, model


def inputs(torch, model, size=(16, 12)):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, model.config.in_channels, *size)).astype(np.float32)
    text = rng.normal(size=(2, 7, 12)).astype(np.float32)
    added = None
    if model.config.addition_embed_type:
        ids = np.array([[64, 64, 0, 4, 64, 64], [32, 48, 8, 0, 64, 64]], np.float32)
        added = {"text_embeds": rng.normal(size=(2, 10)).astype(np.float32), "time_ids": ids}
    return x, np.array([3, 801]), text, added


def tensors(torch, tree):
    return jax.tree.map(torch.from_numpy, tree)


@pytest.mark.parametrize(
    ("variant", "size"),
    [(name, (16, 12)) for name in VARIANTS] + [("sd2", (13, 11)), ("sdxl", (15, 10))],
)
def test_live_parity(variant, size):
    torch, model = live(variant)
    x, t, text, added = inputs(torch, model, size)
    with torch.no_grad():
        more = tensors(torch, added)
        theirs = model(*tensors(torch, (x, t, text)), added_cond_kwargs=more).sample
    unet = UNet.from_config(dict(model.config))
    added = None if added is None else jax.tree.map(jnp.asarray, added)
    ours, _ = unet.apply(torch_params(model), nhwc(x), t, jnp.asarray(text), added=added)
    assert relative(ours, nhwc(theirs)) < 2e-5


@pytest.mark.parametrize("remat", [False, True])
def test_gradients_match_torch(remat, quick_compile):
    torch, model = live("sd2")
    x, t, text, _ = inputs(torch, model)
    leaves = tensors(torch, (x, text))
    for leaf in leaves:
        leaf.requires_grad_()
    model(leaves[0], torch.from_numpy(t), leaves[1]).sample.square().mean().backward()
    unet = UNet.from_config(dict(model.config), remat=remat)

    def loss(params, x, text):
        return jnp.square(unet.apply(params, x, t, text)[0]).mean()

    run = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    to_params, to_x, to_text = run(torch_params(model), nhwc(x), jnp.asarray(text))
    assert relative(to_x, nhwc(leaves[0].grad)) < 1e-4
    assert relative(to_text, leaves[1].grad.numpy()) < 1e-4
    gradients = {key: part.grad for key, part in model.named_parameters()}
    theirs = torch_params(_Fake(gradients))["params"]
    assert jax.tree.structure(theirs) == jax.tree.structure(to_params["params"])
    biggest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), to_params["params"], theirs)
    assert max(jax.tree.leaves(gap)) < 1e-4 * biggest


class _Fake:
    """Gradients under their parameters' names, in the form that `torch_params` reads."""

    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return self.tensors


@pytest.fixture(scope="module")
def small():
    """A network with random weights, its inputs and its output."""
    unet = UNet(**TINY)
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 4))
    text = jax.random.normal(jax.random.key(2), (2, 7, 12))
    params = unet.init(jax.random.key(0), x, 5, text)
    return unet, params, x, text, unet.apply(params, x, 5, text)


def test_keys_and_values_stand_in_for_the_context(small):
    unet, params, x, text, (out, _) = small
    kv = unet.apply(params, text, method="keys_values")
    assert all(k.shape == v.shape and k.shape[:2] == (2, 7) for k, v in kv.values())
    np.testing.assert_allclose(unet.apply(params, x, 5, kv=kv)[0], out, atol=1e-6)


def test_one_time_for_all_rows_or_one_each(small):
    unet, params, x, text, (out, _) = small
    np.testing.assert_allclose(
        unet.apply(params, x, jnp.array([5, 5]), text)[0], out, rtol=0, atol=1e-6
    )


class Watch(Control):
    """Reads mean probabilities; scales them by `gain`, which leaves them alone at 1."""

    gain: Any = 1.0
    kind: str = struct.field(pytree_node=False, default="cross")

    def wants(self, site):
        return self.kind == site.kind

    def __call__(self, probs, site):
        return probs * self.gain, probs.mean(1)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("kind", ["cross", "self"])
def test_an_identity_rule_changes_nothing_and_reads_come_back(small, kind, remat):
    unet, params, x, text, (out, _) = small
    unet = unet.clone(remat=remat)
    same, more = unet.apply(params, x, 5, text, control=Watch(kind=kind))
    np.testing.assert_allclose(same, out, atol=2e-6)
    assert len(more["taps"]) == 2 + 1 + 4  # down, mid and up
    keys = {7} if kind == "cross" else {256, 64, 16}
    assert {read.shape[-1] for read in more["taps"].values()} == keys
    changed, _ = unet.apply(params, x, 5, text, control=Watch(gain=0.5, kind=kind))
    assert float(jnp.abs(changed - out).max()) > 1e-4


def test_sites_are_numbered_in_the_order_of_the_forward_pass(small):
    unet, params, x, text, _ = small
    seen = []

    class Spy(Control):
        def wants(self, site):
            seen.append(site)
            return False

    unet.apply(params, x, 5, text, control=Spy())
    assert [site.order for site in seen] == list(range(len(seen)))
    assert [site.kind for site in seen] == ["self", "cross"] * (len(seen) // 2)
    assert len({site.name for site in seen}) == len(seen)
    grids = [(site.place, site.height) for site in seen[::2]]
    assert grids == [("down", 16), ("down", 8), ("mid", 4)] + [("up", 8)] * 2 + [("up", 16)] * 2
    cross = {site.name for site in seen if site.kind == "cross"}
    assert cross == set(unet.apply(params, text, method="keys_values"))


def test_features_have_the_sizes_of_their_levels(small):
    *_, (_, more) = small
    shapes = {name: feature.shape[1:] for name, feature in more["features"].items()}
    assert shapes["down_0"] == (8, 8, 8) and shapes["down_2"] == shapes["mid"] == (4, 4, 16)
    assert shapes["up_0"] == (8, 8, 16) and shapes["up_2"] == (16, 16, 8)


def test_vmap_over_images_equals_one_batch(small):
    unet, params, x, text, (out, _) = small
    one = jax.vmap(lambda x, text: unet.apply(params, x[None], 5, text[None])[0][0])
    np.testing.assert_allclose(one(x, text), out, atol=2e-6)


@pytest.mark.parametrize("numbers", [{"dtype": jnp.bfloat16}, {"operands": jnp.bfloat16}])
def test_bfloat16_stays_finite_and_close(small, numbers, quick_compile):
    unet, params, x, text, (out, _) = small
    low = unet.clone(**numbers)

    def loss(params):
        got = low.apply(params, x, 5, text)[0]
        return jnp.square(got).mean(), got

    gradient, got = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert got.dtype == jnp.float32 and relative(got, out) < 0.1
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_absent_keys_mean_the_defaults_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    import inspect

    signature = inspect.signature(diffusers.UNet2DConditionModel.__init__).parameters
    unet = UNet.from_config({})
    for name in unet.__dataclass_fields__:
        if name in signature:
            assert getattr(unet, name) == signature[name].default, name


@pytest.mark.parametrize(
    "entry",
    [
        {"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"},
        {"down_block_types": ["AttnDownBlock2D"] * 4},
        {"attention_head_dim": [8, 8]},
        {"num_attention_heads": 8},
        {"class_embed_type": "timestep"},
        {"addition_embed_type": "image"},
        {"time_embedding_type": "fourier"},
    ],
)
def test_values_that_cannot_be_honoured_are_named(entry):
    with pytest.raises(UserError, match=next(iter(entry))):
        UNet.from_config(entry)


def test_a_missing_context_is_named(small):
    unet, params, x, *_ = small
    with pytest.raises(UserError, match="context"):
        unet.apply(params, x, 5)
