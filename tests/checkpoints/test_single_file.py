"""Single files: split, told apart by shape, averaged copies, yaml; and written again."""

import re

import numpy as np
import pytest

from diffedit_jax.checkpoints.export import cast, to_ldm, write_single_file
from diffedit_jax.checkpoints.model_folder import NETWORKS, read_model_folder
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.single_file import read_single_file
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.checkpoints.yaml_fields import last, parse_yaml_fields, read_yaml_fields
from diffedit_jax.errors import UserError

from .golden import PIPELINES, hollow, published, same

NAMES = ["unet", "vae", "text_encoder"]
PAIRS = {
    "sd1_single.safetensors": "sd1",
    "sd1_single.ckpt": "sd1",
    "sd2_single.safetensors": "sd2",
}


@pytest.mark.parametrize("file", PAIRS)
def test_the_same_weights_as_the_folder(file):
    parts = read_single_file(PIPELINES / file)
    folder = read_model_folder(PIPELINES / PAIRS[file])
    for name in NAMES:
        same(parts.weights[name], folder.weights[name])


@pytest.mark.parametrize("file", PAIRS)
def test_configs_agree_with_the_folder(file):
    """All but the group count, which only published sizes have, and what a file cannot say."""
    parts, folder = read_single_file(PIPELINES / file), read_model_folder(PIPELINES / PAIRS[file])
    silent = {"norm_num_groups", "sample_size", "force_upcast", "_diffusers_version"}
    for name in ("unet", "vae"):
        ours, theirs = parts.configs[name], folder.configs[name]
        assert {k: v for k, v in ours.items() if k not in silent} == {
            k: theirs[k] for k in ours if k not in silent
        }
    kind = folder.configs["scheduler"]["prediction_type"]
    assert parts.configs["scheduler"]["prediction_type"] == kind


def file_of(names: dict) -> Parts:
    """A published model, hollow, as the parts of a folder."""
    parts = Parts(where="published", configs={"unet": {}, "text_encoder": {}})
    for component, name in names.items():
        table = NETWORKS[component][0]
        parts.weights[component] = table(hollow(published(name)["keys"]))
        parts.configs[component] = {**published(name)["config"]}
    return parts


MODELS = {
    "sd15": {"unet": "sd15_unet", "vae": "sd15_vae", "text_encoder": "sd15_text_encoder"},
    "inpaint": {"unet": "sd15_inpaint_unet", "vae": "sd15_vae"},
    "pix2pix": {"unet": "instruct_pix2pix_unet", "vae": "sd15_vae_classic_names"},
    "sd21": {"unet": "sd21_768_unet", "vae": "sd15_vae"},
    "sdxl": {
        "unet": "sdxl_unet",
        "vae": "sdxl_vae",
        "text_encoder": "sdxl_text_encoder",
        "text_encoder_2": "sdxl_text_encoder_2",
    },
}
KEPT = [
    *("in_channels", "out_channels", "cross_attention_dim", "block_out_channels"),
    *("down_block_types", "up_block_types", "layers_per_block", "use_linear_projection"),
    *("addition_embed_type", "projection_class_embeddings_input_dim", "norm_num_groups"),
]


@pytest.mark.parametrize("model", MODELS)
def test_published_models_are_told_by_their_shapes(model, monkeypatch, tmp_path):
    """The whole key set of a published model, as its single file has it, gives its config."""
    folder = file_of(MODELS[model])
    ldm = to_ldm(folder)
    monkeypatch.setattr("diffedit_jax.checkpoints.single_file.read", lambda path: ldm)
    parts = read_single_file(tmp_path / "model.safetensors")
    for name, weights in folder.weights.items():
        shapes = {key: array.shape for key, array in weights.items()}
        assert {key: array.shape for key, array in parts.weights[name].items()} == shapes
    ours, theirs = parts.configs["unet"], folder.configs["unet"]
    for key in KEPT:
        assert ours.get(key) == theirs.get(key) or key not in theirs or not theirs[key], key
    heads = theirs["attention_head_dim"]
    assert ours["attention_head_dim"] == heads
    scaling = folder.configs["vae"].get("scaling_factor", 0.18215)
    assert parts.configs["vae"]["scaling_factor"] == scaling
    for name in ("text_encoder", "text_encoder_2"):
        if name in folder.weights:
            assert_text_config(parts.configs[name], folder.configs[name])


def assert_text_config(ours, theirs):
    for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        assert ours[key] == theirs[key]
    for key in ("hidden_act", "vocab_size", "max_position_embeddings", "layer_norm_eps"):
        assert ours[key] == theirs[key]


def test_the_averaged_copy_is_taken_unless_told_otherwise():
    path = PIPELINES / "ip2p_unet_with_ema.ckpt"
    raw, averaged = read_single_file(path, ema=False), read_single_file(path)
    stored = read(path)
    flat = "model_ema.diffusion_modelinput_blocks00weight"
    np.testing.assert_array_equal(averaged.weights["unet"]["conv_in.weight"], stored[flat])
    plain = stored["model.diffusion_model.input_blocks.0.0.weight"]
    np.testing.assert_array_equal(raw.weights["unet"]["conv_in.weight"], plain)
    assert not np.array_equal(plain, stored[flat])


def changed(tmp_path, change, name="sd1_single.safetensors"):
    weights = dict(read(PIPELINES / name))
    change(weights)
    write_safetensors(tmp_path / "model.safetensors", weights)
    return tmp_path / "model.safetensors"


def test_an_averaged_copy_that_is_incomplete(tmp_path):
    def add(weights):
        key = "model.diffusion_model.out.2.bias"
        weights["model_ema.diffusion_modelout2bias"] = weights[key]

    path = changed(tmp_path, add)
    with pytest.raises(UserError, match="use ema=False"):
        read_single_file(path)
    assert "unet" in read_single_file(path, ema=False).weights


@pytest.mark.parametrize(
    "key", ["control_model.x.weight", "lora_unet_x", "model.diffusion_model.q.b"]
)
def test_keys_of_no_known_part(tmp_path, key):
    path = changed(tmp_path, lambda w: w.update({key: np.zeros(1, np.float32)}))
    with pytest.raises(UserError, match=re.escape(key)):
        read_single_file(path)


def test_files_that_are_something_else(tmp_path):
    write_safetensors(tmp_path / "lora.safetensors", {"betas": np.zeros(3, np.float32)})
    with pytest.raises(UserError, match="not a Stable Diffusion file"):
        read_single_file(tmp_path / "lora.safetensors")


OTHERS = {
    "lora_unet_down_blocks_0_x.lora_down.weight": "a LoRA",
    "unet.down_blocks.0.to_q.lora_A.weight": "a LoRA",
    "unet.down_blocks.0.to_q.lora.down.weight": "a LoRA",
    "emb_params": "a learned word",
    "control_model.input_blocks.0.0.weight": "a ControlNet",
    "down_blocks.0.resnets.0.conv1.weight": "one component of a diffusers folder",
    "text_model.final_layer_norm.bias": "one component of a diffusers folder",
    "input_blocks.0.0.weight": "a bare UNet",
}


@pytest.mark.parametrize("key", OTHERS)
def test_well_known_files_of_other_kinds(tmp_path, key):
    write_safetensors(tmp_path / "a.safetensors", {key: np.zeros((1, 1), np.float32)})
    with pytest.raises(UserError, match=OTHERS[key]):
        read_single_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("key", [
    "model.diffusion_model.input_blocks.1.0.in_layers.2.bias",
    "model.diffusion_model.input_blocks.0.0.weight",
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
    "first_stage_model.encoder.conv_out.weight",
    "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
])  # fmt: skip
def test_a_missing_tensor_that_tells_a_shape(tmp_path, key):
    path = changed(tmp_path, lambda w: w.pop(key))
    with pytest.raises(UserError, match="lacks the tensor"):
        read_single_file(path)


def test_absurd_block_numbers_are_refused_quickly(tmp_path):
    def add(weights):
        weights["model.diffusion_model.input_blocks.999999999.0.x"] = np.zeros(1, np.float32)
        weights["first_stage_model.encoder.down.999999999.block.0.x"] = np.zeros(1, np.float32)

    with pytest.raises(UserError):
        read_single_file(changed(tmp_path, add))


def test_what_a_file_predicts(tmp_path):
    bare = changed(tmp_path, lambda w: None)
    assert read_single_file(bare).configs["scheduler"]["prediction_type"] == "epsilon"
    told = read_single_file(bare, prediction_type="v_prediction")
    assert told.configs["scheduler"]["prediction_type"] == "v_prediction"
    bare.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert read_single_file(bare).configs["scheduler"]["prediction_type"] == "v_prediction"
    bare.with_suffix(".yaml").write_text("model:\n  params:\n    parameterization: w\n")
    with pytest.raises(UserError, match="parameterization 'w'"):
        read_single_file(bare)


def test_marks_of_what_a_file_predicts(tmp_path):
    mark = {key: np.zeros(0, np.float32) for key in ("v_pred", "ztsnr")}
    scheduler = read_single_file(changed(tmp_path, lambda w: w.update(mark))).configs["scheduler"]
    assert scheduler["prediction_type"] == "v_prediction" and scheduler["rescale_betas_zero_snr"]


def test_a_stable_diffusion_2_file_that_does_not_say(monkeypatch, tmp_path):
    ldm = to_ldm(file_of(MODELS["sd21"]))
    monkeypatch.setattr("diffedit_jax.checkpoints.single_file.read", lambda path: ldm)
    parts = read_single_file(tmp_path / "model.safetensors")
    assert "epsilon is assumed" in parts.notices[0]
    assert parts.configs["scheduler"]["prediction_type"] == "epsilon"
    assert not read_single_file(tmp_path / "m.ckpt", prediction_type="epsilon").notices


def test_yaml_fields():
    fields = read_yaml_fields(PIPELINES / "sd2_single.yaml")
    assert fields["model.params.linear_start"] == 0.00085
    assert fields["model.params.unet_config.params.num_head_channels"] == 4
    assert last(fields, "parameterization") == "v"
    assert last(fields, "first_stage_config.params.ddconfig.double_z") is True
    assert last(fields, "use_linear_in_transformer") is True
    assert last(fields, "nothing", "default") == "default"


def test_yaml_oddities():
    text = "a:\n  b: 'c # d'  \n  # e: 1\n  f: 1 # g\n\nh: null\ni:\n - j: 1\nk: [1, 2]\nl: 1e-4\n"
    fields = parse_yaml_fields(text)
    assert fields["a.b"] == "c # d" or fields["a.b"].startswith("'c")
    assert fields["a.f"] == 1 and fields["h"] is None and fields["l"] == 1e-4
    assert fields["k"] == "[1, 2]"
    assert parse_yaml_fields("!!python/object/apply:os.system ['x']\n") == {}


@pytest.mark.parametrize("folder", ["sd1", "sd2", "ip2p", "inpaint"])
def test_folder_to_file_and_back(folder, tmp_path):
    parts = read_model_folder(PIPELINES / folder)
    write_single_file(parts, tmp_path / "model.safetensors")
    again = read_single_file(tmp_path / "model.safetensors")
    for name in NAMES:
        same(again.weights[name], parts.weights[name])
    for key in ("prediction_type", "beta_start", "beta_end", "num_train_timesteps"):
        assert again.configs["scheduler"][key] == parts.configs["scheduler"][key]
    heads = parts.configs["unet"]["attention_head_dim"]
    assert again.configs["unet"]["attention_head_dim"] == heads


def test_file_to_file_keeps_names_and_bits(tmp_path):
    write_single_file(read_single_file(PIPELINES / "sd1_single.ckpt"), tmp_path / "a.safetensors")
    written, stored = read(tmp_path / "a.safetensors"), read(PIPELINES / "sd1_single.ckpt")
    tables = {key for key in stored if "." not in key}
    same(written, {key: stored[key] for key in stored if key not in tables})


def test_other_dtypes_are_rounded_once():
    weights = {"a": np.linspace(-1, 1, 9, dtype=np.float32)}
    for dtype in ("float16", "bfloat16", "float32"):
        assert str(cast(weights, dtype, "x")["a"].dtype) == dtype
    np.testing.assert_array_equal(
        cast(weights, "float16", "x")["a"], weights["a"].astype(np.float16)
    )
    with pytest.raises(UserError, match="int8"):
        cast(weights, "int8", "x")
    with pytest.raises(UserError, match="a holds numbers that float16 cannot hold"):
        cast({"a": np.array([1e6], np.float32)}, "float16", "x")


def test_diffusers_reads_the_single_file(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    write_single_file(read_model_folder(PIPELINES / "sd1"), tmp_path / "a.safetensors")
    theirs = diffusers.StableDiffusionPipeline.from_single_file(
        str(tmp_path / "a.safetensors"), config=str(PIPELINES / "sd1"), local_files_only=True
    )
    folder = read_model_folder(PIPELINES / "sd1")
    for name in NAMES:
        state = {k: v.numpy() for k, v in getattr(theirs, name).state_dict().items()}
        same(NETWORKS[name][0](state), folder.weights[name])


def test_eight_channels_sample_as_instruct_pix2pix_does():
    scheduler = read_single_file(PIPELINES / "ip2p_unet_with_ema.ckpt").configs["scheduler"]
    assert scheduler["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert scheduler["timestep_spacing"] == "linspace"
