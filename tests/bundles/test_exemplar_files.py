"""Paint by Example's files: folder and single file, in and out again."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.bundles import convert, load, save
from diffedit_jax.bundles.loading import read_parts
from diffedit_jax.checkpoints.export import to_ldm
from diffedit_jax.checkpoints.read import read
from tests.golden_models import GOLDEN, exemplar_folder

PLACE = GOLDEN / "09_paint_by_example"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return exemplar_folder(tmp_path_factory.mktemp("exemplar"))


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_a_folder_comes_back_with_classic_names(folder, tmp_path):
    save(load(folder), tmp_path / "again")
    written = tmp_path / "again"
    index = json.loads((written / "model_index.json").read_text())
    assert index["_class_name"] == "PaintByExamplePipeline"
    assert index["image_encoder"] == ["paint_by_example", "PaintByExampleImageEncoder"]
    assert "tokenizer" not in index and "text_encoder" not in index
    official = read(PLACE / "image_encoder" / "model.safetensors")
    same(read(written / "image_encoder" / "model.safetensors"), official)
    assert load(written).origin["digest"] == load(folder).origin["digest"]


def test_the_original_file_is_read_and_written(folder, tmp_path):
    convert(folder, tmp_path / "model.safetensors")
    ldm = read(tmp_path / "model.safetensors")
    original = read(PLACE / "original_cond_stage.safetensors")
    same({k: ldm[k] for k in original}, original)
    yaml = (tmp_path / "model.yaml").read_text()
    assert "FrozenCLIPImageEmbedder" in yaml
    parts = read_parts(tmp_path / "model.safetensors", config=folder)
    same(to_ldm(parts), ldm)
    model = load(tmp_path / "model.safetensors", config=folder)
    pixels = np.load(PLACE / "pbe.npz")["enc_pixel_values"]
    pixels = jnp.asarray(pixels.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(model.example(pixels).text, load(folder).example(pixels).text)
    np.testing.assert_array_equal(model.null(2).text[1], original["learnable_vector"][0])


def test_missing_parts_are_named_and_other_encoders_left_alone(folder, tmp_path):
    place = exemplar_folder(tmp_path)
    (place / "image_encoder").rename(place / "hidden")
    with pytest.raises(de.UserError, match="lacks image_encoder/"):
        load(place)
    index = json.loads((place / "model_index.json").read_text())
    index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
    (place / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(de.UserError, match="lacks text_encoder/, tokenizer/"):
        load(place)


def test_what_needs_texts_is_refused_in_one_line(folder):
    model = load(folder)
    with pytest.raises(de.UserError, match="no text encoder"):
        model.tokenize(["a cat"])
    with pytest.raises(de.UserError, match="no text encoder"):
        model.text_notices(["a cat"])
    assert list(model.text_notices([])) == []
