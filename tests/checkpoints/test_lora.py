"""LoRAs: recorded files of every layout, names of published models, out and in again."""

import json
import shutil

import numpy as np
import pytest

from diffedit_jax.bundles.adapters import module_shapes
from diffedit_jax.checkpoints.lora import Layer, delta, read_lora
from diffedit_jax.checkpoints.lora_write import write_lora
from diffedit_jax.checkpoints.read import read
from diffedit_jax.checkpoints.tables.lora import ldm_names, spellings
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

from ..bundles.conftest import loaded
from .golden import GOLDEN, published

PLACE = GOLDEN / "14_dreambooth_lora"
SAME = [
    "lora_diffusers",
    "lora_diffusers_classic.safetensors",
    "lora_after5_peft_names.safetensors",
]
UNET_ONLY = ["lora_attn_procs_2023_unet.safetensors", "lora_peft_adapter_unet"]


@pytest.fixture(scope="module")
def shapes():
    return module_shapes(loaded("sd1"))


def equal(first, second):
    assert first.keys() == second.keys()
    for module in first:
        np.testing.assert_array_equal(first[module].down, second[module].down)
        np.testing.assert_array_equal(first[module].up, second[module].up)
        assert first[module].scale == second[module].scale


@pytest.mark.parametrize("name", SAME + UNET_ONLY)
def test_recorded_layouts_are_one_lora(name, shapes):
    whole = read_lora(PLACE / "lora_diffusers", shapes)
    assert len(whole) == 56
    kept = {m: v for m, v in whole.items() if name in SAME or m.startswith("unet.")}
    equal(read_lora(PLACE / name, shapes), kept)


@pytest.mark.parametrize("name, count", [("kohya_linear", 84), ("kohya_locon", 129)])
def test_kohya_files_are_read_whole(name, count, shapes):
    layers = read_lora(PLACE / f"{name}.safetensors", shapes)
    assert len(layers) == count
    assert {layer.scale for layer in layers.values()} <= {0.25, 0.5}
    convolutions = [m for m, layer in layers.items() if layer.down.shape[2:] == (3, 3)]
    assert bool(convolutions) == (name == "kohya_locon")


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("name", ["lora_diffusers", "kohya_linear.safetensors",
                                  "kohya_locon.safetensors"])  # fmt: skip
def test_written_and_read_again(name, layout, shapes, tmp_path):
    layers = read_lora(PLACE / name, shapes)
    write_lora(tmp_path / "a.safetensors", layers, layout=layout)
    equal(read_lora(tmp_path / "a.safetensors", shapes), layers)


@pytest.mark.parametrize("name", ["lora_diffusers_classic.safetensors", "kohya_locon.safetensors"])
def test_the_very_names_of_the_official_writers(name, shapes, tmp_path):
    layout = "kohya" if "kohya" in name else "diffusers"
    write_lora(tmp_path / "a.safetensors", read_lora(PLACE / name, shapes), layout=layout)
    ours, theirs = read(tmp_path / "a.safetensors"), read(PLACE / name)
    assert ours.keys() == theirs.keys()
    for key in theirs:
        np.testing.assert_array_equal(ours[key], theirs[key])


def test_a_convolution_is_the_composition_of_its_halves():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    down, up = rng.normal(size=(3, 4, 3, 3)), rng.normal(size=(5, 3, 1, 1))
    x = torch.from_numpy(rng.normal(size=(1, 4, 6, 6)))
    halves = torch.conv2d(torch.conv2d(x, torch.from_numpy(down)), torch.from_numpy(up))
    whole = torch.from_numpy(delta(Layer(down, up, 1.5), (5, 4, 3, 3))).double()
    np.testing.assert_allclose(torch.conv2d(x, whole), 0.5 * halves, atol=1e-5)


def of_published(*names):
    """Modules of published models: {"unet.path": shape}."""
    parts = {
        "sd15_unet": "unet",
        "sdxl_unet": "unet",
        "sd15_text_encoder": "text_encoder",
        "sdxl_text_encoder": "text_encoder",
        "sdxl_text_encoder_2": "text_encoder_2",
    }
    found = {}
    for name in names:
        for key, shape in published(name)["keys"].items():
            if key.endswith(".weight") and len(shape) in (2, 4) and "embedding.weight" not in key:
                key = key.removeprefix("text_model.").removesuffix(".weight")
                found[f"{parts[name]}.{key}"] = tuple(shape)
    return found


@pytest.mark.parametrize("names", [
    ("sd15_unet", "sd15_text_encoder"),
    ("sdxl_unet", "sdxl_text_encoder", "sdxl_text_encoder_2"),
])  # fmt: skip
def test_every_module_of_published_models_has_its_own_flat_name(names):
    shapes = of_published(*names)
    table = spellings(shapes)
    flat = {name: module for name, module in table.items() if name.startswith("lora_")}
    assert None not in flat.values() and set(flat.values()) == set(shapes)
    assert len(ldm_names(shapes)) == sum(module.startswith("unet.") for module in shapes)


@pytest.mark.parametrize("flat, module", [
    ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
     "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"),
    ("lora_unet_label_emb_0_0", "unet.add_embedding.linear_1"),
    ("lora_unet_middle_block_1_proj_in", "unet.mid_block.attentions.0.proj_in"),
    ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
    ("lora_te2_text_model_encoder_layers_31_self_attn_q_proj",
     "text_encoder_2.encoder.layers.31.self_attn.q_proj"),
])  # fmt: skip
def test_names_of_sdxl(flat, module):
    table = spellings(of_published("sdxl_unet", "sdxl_text_encoder", "sdxl_text_encoder_2"))
    assert table[flat] == module


def test_sdxl_is_written_for_kohya_under_ldm_names(tmp_path):
    shapes = of_published("sdxl_unet", "sdxl_text_encoder", "sdxl_text_encoder_2")
    modules = ["unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
               "text_encoder.encoder.layers.0.mlp.fc1",
               "text_encoder_2.encoder.layers.0.mlp.fc1"]  # fmt: skip
    layers = {m: Layer(np.ones((2, shapes[m][1]), np.float32),
                       np.ones((shapes[m][0], 2), np.float32), 1.0) for m in modules}  # fmt: skip
    write_lora(tmp_path / "a.safetensors", layers, layout="kohya", shapes=shapes)
    prefixes = {key.split("_text")[0].split("_4_1")[0] for key in read(tmp_path / "a.safetensors")}
    assert prefixes == {"lora_unet_input_blocks", "lora_te1", "lora_te2"}
    equal(read_lora(tmp_path / "a.safetensors", shapes), layers)
    with pytest.raises(UserError, match="shapes="):
        write_lora(tmp_path / "b.safetensors", layers, layout="kohya")


def test_diffusers_resolves_kohyas_names_alike(shapes, tmp_path):
    """diffusers' own converter, by string surgery, gives every module the same tensors."""
    pytest.importorskip("diffusers")
    from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers

    torch = pytest.importorskip("torch")
    file = read(PLACE / "kohya_locon.safetensors")
    given = {key: torch.from_numpy(np.array(value)) for key, value in file.items()}
    theirs, alphas = _convert_non_diffusers_lora_to_diffusers(given)
    written = {key: value.numpy() for key, value in theirs.items()}
    written |= {key: np.asarray(value, np.float32) for key, value in alphas.items()}
    write_safetensors(tmp_path / "a.safetensors", written)
    ours = read_lora(PLACE / "kohya_locon.safetensors", shapes)
    equal(read_lora(tmp_path / "a.safetensors", shapes), ours)


MODULE = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def file_of(tmp_path, change):
    weights = {f"{MODULE}.lora_A.weight": np.ones((2, 8), np.float32),
               f"{MODULE}.lora_B.weight": np.ones((8, 2), np.float32)}  # fmt: skip
    change(weights)
    write_safetensors(tmp_path / "a.safetensors", weights)
    return tmp_path / "a.safetensors"


def put(key, *shape, value=1.0):
    return lambda weights: weights.update({key: np.full(shape, value, np.float32)})


@pytest.mark.parametrize("change, message", [
    (put("unet.nowhere.lora_A.weight", 2, 8), "1 of 3 keys.*unet.nowhere.lora_A.weight"),
    (put("unet.conv_in.weight", 4, 4, 3, 3), "unet.conv_in.weight"),
    (put(f"{MODULE}.lora_A.weight", 2, 9), r"another base.*\[8, 8\].*\[8, 2\] @ \[2, 9\]"),
    (put(f"{MODULE}.lora_B.weight", 8, 3), "another base"),
    (put(f"{MODULE}.lora_A.weight", 2, 8, value=np.nan), "NaN"),
    (put(f"{MODULE}.dora_scale", 8), "DoRA"),
    (put(f"{MODULE}.hada_w1_a", 8, 2), "LyCORIS"),
    (put(f"{MODULE}.lora_mid.weight", 2, 2, 3, 3), "lora_mid"),
    (put(f"{MODULE}.alpha", 2), r"alpha .* is \[2\]"),
    (put("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", 2, 8),
     "twice"),
    (lambda weights: weights.pop(f"{MODULE}.lora_B.weight"), "no up weight"),
])  # fmt: skip
def test_files_that_do_not_fit(change, message, shapes, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read_lora(file_of(tmp_path, change), shapes)
    assert "\n" not in str(caught.value) and "a.safetensors" in str(caught.value)


def test_every_unknown_key_is_named(shapes, tmp_path):
    names = [f"unet.elsewhere.{i}.lora_A.weight" for i in range(40)]
    path = file_of(tmp_path, lambda weights: [put(name, 2, 8)(weights) for name in names])
    with pytest.raises(UserError) as caught:
        read_lora(path, shapes)
    assert all(name in str(caught.value) for name in names)


def test_a_lora_of_another_model(shapes):
    with pytest.raises(UserError, match="another base model: .*text_encoder"):
        read_lora(PLACE / "kohya_linear.safetensors", module_shapes(loaded("sd2")))


@pytest.mark.parametrize("settings, scale", [
    ({"lora_alpha": 8}, 2.0),
    ({"lora_alpha": 8, "use_rslora": True}, 4.0),
    ({"lora_alpha": 8, "alpha_pattern": {"attn1.to_q": 2}}, None),
])  # fmt: skip
def test_settings_of_an_adapter_folder(settings, scale, shapes, tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(PLACE / "lora_peft_adapter_unet", folder)
    told = json.loads((folder / "adapter_config.json").read_text()) | settings
    (folder / "adapter_config.json").write_text(json.dumps(told))
    layers = read_lora(folder, shapes)
    expected = {m: scale or (0.5 if m.endswith("attn1.to_q") else 2.0) for m in layers}
    assert {m: layer.scale for m, layer in layers.items()} == expected
    for bad in ({"use_dora": True}, {"peft_type": "LOHA"}, {"lora_alpha": "4"}):
        (folder / "adapter_config.json").write_text(json.dumps(told | bad))
        with pytest.raises(UserError):
            read_lora(folder, shapes)


def test_what_cannot_be_written(tmp_path):
    good = Layer(np.ones((2, 8), np.float32), np.ones((8, 2), np.float32))
    for layers, options in (({}, {}), ({"conv_in": good}, {}), ({"vae.conv": good}, {}),
                            ({MODULE: good._replace(up=good.down)}, {}),
                            ({MODULE: good}, {"layout": "a1111"})):  # fmt: skip
        with pytest.raises(UserError):
            write_lora(tmp_path / "a.safetensors", layers, **options)
    with pytest.raises(UserError, match="safetensors"):
        write_lora(tmp_path / "a.pt", {MODULE: good})
    assert list(tmp_path.iterdir()) == []
