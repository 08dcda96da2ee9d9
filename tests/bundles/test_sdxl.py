"""A tiny SDXL with random weights, saved by diffusers, read here, and written back."""

import json
import shutil

import jax
import numpy as np
import pytest

from diffedit_jax.bundles import convert, load
from diffedit_jax.checkpoints.model_folder import read_model_folder
from diffedit_jax.checkpoints.single_file import read_single_file

from ..checkpoints.golden import same
from .conftest import PIPELINES

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

WIDTHS = (16, 24)  # of the two text encoders


def text_config(width, activation):
    return transformers.CLIPTextConfig(
        vocab_size=654, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=3,
        num_attention_heads=2, hidden_act=activation, projection_dim=WIDTHS[1],
        bos_token_id=652, eos_token_id=653, pad_token_id=0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=16, in_channels=4, out_channels=4, block_out_channels=(4, 8), norm_num_groups=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), layers_per_block=2,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 2), cross_attention_dim=sum(WIDTHS),
        use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTHS[1] + 6 * 8,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL.from_pretrained(PIPELINES / "sd1" / "vae", scaling_factor=0.13025)
    pipeline = diffusers.StableDiffusionXLPipeline(
        unet=unet,
        vae=vae,
        text_encoder=transformers.CLIPTextModel(text_config(WIDTHS[0], "quick_gelu")).eval(),
        text_encoder_2=transformers.CLIPTextModelWithProjection(
            text_config(WIDTHS[1], "gelu")
        ).eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(PIPELINES / "sd1" / "tokenizer"),
        tokenizer_2=transformers.CLIPTokenizer.from_pretrained(PIPELINES / "sd2" / "tokenizer"),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            timestep_spacing="leading",
        ),
        add_watermarker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("sdxl") / "model"
    pipeline.save_pretrained(folder)
    return pipeline, folder


@pytest.fixture(scope="module")
def ours(theirs):
    return load(theirs[1])


def close(found, expected):
    expected = expected.detach().numpy()
    assert np.abs(np.asarray(found) - expected).max() <= 2e-5 * np.abs(expected).max()


def test_the_condition_is_diffusers(theirs, ours, highest):
    prompts = ["a painting of a squirrel", "a photo"]
    context, _, pooled, _ = theirs[0].encode_prompt(prompts, do_classifier_free_guidance=False)
    condition = ours.condition(prompts, height=64, width=32)
    close(condition.text, context)
    close(condition.added["text_embeds"], pooled)
    np.testing.assert_array_equal(condition.added["time_ids"], [[64, 32, 0, 0, 64, 32]] * 2)


def test_the_empty_prompt_is_zeros(theirs, ours):
    assert theirs[0].config.force_zeros_for_empty_prompt and ours.zero_null
    null = ours.null(2)
    assert not np.asarray(null.text).any() and not np.asarray(null.added["text_embeds"]).any()


def test_the_network_is_diffusers(theirs, ours, highest):
    random = np.random.default_rng(0)
    x = random.standard_normal((1, 4, 8, 8)).astype(np.float32)
    condition = ours.condition(["a cat"])
    with torch.no_grad():
        expected = theirs[0].unet(
            torch.from_numpy(x),
            301,
            torch.from_numpy(np.array(condition.text)),
            added_cond_kwargs={
                key: torch.from_numpy(np.array(value)) for key, value in condition.added.items()
            },
        )[0]
    unet = ours.denoiser
    args = (np.moveaxis(x, 1, -1), 301, condition.text)
    found, _ = jax.jit(unet.module.apply)({"params": unet.params}, *args, added=condition.added)
    close(np.moveaxis(np.asarray(found), -1, 1), expected)


def test_what_the_files_say(ours):
    assert ours.scaling_factor == 0.13025
    assert ours.defaults == {"solver": "euler"}
    assert ours.tokenize(["a cat"]).shape == (1, 2, 77)


def test_folder_and_single_file_and_back(theirs, tmp_path):
    before = read_model_folder(theirs[1])
    convert(theirs[1], tmp_path / "folder")
    convert(theirs[1], tmp_path / "file.safetensors")
    for after in (
        read_model_folder(tmp_path / "folder"),
        read_single_file(tmp_path / "file.safetensors"),
    ):
        assert after.weights.keys() == before.weights.keys()
        for name in before.weights:
            same(after.weights[name], before.weights[name])
    index = json.loads((tmp_path / "folder" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    assert index["force_zeros_for_empty_prompt"] is True
    shutil.rmtree(tmp_path / "folder" / "tokenizer_2")
    assert diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "folder" / "unet")
