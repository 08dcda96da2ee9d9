"""What a run leaves behind is whole, and never takes an older one away before it is."""

import numpy as np
import pytest

from diffedit_jax.checkpoints import write
from diffedit_jax.errors import UserError
from diffedit_jax.training import disk, products

MODEL = {"unet": np.zeros((10, 5), np.float32), "vae": np.zeros(50, np.float32)}


@pytest.fixture
def saved(monkeypatch):
    """Writing a model costs nothing; what is appended here is what is written next."""
    texts = []

    def save(model, folder, dtype):
        folder.mkdir()
        (folder / "part").write_text(texts[-1])
        if texts[-1] == "fails":
            raise UserError("no space")
        (folder / "model_index.json").write_text("{}")

    monkeypatch.setattr(products, "save", save)
    return texts


def text_of(folder):
    return (folder / "part").read_text()


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_model_takes_the_place_of_the_one_before(tmp_path, saved, monkeypatch, exchanged):
    folder = tmp_path / "model"
    if not exchanged:  # as where the kernel knows no exchange of names
        monkeypatch.setattr(write, "_exchanged", lambda one, other: False)
    for text in ("first", "second", "third"):
        saved.append(text)
        products.write_model(MODEL, folder, None)
        assert text_of(folder) == text
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_while_a_model_is_written_the_one_before_is_there(tmp_path, saved, monkeypatch):
    folder = tmp_path / "model"
    saved.append("first")
    products.write_model(MODEL, folder, None)
    saved.append("fails")
    with pytest.raises(UserError, match="no space"):
        products.write_model(MODEL, folder, None)
    assert text_of(folder) == "first"
    saved.append("second")
    with monkeypatch.context() as killed:  # between the writing and the exchange
        killed.setattr(products, "exchange", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            products.write_model(MODEL, folder, None)
    assert text_of(folder) == "first"
    products.write_model(MODEL, folder, None)
    assert text_of(folder) == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]  # nothing of the lost writes


def test_two_names_are_exchanged_in_one_step(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.mkdir()
        (path / "part").write_text(path.name)
    if not write._exchanged(one, other):
        pytest.skip("this system exchanges no names")
    assert (text_of(one), text_of(other)) == ("other", "one")


def test_what_is_no_model_is_left_alone(tmp_path, saved):
    saved.append("first")
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UserError, match="is no model; remove it"):
        products.write_model(MODEL, tmp_path, None)
    assert (tmp_path / "notes").read_text() == "mine"


def test_a_model_without_room_is_told_before_it_is_written(tmp_path, saved, monkeypatch):
    saved.append("first")
    folder = tmp_path / "model"
    products.write_model(MODEL, folder, None)
    assert products.model_bytes(MODEL, None) == 400 == 2 * products.model_bytes(MODEL, "float16")
    usage = disk.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage._replace(free=399))
    with pytest.raises(disk.DiskFull, match="the model needs 400 bytes, 399 are free"):
        products.write_model(MODEL, folder, None)
    assert text_of(folder) == "first" and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="dtype must be one of"):
        products.model_bytes(MODEL, "float8")
