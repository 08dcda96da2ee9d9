"""Keys, shapes and parameter counts of the published models, without allocating any."""

import gzip
import json

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.models import AutoencoderKL, CLIPText, CLIPVision, UNet

from .reference import GOLDEN, our_shape, shapes_of, tree_path

UNETS = {
    "sd15_unet": 859_520_964,
    "sd15_inpaint_unet": 859_535_364,
    "instruct_pix2pix_unet": 859_532_484,
    "sd21_768_unet": 865_910_724,
    "sdxl_unet": 2_567_463_684,
}


def published(name):
    return json.loads(gzip.decompress((GOLDEN / "16_key_shapes" / f"{name}.json.gz").read_bytes()))


def expected(keys):
    shapes = {}
    for key, shape in keys.items():
        if key.endswith("position_ids"):
            continue
        embedding = key.endswith("_embedding.weight") and len(shape) == 2
        path = tree_path(key, len(shape), embedding)
        shapes[path] = our_shape(path[-1], shape)
    return shapes


def check(ours, record, count):
    assert ours == expected(record["keys"])
    assert sum(int(np.prod(shape)) for shape in ours.values()) == count


@pytest.mark.parametrize("name", UNETS)
def test_unets(name):
    record = published(name)
    unet = UNet.from_config(record["config"])
    x = jnp.zeros((1, 16, 16, unet.in_channels))
    text = jnp.zeros((1, 8, unet.context_width))
    added = {"text_embeds": jnp.zeros((1, 1280)), "time_ids": jnp.zeros((1, 6))}
    added = added if name.startswith("sdxl") else None
    check(shapes_of(unet, x, 0, text, added=added), record, UNETS[name])


@pytest.mark.parametrize("name", ["sd15_vae", "sdxl_vae"])
def test_autoencoders(name):
    record = published(name)
    vae = AutoencoderKL.from_config(record["config"])
    check(shapes_of(vae, jnp.zeros((1, 64, 64, 3))), record, 83_653_863)
    assert vae.scaling_factor == (0.13025 if name == "sdxl_vae" else 0.18215)


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("sd15_text_encoder", 123_060_480, {}),
        ("sdxl_text_encoder", 123_060_480, {}),
        ("sdxl_text_encoder_2", 694_659_840, {"with_projection": True}),
    ],
)
def test_text_encoders(name, count, options):
    record = published(name)
    text = CLIPText.from_config(record["config"], **options)
    check(shapes_of(text, jnp.zeros((1, 77), jnp.int32)), record, count)


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("clip_vit_l14_vision", 303_179_776, {}),
        ("clip_vit_l14_vision_projection", 303_966_208, {"with_projection": True}),
    ],
)
def test_image_encoders(name, count, options):
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
    sizes |= {"num_attention_heads": 16, "patch_size": 14, "projection_dim": 768}
    vision = CLIPVision.from_config(sizes, **options)
    check(shapes_of(vision, jnp.zeros((1, 224, 224, 3))), published(name), count)


def test_openclip_vit_h_as_stable_diffusion_2_ships_it():
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
    text = CLIPText.from_config(sizes | {"num_attention_heads": 16, "hidden_act": "gelu"})
    shapes = shapes_of(text, jnp.zeros((1, 77), jnp.int32))
    assert len(shapes) == 372
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 340_387_840
