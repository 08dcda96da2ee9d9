"""Names: the rule and its inverse, and every layout against diffusers' own converters."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffedit_jax.checkpoints.tables import clip, unet, vae
from diffedit_jax.checkpoints.tables.names import key_of, path_of, to_ours, to_torch, torch_shape
from diffedit_jax.checkpoints.tables.table import substitute
from diffedit_jax.errors import UserError

from .golden import hollow, numbered, published, same

COMPONENTS = [
    *("sd15_unet", "sd21_768_unet", "sdxl_unet", "sd15_vae", "sd15_text_encoder"),
    *("sdxl_text_encoder_2", "clip_vit_l14_vision_projection"),
]
UNETS = ["sd15_unet", "sd15_inpaint_unet", "instruct_pix2pix_unet", "sd21_768_unet", "sdxl_unet"]


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_rule_inverts(name):
    keys = published(name)["keys"]
    paths = {path_of(key) for key in keys}
    assert len(paths) == len(keys)
    assert {key_of(path_of(key)) for key in keys} == set(keys)


def test_the_rule_by_example():
    assert path_of("down_blocks.0.resnets.1.conv1.weight") == (
        *("down_blocks_0", "resnets_1", "conv1", "kernel"),
    )
    assert path_of("a.attn1.to_out.0.bias") == ("a", "attn1", "to_out_0", "bias")
    assert path_of("ff.net.0.proj.weight") == ("ff", "net_0", "proj", "kernel")
    assert path_of("time_embedding.linear_1.weight")[-2:] == ("linear_1", "kernel")
    assert path_of("encoder.layers.3.layer_norm1.weight")[-2:] == ("layer_norm1", "scale")
    assert path_of("embeddings.token_embedding.weight")[-1] == "embedding"
    assert key_of(("time_embedding", "linear_1", "kernel")) == "time_embedding.linear_1.weight"


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2, 4), (3,), ()])
@pytest.mark.parametrize("leaf", ["kernel", "scale", "bias", "embedding"])
def test_axes_invert(shape, leaf):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    ours = to_ours(array, leaf)
    np.testing.assert_array_equal(to_torch(ours, leaf), array)
    assert torch_shape(ours.shape, leaf) == shape


def to_ldm(name):
    """The published UNet or VAE as hollow weights under LDM names, by our pairs reversed."""
    weights = hollow(published(name)["keys"])
    if name.endswith("unet"):
        pairs = unet.unet_pairs(unet.canonical_shape(weights))
    else:
        pairs = vae.vae_pairs(*vae.canonical_shape(weights))
    found, unknown = substitute(weights, {new: old for old, new in pairs.items()})
    assert not unknown and len(found) == len(weights)
    return found, weights


@pytest.mark.parametrize("name", UNETS)
def test_ldm_unets_as_diffusers_converts_them(name):
    tools = pytest.importorskip("diffusers.loaders.single_file_utils")
    ldm, canonical = to_ldm(name)
    config = {"layers_per_block": 2, **published(name)["config"]}
    config = {"class_embed_type": None, "addition_embed_type": None, **config}
    prefixed = {f"model.diffusion_model.{key}": array for key, array in ldm.items()}
    theirs = tools.convert_ldm_unet_checkpoint(prefixed, config)
    ours, unknown = substitute(ldm, unet.unet_pairs(unet.unet_shape(ldm)))
    assert not unknown
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    assert ours.keys() == canonical.keys()


@pytest.mark.parametrize("name", ["sd15_vae", "sdxl_vae"])
def test_ldm_vaes_as_diffusers_converts_them(name):
    tools = pytest.importorskip("diffusers.loaders.single_file_utils")
    torch = pytest.importorskip("torch")
    ldm, canonical = to_ldm(name)
    tensors = {
        f"first_stage_model.{k}": torch.empty(v.shape, device="meta") for k, v in ldm.items()
    }
    theirs = tools.convert_ldm_vae_checkpoint(tensors, published(name)["config"])
    ours, unknown = substitute(ldm, vae.vae_pairs(*vae.vae_shape(ldm)))
    assert not unknown and ours.keys() == theirs.keys()
    assert vae.VAE(ours).keys() == vae.VAE(canonical).keys()


def test_ldm_pairs_are_one_to_one():
    for pairs in (unet.unet_pairs(unet.UNetShape(2, (1, 1, 1, 0))), vae.vae_pairs(4, 2)):
        assert len(set(pairs.values())) == len(pairs)


def test_the_vae_names_of_2022():
    old = published("sd15_vae_classic_names")["keys"]
    new = published("sd15_vae")["keys"]
    assert any(key.endswith("proj_attn.weight") for key in old)
    renamed = vae.VAE(hollow(old))
    assert {key: list(array.shape) for key, array in renamed.items()} == new


def test_square_convolutions_of_the_vae_attention_are_matrices():
    place = "decoder.mid_block.attentions.0"
    renamed = vae.VAE(
        numbered({f"{place}.query.weight": (4, 4, 1, 1), f"{place}.query.bias": (4,)})
    )
    assert renamed[f"{place}.to_q.weight"].shape == (4, 4)


def test_clip_prefix_and_buffers():
    keys = published("sd15_text_encoder")["keys"]
    weights = clip.CLIP_TEXT(hollow(keys))
    assert not any(key.startswith("text_model.") or "position_ids" in key for key in weights)
    assert clip.CLIP_TEXT(weights).keys() == weights.keys()


def test_two_names_for_one_weight_are_refused():
    both = numbered({"text_model.final_layer_norm.bias": (2,), "final_layer_norm.bias": (2,)})
    with pytest.raises(UserError, match="twice"):
        clip.CLIP_TEXT(both, "file")


def open_clip(layers: int = 3, width: int = 4) -> dict:
    """A tiny OpenCLIP text tower, as in a Stable Diffusion 2 file."""
    shapes = {
        "positional_embedding": (7, width),
        "token_embedding.weight": (11, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for n in range(layers):
        block = {
            "ln_1.weight": (width,), "ln_1.bias": (width,),
            "ln_2.weight": (width,), "ln_2.bias": (width,),
            "attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,),
            "attn.out_proj.weight": (width, width), "attn.out_proj.bias": (width,),
            "mlp.c_fc.weight": (2 * width, width), "mlp.c_fc.bias": (2 * width,),
            "mlp.c_proj.weight": (width, 2 * width), "mlp.c_proj.bias": (width,),
        }  # fmt: skip
        shapes |= {f"transformer.resblocks.{n}.{key}": shape for key, shape in block.items()}
    return numbered(shapes)


@pytest.mark.parametrize("penultimate", [True, False])
def test_open_clip_as_diffusers_converts_it(penultimate):
    tools = pytest.importorskip("diffusers.loaders.single_file_utils")
    torch = pytest.importorskip("torch")
    weights = open_clip()
    prefix = "cond_stage_model.model." if penultimate else "conditioner.embedders.1.model."
    tensors = {prefix + key: torch.from_numpy(value.copy()) for key, value in weights.items()}
    layers = 2 if penultimate else 3
    shell = SimpleNamespace(config=SimpleNamespace(num_hidden_layers=layers, hidden_size=4))
    theirs = tools.convert_open_clip_checkpoint(shell, tensors, prefix=prefix)
    theirs = {key.removeprefix("text_model."): value.numpy() for key, value in theirs.items()}
    ours = clip.from_open_clip(weights, "file", penultimate=penultimate)
    unused = [key for key in theirs if key.startswith("encoder.layers.2.") and penultimate]
    same({key: value for key, value in theirs.items() if key not in unused}, ours)


@pytest.mark.parametrize("penultimate", [True, False])
def test_open_clip_there_and_back(penultimate):
    ours = clip.from_open_clip(open_clip(), "file", penultimate=penultimate)
    again = clip.to_open_clip(ours, penultimate=penultimate)
    same(clip.from_open_clip(again, "file", penultimate=penultimate), ours)
    assert again.keys() == open_clip().keys() - {"logit_scale"}


def test_a_fused_weight_that_does_not_split():
    broken = open_clip() | {"transformer.resblocks.0.attn.in_proj_bias": np.zeros(10, np.float32)}
    with pytest.raises(UserError, match="in_proj_bias"):
        clip.from_open_clip(broken, "file", penultimate=True)
