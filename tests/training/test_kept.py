"""What a run keeps for the next start: read again if it is of the same things, else made anew."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from diffedit_jax.errors import UserError
from diffedit_jax.training import class_pictures, examples, kept, pictures
from diffedit_jax.training.examples import Drawn


class Halves:
    """An autoencoder whose mode is `by` times the picture's every second pixel."""

    def __init__(self, by=1.0):
        self.params, self.calls = {"by": np.float32(by)}, []

    def __call__(self, x, method):
        self.calls.append(len(x))
        return self.params["by"] * x[:, ::2, ::2], np.zeros_like(x[:, ::2, ::2])


def toy(by=1.0):
    return SimpleNamespace(vae=Halves(by), size=8, scaling_factor=1.0, factor=2)


def picture(i):
    return np.full((8, 8, 3), i, np.uint8)


def encode(keep, model=None, about=None, picture=picture, count=10):
    return pictures.encode_all(model or toy(), picture, count, keep, about or {"seed": 0})


def forbidden(i):
    raise AssertionError("drawn again")


def test_what_is_encoded_is_read_again_if_it_is_of_the_same_things(tmp_path):
    keep = tmp_path / "pairs.npy"
    first = np.array(encode(keep))
    np.testing.assert_allclose(first[:, 0, 0, 0], np.arange(10) / 127.5 - 1, atol=1e-3)
    np.testing.assert_array_equal(encode(keep, picture=forbidden), first)
    with pytest.warns(UserWarning, match="another autoencoder;"):
        np.testing.assert_allclose(encode(keep, toy(2.0)), 2 * first, atol=2e-3)
    later = lambda i: picture(i + 5)  # noqa: E731
    with pytest.warns(UserWarning, match="another autoencoder, seed;"):
        again = encode(keep, about={"seed": 1}, picture=later)
    np.testing.assert_allclose(again[:, 0, 0, 0], np.arange(5, 15) / 127.5 - 1, atol=1e-3)
    kept.note_of(keep).unlink()  # of an older version, or not whole
    with pytest.warns(UserWarning, match="made anew"):
        np.testing.assert_array_equal(encode(keep), first)


def test_an_encoding_that_was_cut_off_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_SAVE", 3)
    monkeypatch.setattr(kept, "_MOST", 2)
    keep, model, asked = tmp_path / "pairs.npy", toy(), []

    def lost(i):
        if i == 7:
            raise KeyboardInterrupt
        return picture(i)

    with pytest.raises(KeyboardInterrupt):
        encode(keep, model, picture=lost)
    assert not keep.exists() and max(model.vae.calls) == 2

    def rest(i):
        asked.append(i)
        return picture(i)

    whole = np.array(encode(keep, picture=rest))
    assert asked == [4, 5, 6, 7, 8, 9]  # four were noted
    np.testing.assert_array_equal(whole, encode(tmp_path / "other.npy"))
    with pytest.raises(KeyboardInterrupt):
        encode(keep, about={"seed": 1}, picture=lost)
    asked.clear()
    encode(keep, about={"seed": 2}, picture=rest)
    assert asked == list(range(10))  # not the beginning of another encoding


def test_large_pictures_go_through_an_autoencoder_a_few_at_a_time():
    """0.41 GB per picture of 512 x 512 of Stable Diffusion's encoder."""
    assert [kept.per_call(size) for size in (64, 256, 512, 768, 1024, 2048)] == [
        100,
        16,
        4,
        1,
        1,
        1,
    ]
    assert all(kept.per_call(s) * 0.41 * (s / 512) ** 2 < 2 for s in (64, 128, 256, 512, 1024))


def drawn(value=9):
    while True:
        yield Drawn(np.full((8, 8, 3), value, np.uint8), np.ones((8, 8), np.float32),
                    np.full((4, 4, 3), value, np.uint8))  # fmt: skip


def test_examples_of_other_things_are_drawn_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_MOST", 2)
    model, folder = toy(), tmp_path / "examples"
    prepared = lambda *x: examples.prepared(*x)  # noqa: E731
    first = prepared(model, drawn(), 5, folder, {"seed": 0})
    assert (first.shown == 9).all() and max(model.vae.calls) == 2
    again = prepared(model, iter(()), 5, folder, {"seed": 0})
    np.testing.assert_array_equal(again.latents, first.latents)
    for changed in ((model, drawn(3), 5, folder, {"seed": 1}),
                    (toy(2.0), drawn(4), 5, folder, {"seed": 1})):  # fmt: skip
        with pytest.warns(UserWarning, match="made anew"):
            found = prepared(*changed)
        assert (found.shown != first.shown).all()


@pytest.fixture
def draw(monkeypatch):
    """class_pictures with a generator that draws the number of its call."""
    calls = []

    def generate(model, images, *, prompt, **_):
        calls.append(prompt)
        return np.full((len(prompt), 8, 8, 3), len(calls), np.uint8)

    monkeypatch.setattr(class_pictures, "generate", generate)
    network = SimpleNamespace(params={"a": np.ones(2, np.float32)})
    model = SimpleNamespace(denoiser=network, texts=(network,), vae=network, size=8)

    def run(folder, prompts=("a dog",), model=model, **changes):
        config = ConfigDict(dict(seed=0, class_steps=5, class_guidance=4.0) | changes)
        before = len(calls)
        found, _ = class_pictures.class_pictures(model, prompts, 3, folder, config)
        return len(calls) - before, np.stack([pictures.read(file).pixels for file in found])

    return run


def test_class_pictures_of_other_things_are_drawn_anew(draw, tmp_path):
    folder = tmp_path / "class"
    assert draw(folder)[0] == 1 and draw(folder)[0] == 0
    (folder / "00001.png").unlink()
    assert draw(folder)[0] == 1  # what is missing
    other = SimpleNamespace(params={"a": np.zeros(2, np.float32)})
    network = SimpleNamespace(denoiser=other, texts=(other,), vae=other, size=8)
    before = 2
    for changes in (dict(prompts=("a cat",)), dict(seed=1), dict(class_guidance=7.5),
                    dict(model=network)):  # fmt: skip
        with pytest.warns(UserWarning, match="made anew"):
            made, found = draw(folder, **changes)
        before += 1
        assert made == 1 and (found == before).all()


def test_pictures_that_no_run_drew_are_left_alone(draw, tmp_path):
    folder = tmp_path / "class"
    draw(folder)
    kept.note_of(folder).unlink()
    with pytest.raises(UserError, match="no run has drawn"):
        draw(folder)
    assert len(list(folder.glob("*.png"))) == 3
