"""Sources of every kind, and one line for each that cannot be loaded."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.bundles import load, save
from diffedit_jax.bundles.build import LIMITS
from diffedit_jax.bundles.loading import read_parts
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

from .conftest import PIPELINES, loaded

FILES = ["sd1_single.safetensors", "sd1_single.ckpt"]


def equal(first, second):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", ["sd1_bin", "sd1_single.safetensors", "sd1_single.ckpt"])
def test_every_form_gives_the_same_model(name):
    config = PIPELINES / "sd1" if "single" in name else None
    equal(load(PIPELINES / name, config=config), loaded("sd1"))


def test_variants_are_kept_in_float32():
    model = loaded("sd1_fp16_variant")
    leaves = jax.tree.leaves(model)
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    for ours, whole in zip(leaves, jax.tree.leaves(loaded("sd1")), strict=True):
        np.testing.assert_array_equal(ours, np.asarray(whole).astype(np.float16))


def test_dtypes():
    model = load(PIPELINES / "sd1", dtype="bfloat16", param_dtype="bfloat16")
    assert model.denoiser.module.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(model))
    assert loaded("sd1").denoiser.module.dtype == jnp.float32
    with pytest.raises(UserError, match="dtype must be"):
        load(PIPELINES / "sd1", dtype="float16")


def test_what_the_caller_says_it_predicts():
    model = load(PIPELINES / "sd1", prediction_type="v_prediction")
    assert model.denoiser.kind == "v_prediction"
    assert model.origin["options"] == {"prediction_type": "v_prediction"}
    with pytest.raises(UserError, match="prediction_type must be"):
        load(PIPELINES / "sd1", prediction_type="flow")


def test_the_origin_tells_models_apart():
    digests = {loaded(name).origin["digest"] for name in ("sd1", "sd2", "ip2p")}
    assert len(digests) == 3
    assert loaded("sd1_bin").origin["digest"] == loaded("sd1").origin["digest"]
    json.dumps(loaded("sd1").origin)


@pytest.mark.parametrize("source, message", [
    ("nothing.safetensors", "there is no model 'nothing.safetensors'"),
    ("no such", "nor an id of the form org/name"),
    (PIPELINES / "sd1" / "unet" / "config.json", "neither a safetensors nor a torch file"),
    (PIPELINES / "must_be_refused.ckpt", "posix.getcwd"),
    (PIPELINES / "sd1" / "unet", "model_index.json"),
])  # fmt: skip
def test_sources_that_are_no_model(source, message):
    with pytest.raises(UserError, match=message) as caught:
        load(source, local_files_only=True)
    assert "\n" not in str(caught.value)


def test_a_file_without_half_a_network():
    with pytest.raises(UserError, match=r"vae of .*86 tensors do not fit: decoder.conv_in.bias"):
        load(PIPELINES / "legacy_zipless.ckpt", config=PIPELINES / "sd1")


def test_a_file_of_one_network():
    with pytest.raises(UserError, match="has no vae, no text_encoder"):
        load(PIPELINES / "ip2p_unet_with_ema.ckpt", config=PIPELINES / "ip2p")


@pytest.mark.parametrize("name", FILES)
def test_a_single_file_without_a_tokenizer(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(UserError, match="tokenizer .*config="):
        load(PIPELINES / name, local_files_only=True)


def test_a_tokenizer_beside_a_single_file(tmp_path):
    shutil.copytree(PIPELINES / "sd1" / "tokenizer", tmp_path / "tokenizer")
    shutil.copy(PIPELINES / "sd1_single.ckpt", tmp_path / "model.ckpt")
    parts = read_parts(tmp_path / "model.ckpt")
    assert parts.tokenizers == [tmp_path / "tokenizer"]


def test_a_variant_of_a_single_file():
    with pytest.raises(UserError, match="variant= is for folders"):
        load(PIPELINES / "sd1_single.ckpt", variant="fp16")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(PIPELINES / "sd1", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def test_nan_weights(model):
    path = model / "unet" / "diffusion_pytorch_model.safetensors"
    weights = {key: value.copy() for key, value in read(path).items()}
    weights["conv_in.bias"][0] = np.nan
    path.unlink()
    write_safetensors(path, weights)
    with pytest.raises(UserError, match="conv_in.bias holds NaN"):
        load(model)


def test_components_of_different_models(model):
    shutil.rmtree(model / "text_encoder")
    shutil.copytree(PIPELINES / "sd2" / "text_encoder", model / "text_encoder")
    with pytest.raises(UserError, match="do not belong together"):
        load(model)


@pytest.mark.parametrize("key, value", [
    ("block_out_channels", "abc"),
    ("block_out_channels", []),
    ("block_out_channels", [4] * 1000),
    ("block_out_channels", [4, 10**12]),
    ("block_out_channels", [4, -8]),
    ("layers_per_block", 10**9),
    ("layers_per_block", -1),
    ("norm_num_groups", 0),
    ("norm_num_groups", 3),
    ("cross_attention_dim", None),
    ("attention_head_dim", 0),
    ("attention_head_dim", {"a": 1}),
    ("in_channels", 1.5),
    ("in_channels", 10**12),
    ("down_block_types", ["os.system", "DownBlock2D"]),
    ("down_block_types", 7),
    ("act_fn", "exec"),
])  # fmt: skip
def test_configs_that_describe_no_network(model, key, value):
    path = model / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(UserError) as caught:
        load(model)
    assert "unet of" in str(caught.value) and "\n" not in str(caught.value)


def test_limits_admit_the_published_models():
    assert LIMITS["num_hidden_layers"] >= 32 and LIMITS["transformer_layers_per_block"] >= 10


def test_no_torch_and_no_transformers_models(tmp_path):
    """Loading and tokenizing in a process that has no torch at all."""
    script = (
        "import sys; sys.modules['torch'] = None; sys.modules['diffusers'] = None\n"
        "from diffedit_jax.bundles import load\n"
        f"model = load({str(PIPELINES / 'sd1_single.ckpt')!r}, config={str(PIPELINES / 'sd1')!r})\n"
        "assert 'transformers' not in sys.modules\n"
        "print(model.tokenize(['a cat'])[0, :4])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0 and done.stdout.startswith("[652"), done.stderr
    assert done.stderr == ""


def test_a_folder_may_recommend_numbers(tmp_path):
    shutil.copytree(PIPELINES / "sd1", tmp_path / "model")
    (tmp_path / "model" / "defaults.json").write_text('{"guidance": 3.0, "steps": 20}')
    model = load(tmp_path / "model")
    assert {"guidance": 3.0, "steps": 20}.items() <= model.defaults.items()
    save(model, tmp_path / "again")
    assert load(tmp_path / "again").defaults == model.defaults


@pytest.mark.parametrize("said", ['{"guidance": "high"}', '{"seed": 3}', '{"steps": true}', "[3]"])
def test_recommendations_that_are_no_numbers_are_refused(said, tmp_path):
    shutil.copytree(PIPELINES / "sd1", tmp_path / "model")
    (tmp_path / "model" / "defaults.json").write_text(said)
    with pytest.raises(UserError, match=r"defaults\.json"):
        load(tmp_path / "model")
