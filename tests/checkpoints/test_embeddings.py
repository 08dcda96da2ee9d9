"""Learned words: every recorded layout, out and in again, and files that are something else."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from diffedit_jax.checkpoints.embeddings import checked_word, read_embedding
from diffedit_jax.checkpoints.embeddings_write import LAYOUTS, write_embedding
from diffedit_jax.checkpoints.write import write_safetensors
from diffedit_jax.errors import UserError

from .golden import GOLDEN

PLACE = GOLDEN / "13_textual_inversion"
SAID = json.loads((PLACE / "layouts.json").read_text())
FILES = {case["file"].removeprefix("files/"): case["expected"] for case in SAID["files"]}
EXACT = {"a1111_text_chunk.png": 1e-6, "a1111_pixels.png": 1e-6}  # decimal text


@pytest.fixture(scope="module")
def arrays():
    with np.load(PLACE / "layouts.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", FILES)
def test_recorded_files(name, arrays):
    found = read_embedding(PLACE / "files" / name)
    expected = {word: (arrays[key],) for word, key in FILES[name].items()}
    if name == "sdxl.safetensors":
        expected = {"sdxl": (arrays["vn"], arrays["clip_g"])}
    assert found.keys() == expected.keys()
    for word, vectors in expected.items():
        assert len(found[word]) == len(vectors)
        for ours, theirs in zip(found[word], vectors, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=EXACT.get(name, 0))


def test_a_lossless_webp_carries_the_payload_too(tmp_path, arrays):
    with Image.open(PLACE / "files" / "a1111_pixels.png") as image:
        image.save(tmp_path / "style.webp", lossless=True, exact=True)
        image.save(tmp_path / "style.jpg", quality=90)
    (vectors,) = read_embedding(tmp_path / "style.webp")["my-style"]
    np.testing.assert_allclose(vectors, arrays["v2"], atol=1e-6)
    with pytest.raises(UserError, match="carries no embedding"):
        read_embedding(tmp_path / "style.jpg")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_and_read_again(layout, tmp_path, arrays):
    path = tmp_path / f"toy{LAYOUTS[layout]}"
    vectors = (arrays["vn"], arrays["clip_g"]) if layout == "sdxl" else arrays["vn"]
    write_embedding(path, {"toy": vectors}, layout=layout)
    ((word, found),) = read_embedding(path).items()
    assert word == "toy"
    np.testing.assert_array_equal(found[0], arrays["vn"])
    assert len(found) == (2 if layout == "sdxl" else 1)


def test_several_words_in_the_original_layout(tmp_path, arrays):
    write_embedding(
        tmp_path / "e.pt", {"<a>": arrays["v1"], "<b>": arrays["v2"]}, layout="original"
    )
    found = read_embedding(tmp_path / "e.pt")
    np.testing.assert_array_equal(found["<a>"][0], arrays["v1"])
    np.testing.assert_array_equal(found["<b>"][0], arrays["v2"])
    with pytest.raises(UserError, match="holds one word, not 2"):
        write_embedding(tmp_path / "e.safetensors", {"<a>": arrays["v1"], "<b>": arrays["v2"]})


@pytest.mark.parametrize("layout", ["original", "a1111"])
def test_torch_loads_what_is_written_without_running_code(layout, tmp_path, arrays):
    torch = pytest.importorskip("torch")
    write_embedding(tmp_path / "e.pt", {"toy": arrays["vn"]}, layout=layout, step=500)
    found = torch.load(tmp_path / "e.pt", weights_only=True)
    (vectors,) = found["string_to_param"].values()
    np.testing.assert_array_equal(vectors.numpy(), arrays["vn"])
    assert found.get("step") == (500 if layout == "a1111" else None)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_is_run(tmp_path):
    torch = pytest.importorskip("torch")
    evil = {"string_to_param": {"*": Evil(tmp_path / "run")}}
    np.save(tmp_path / "e.npy", {"<a>": Evil(tmp_path / "run")}, allow_pickle=True)
    torch.save(evil, tmp_path / "e.pt")
    (tmp_path / "e.bin").write_bytes(pickle.dumps(evil))
    (tmp_path / "run").unlink(missing_ok=True)
    for name in ("e.npy", "e.pt", "e.bin"):
        with pytest.raises(UserError, match="refused|neither"):
            read_embedding(tmp_path / name)
    assert not (tmp_path / "run").exists()


def save(path, tensors):
    write_safetensors(path, {k: np.asarray(v) for k, v in tensors.items()})


@pytest.mark.parametrize("tensors, message", [
    ({"<a>": np.full((1, 4), np.nan, np.float32)}, "NaN"),
    ({"<a>": np.ones((76, 4), np.float32)}, "76 vectors"),
    ({"<a>": np.ones((1, 4), np.int32)}, "int32"),
    ({"unet.conv": np.ones((1, 4, 3, 3), np.float32)}, "no file of learned words"),
    ({"<a>": np.ones((0, 4), np.float32)}, "no vectors"),
])  # fmt: skip
def test_files_of_something_else(tensors, message, tmp_path):
    save(tmp_path / "x.safetensors", tensors)
    with pytest.raises(UserError, match=message) as caught:
        read_embedding(tmp_path / "x.safetensors")
    assert "x.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_files(tmp_path):
    for name in FILES:
        data = (PLACE / "files" / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(UserError):
            read_embedding(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        read_embedding(tmp_path / "absent.pt")
    np.save(tmp_path / "plain.npy", np.zeros(3))
    with pytest.raises(UserError, match="no pickled dictionary"):
        read_embedding(tmp_path / "plain.npy")


def test_a_word_is_never_a_path(tmp_path, arrays):
    write_embedding(tmp_path / "e.safetensors", {"../../evil": arrays["v1"]})
    assert [path.name for path in tmp_path.iterdir()] == ["e.safetensors"]
    shutil.copy(PLACE / "files" / "kohyaStyle.safetensors", tmp_path / "other.safetensors")
    assert list(read_embedding(tmp_path / "other.safetensors")) == ["other"]


@pytest.mark.parametrize("word", ["", "two words", "tab\t", "x" * 101, "\x1b[31m", "a\u202eb"])
def test_words_that_cannot_be_written(word, tmp_path, arrays):
    with pytest.raises(UserError, match="cannot be a word"):
        checked_word(word)
    with pytest.raises(UserError):
        write_embedding(tmp_path / "e.safetensors", {word: arrays["v1"]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, layout", [("e.pt", "diffusers"), ("e.safetensors", "a1111"),
                                          ("e.pt", "csv")])  # fmt: skip
def test_layouts_and_endings(name, layout, tmp_path, arrays):
    with pytest.raises(UserError, match="layout"):
        write_embedding(tmp_path / name, {"toy": arrays["v1"]}, layout=layout)
