"""Component folders: variants, shards, .bin, links, and indices that point elsewhere."""

import json
import shutil

import numpy as np
import pytest

from diffedit_jax.checkpoints.folder import rank, read_component, read_shards
from diffedit_jax.checkpoints.model_folder import NETWORKS, read_model_folder
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

from .golden import PIPELINES, same

COMPONENTS = ["unet", "vae", "text_encoder"]


def silent(line):
    raise AssertionError(line)


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("folder", ["sd1_sharded", "sd1_bin"])
def test_the_same_weights_in_other_forms(folder, component):
    table, _ = NETWORKS[component]
    plain = table(read_component(PIPELINES / "sd1" / component, None, silent))
    same(table(read_component(PIPELINES / folder / component, None, silent)), plain)


def test_shards_of_a_variant():
    plain = read_component(PIPELINES / "sd1_fp16_variant" / "unet", "fp16", silent)
    same(read_component(PIPELINES / "sd1_sharded_fp16" / "unet", "fp16", silent), plain)


def test_whole_folders_of_2022_and_today_hold_the_same():
    today = read_model_folder(PIPELINES / "sd1")
    classic = read_model_folder(PIPELINES / "sd1_classic_names")
    for name in COMPONENTS:
        assert today.weights[name].keys() == classic.weights[name].keys()


def test_falling_back_is_said():
    notices = []
    read_component(PIPELINES / "sd1_fp16_variant" / "unet", None, notices.append)
    read_component(PIPELINES / "sd1" / "unet", "fp16", notices.append)
    assert "fp16" in notices[0] and "plain" in notices[1]


RANKING = {
    ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.safetensors"): {None: 1},
    ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"): {None: 0, "fp16": 1},
    ("diffusion_pytorch_model.non_ema.bin",): {"non_ema": 0},
    ("model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors"): {"fp16": 0},
    ("model.safetensors.fp16.index.json", "model-00001-of-00002.fp16.safetensors"): {"fp16": 0},
    ("model.safetensors.index.json", "model.bin"): {None: 0},
    ("pytorch_model.bin.index.json",): {None: 0},
    ("flax_model.msgpack", "openvino_model.bin", "model.onnx", "config.json"): {},
}


@pytest.mark.parametrize("names", RANKING)
def test_which_file_is_taken(names):
    assert rank(list(names)) == {k: names[i] for k, i in RANKING[names].items()}


def test_a_variant_that_nothing_has(tmp_path):
    with pytest.raises(UserError, match="no variant 'fp61'; its variants: fp16"):
        read_model_folder(PIPELINES / "sd1_fp16_variant", variant="fp61")


def test_variants_that_must_be_asked_for(tmp_path):
    write_safetensors(tmp_path / "model.non_ema.safetensors", {"a": np.zeros(1, np.float32)})
    with pytest.raises(UserError, match="only the variants non_ema"):
        read_component(tmp_path, None, silent)
    assert "a" in read_component(tmp_path, "non_ema", silent)


def test_no_weights_at_all(tmp_path):
    with pytest.raises(UserError, match="no weight file"):
        read_component(tmp_path, None, silent)
    (tmp_path / "flax_model.msgpack").write_bytes(b"x")
    with pytest.raises(UserError, match="msgpack"):
        read_component(tmp_path, None, silent)


@pytest.fixture
def sharded(tmp_path):
    folder = tmp_path / "unet"
    shutil.copytree(PIPELINES / "sd1_sharded" / "unet", folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def edit(folder, change) -> None:
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    content = json.loads(index.read_text())
    change(content["weight_map"])
    index.write_text(json.dumps(content))


ELSEWHERE = ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", ".hidden", "a\\b", 3]


@pytest.mark.parametrize("place", ELSEWHERE)
def test_an_index_that_points_outside_its_folder(sharded, place):
    edit(sharded, lambda places: places.update({"conv_in.weight": place}))
    with pytest.raises(UserError, match="outside its folder"):
        read_component(sharded, None, silent)


def test_shards_that_are_links_out_of_the_folder(sharded, tmp_path):
    """Hub caches are made of such links."""
    shard = sharded / "diffusion_pytorch_model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    assert "conv_in.weight" in read_component(sharded, None, silent)


def test_a_missing_shard(sharded):
    (sharded / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="00002-of-00002"):
        read_component(sharded, None, silent)


@pytest.mark.parametrize("change", [
    lambda places: places.pop("conv_in.weight"),
    lambda places: places.update({"more.weight": places["conv_in.weight"]}),
])  # fmt: skip
def test_an_index_that_disagrees_with_its_shards(sharded, change):
    edit(sharded, change)
    with pytest.raises(UserError, match="disagree on"):
        read_component(sharded, None, silent)


def test_an_index_without_a_map(tmp_path):
    for content in ("{}", '{"weight_map": {}}', '{"weight_map": []}', "[]", "<html>"):
        (tmp_path / "model.safetensors.index.json").write_text(content)
        with pytest.raises(UserError):
            read_shards(tmp_path / "model.safetensors.index.json")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(PIPELINES / "sd1", folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    return folder


def test_every_missing_component_is_named(model):
    shutil.rmtree(model / "vae")
    shutil.rmtree(model / "tokenizer")
    with pytest.raises(UserError, match="lacks tokenizer/, vae/"):
        read_model_folder(model)


def test_no_index(model):
    (model / "model_index.json").unlink()
    with pytest.raises(UserError, match="model_index.json does not exist"):
        read_model_folder(model)


def test_config_files_never_choose_code(model):
    index = json.loads((model / "model_index.json").read_text())
    index["unet"] = ["os", "system"]
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="unet is a 'system'; known here: UNet2DConditionModel"):
        read_model_folder(model)


def test_flax_class_names_are_the_same_networks(model):
    index = json.loads((model / "model_index.json").read_text())
    index["unet"] = ["diffusers", "FlaxUNet2DConditionModel"]
    index["text_encoder"] = ["transformers", "FlaxCLIPTextModel"]
    (model / "model_index.json").write_text(json.dumps(index))
    assert "conv_in.weight" in read_model_folder(model).weights["unet"]


@pytest.mark.parametrize("content", ["", "[1]", "{", "<!doctype html>", '{"a": 1, "a": 2}'])
def test_damaged_configs(model, content):
    (model / "unet" / "config.json").write_text(content)
    with pytest.raises(UserError, match="config.json"):
        read_model_folder(model)
