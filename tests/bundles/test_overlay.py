"""Models that ship only what they change of another."""

import json

import jax
import numpy as np
import pytest

from diffedit_jax.bundles import load
from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError
from diffedit_jax.training.tasks.instruct_pix2pix import widened
from diffedit_jax.training.tasks.paint_by_example import by_example
from tests.golden_models import GOLDEN

BASE = GOLDEN / "12_pipelines" / "sd1"


@pytest.fixture
def folder(tmp_path):
    """The tiny model with a wider first convolution and nothing else changed."""
    wide = widened(load(BASE))
    own = {k: x + 1 for k, x in export(wide.denoiser.params).items() if k == "conv_in.weight"}
    (tmp_path / "unet").mkdir()
    write_safetensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", own)
    (tmp_path / "unet" / "config.json").write_text(json.dumps(wide.configs["unet"]))
    (tmp_path / "base.json").write_text(json.dumps({"base": str(BASE)}))
    return tmp_path


def test_an_overlay_is_its_base_but_for_what_it_holds(folder):
    base, found = load(BASE), load(folder)
    assert found.in_channels == 8 and base.in_channels == 4
    old, new = (m.denoiser.params["conv_in"]["kernel"] for m in (base, found))
    np.testing.assert_allclose(new[:, :, :4], old + 1, rtol=1e-6)
    np.testing.assert_array_equal(new[:, :, 4:], 1)
    rest = [{k: v for k, v in m.denoiser.params.items() if k != "conv_in"} for m in (base, found)]
    jax.tree.map(np.testing.assert_array_equal, *rest)
    jax.tree.map(np.testing.assert_array_equal, base.vae.params, found.vae.params)
    assert base.origin["digest"] != found.origin["digest"]


def test_an_overlay_that_fits_no_base_or_changes_nothing_is_refused(folder):
    (folder / "base.json").write_text("{}")
    with pytest.raises(UserError, match="base"):
        load(folder)
    (folder / "base.json").write_text(json.dumps({"base": str(BASE)}))
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(UserError, match="no unet/"):
        load(folder)


def test_an_overlay_with_an_image_encoder_is_told_by_pictures(tmp_path):
    wide = by_example(load(BASE), "emoji", seed=0)
    parts = {"unet": {"conv_in.weight": export(wide.denoiser.params)["conv_in.weight"]},
             "image_encoder": export(wide.exemplar.params)}  # fmt: skip
    files = {"unet": "diffusion_pytorch_model.safetensors", "image_encoder": "model.safetensors"}
    for name, tensors in parts.items():
        (tmp_path / name).mkdir()
        write_safetensors(tmp_path / name / files[name], tensors)
        (tmp_path / name / "config.json").write_text(json.dumps(wide.configs[name]))
    (tmp_path / "base.json").write_text(json.dumps({"base": str(BASE)}))
    found = load(tmp_path)
    assert found.in_channels == 9 and not found.texts and not found.tokenizers
    assert found.configs.keys() == wide.configs.keys()
    jax.tree.map(np.testing.assert_array_equal, found.exemplar.params, wide.exemplar.params)
    jax.tree.map(np.testing.assert_array_equal, found.denoiser.params, wide.denoiser.params)
