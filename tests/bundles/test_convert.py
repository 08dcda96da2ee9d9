"""From every form to every other, whole or not at all, and diffusers reads the result."""

import json

import jax
import numpy as np
import pytest

from diffedit_jax.bundles import convert, load, save
from diffedit_jax.bundles.loading import read_parts
from diffedit_jax.checkpoints.model_folder import read_model_folder
from diffedit_jax.checkpoints.write import whole_file, whole_folder
from diffedit_jax.errors import UserError

from ..checkpoints.golden import same
from .conftest import PIPELINES, loaded

SOURCES = ["sd1", "sd2", "ip2p", "sd1_single.ckpt", "sd1_classic_names", "sd1_bin"]


def config_for(name):
    return PIPELINES / "sd1" if "single" in name else None


def equal(first, second):
    assert first.weights.keys() == second.weights.keys()
    for name in first.weights:
        same(first.weights[name], second.weights[name])


@pytest.mark.parametrize("name", SOURCES)
def test_to_a_folder_and_back(name, tmp_path):
    source = PIPELINES / name
    notices = convert(source, tmp_path / "out", config=config_for(name))
    assert notices == []
    before = read_parts(source, config=config_for(name))
    after = read_model_folder(tmp_path / "out")
    equal(before, after)
    for name, config in before.configs.items():
        assert config.items() <= after.configs[name].items()


def test_to_a_file_and_back(tmp_path):
    convert(PIPELINES / "sd2", tmp_path / "a.safetensors")
    convert(tmp_path / "a.safetensors", tmp_path / "b", config=PIPELINES / "sd2")
    equal(read_model_folder(PIPELINES / "sd2"), read_model_folder(tmp_path / "b"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_dtypes_and_shards(dtype, tmp_path):
    convert(PIPELINES / "sd1", tmp_path / "out", dtype=dtype, shard_bytes=20_000)
    assert len(list((tmp_path / "out" / "unet").glob("*-of-*.safetensors"))) > 1
    parts = read_model_folder(tmp_path / "out")
    kinds = {str(v.dtype) for weights in parts.weights.values() for v in weights.values()}
    assert kinds == {dtype}
    for path in (tmp_path / "out").rglob("*.safetensors"):
        assert path.stat().st_size < 20_000 + 20_000


def test_saving_a_bundle(tmp_path):
    save(loaded("sd1"), tmp_path / "out")
    equal(read_model_folder(PIPELINES / "sd1"), read_model_folder(tmp_path / "out"))
    again = load(tmp_path / "out")
    assert jax.tree.structure(again).num_leaves == jax.tree.structure(loaded("sd1")).num_leaves
    assert again.tokenizers == loaded("sd1").tokenizers
    assert again.schedule == loaded("sd1").schedule


def test_targets_that_are_there(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("mine")
    (tmp_path / "a.safetensors").write_text("mine")
    for target in ("full", "a.safetensors"):
        with pytest.raises(UserError, match="is there already"):
            convert(PIPELINES / "sd1", tmp_path / target)
    assert (tmp_path / "a.safetensors").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    convert(PIPELINES / "sd1", tmp_path / "empty")
    assert (tmp_path / "empty" / "model_index.json").exists()


@pytest.mark.parametrize("name", ["a.ckpt", "a.pt", "a.bin"])
def test_only_safetensors_are_written(name, tmp_path):
    with pytest.raises(UserError, match="only safetensors"):
        convert(PIPELINES / "sd1", tmp_path / name)


def test_a_single_file_has_no_shards(tmp_path):
    with pytest.raises(UserError, match="no shards"):
        convert(PIPELINES / "sd1", tmp_path / "a.safetensors", shard_bytes=10)


def test_nothing_is_written_of_a_bad_model(tmp_path):
    with pytest.raises(UserError, match="86 tensors"):
        convert(PIPELINES / "legacy_zipless.ckpt", tmp_path / "out", config=PIPELINES / "sd1")
    with pytest.raises(UserError, match="no tokenizer"):
        bare = PIPELINES / "sd1_sharded"  # configs, and no tokenizer
        convert(PIPELINES / "sd1_single.ckpt", tmp_path / "out", config=bare)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
@pytest.mark.parametrize("error", [RuntimeError("x"), OSError(28, "No space left on device")])
def test_nothing_is_left_of_a_failure(whole, error, tmp_path):
    told = UserError if isinstance(error, OSError) else RuntimeError
    with pytest.raises(told, match="x|No space left"), whole(tmp_path / "out") as place:
        (place / "part" if place.is_dir() else place).write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in ("file/out", "file/a.safetensors"):
        with pytest.raises(UserError, match="cannot write|is there already"):
            convert(PIPELINES / "sd1", tmp_path / target)


def test_pipelines_are_named_after_their_kind(tmp_path):
    for name, kind in (("ip2p", "InstructPix2Pix"), ("inpaint", "Inpaint"), ("sd1", "")):
        convert(PIPELINES / name, tmp_path / name)
        index = json.loads((tmp_path / name / "model_index.json").read_text())
        assert index["_class_name"] == f"StableDiffusion{kind}Pipeline"


@pytest.mark.parametrize("name", ["sd1_single.ckpt", "sd2"])
def test_diffusers_loads_and_samples_what_is_written(name, tmp_path, recorded):
    """The converted folder gives diffusers the recorded trajectory's picture."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    convert(PIPELINES / name, tmp_path / "out", config=config_for(name))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "out")
    pipeline.set_progress_bar_config(disable=True)
    key = name.split("_")[0]
    pictures = pipeline(
        ["a painting of a squirrel eating a burger", "a photo of a butterfly, on a flower!"],
        num_inference_steps={"sd1": 5, "sd2": 6}[key],
        guidance_scale=7.5,
        latents=torch.from_numpy(recorded[f"{key}_latents"]),
        height=64,
        width=32,
        output_type="np",
    ).images
    expected = np.moveaxis(recorded[f"{key}_image"], 1, -1)
    np.testing.assert_allclose(pictures, expected, atol=1e-4)
