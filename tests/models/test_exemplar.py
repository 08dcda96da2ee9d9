"""Paint by Example's encoder against the official one, from both layouts of its weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.bundles.build import build, expected_params, make_module
from diffedit_jax.checkpoints.load import check, export
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.tables.exemplar import (
    EXEMPLAR,
    classic,
    exemplar_config,
    from_original,
    to_original,
)
from diffedit_jax.models import Exemplar
from tests.golden_models import GOLDEN

PLACE = GOLDEN / "09_paint_by_example"
CONFIG = json.loads((PLACE / "image_encoder" / "config.json").read_text())


@pytest.fixture(scope="module")
def case():
    return dict(np.load(PLACE / "pbe.npz"))


def weights_of(layout):
    folder = read(PLACE / "image_encoder" / "model.safetensors")
    if layout == "classic":
        return EXEMPLAR(folder)
    if layout == "flat":
        rest = {k: v for k, v in folder.items() if not k.startswith("model.")}
        return EXEMPLAR(rest | read(PLACE / "image_encoder_vision_flat.safetensors"))
    return from_original(read(PLACE / "original_cond_stage.safetensors"), "the file")


@pytest.mark.parametrize("layout", ["classic", "flat", "original"])
def test_pictures_are_encoded_as_officially(layout, case, highest):
    parts = Parts("golden", {"image_encoder": weights_of(layout)}, {"image_encoder": CONFIG})
    module, params = build(parts, "image_encoder")
    pixels = jnp.asarray(np.moveaxis(case["enc_pixel_values"], 1, -1))
    found = module.apply({"params": params}, pixels)
    np.testing.assert_allclose(found, case["enc_context"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(found, case["enc_context_official_repo"], atol=2e-5, rtol=0)
    np.testing.assert_array_equal(params["uncond_vector"], case["uncond_vector"])
    tokens, more = module.apply({"params": params}, pixels, method=lambda m, x: m.model(x))
    np.testing.assert_allclose(tokens, case["enc_last_hidden_state"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(more["pooled"], case["enc_pooled"], atol=2e-5, rtol=0)


def test_the_layouts_are_the_same_tensors_and_come_back():
    ours = weights_of("classic")
    for layout in ("flat", "original"):
        other = weights_of(layout)
        assert ours.keys() == other.keys()
        assert all(np.array_equal(ours[k], other[k]) for k in ours)
    for name, written in (("image_encoder/model.safetensors", classic(ours)),
                          ("original_cond_stage.safetensors", to_original(ours))):  # fmt: skip
        official = read(PLACE / name)
        assert official.keys() == written.keys()
        assert all(np.array_equal(official[k], written[k]) for k in official)


def test_the_parameters_go_out_as_they_came_in():
    parts = Parts("golden", {"image_encoder": weights_of("flat")}, {"image_encoder": CONFIG})
    _, params = build(parts, "image_encoder")
    again = export(params)
    assert again.keys() == parts.weights["image_encoder"].keys()
    assert all(np.array_equal(v, parts.weights["image_encoder"][k]) for k, v in again.items())


def test_the_published_encoder_has_its_size():
    """ViT-L/14 with five mapper blocks: 476 tensors, 366,950,912 parameters."""
    config = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
              "num_attention_heads": 16, "image_size": 224, "patch_size": 14,
              "projection_dim": 768, "architectures": ["PaintByExampleImageEncoder"]}  # fmt: skip
    module = make_module("image_encoder", config, {}, "the encoder")
    leaves = jax.tree.leaves(expected_params("image_encoder", module, "the encoder"))
    assert len(leaves) == 476
    assert sum(leaf.size for leaf in leaves) == 366_950_912


def test_shapes_tell_the_config():
    weights = weights_of("original")
    found = exemplar_config(weights)
    told = {k: v for k, v in found.items() if k != "num_attention_heads"}  # no shape tells it
    assert told == {k: CONFIG[k] for k in told}
    module = Exemplar.from_config(found)
    check(expected_params("image_encoder", module, "the file"), weights, "the file")
