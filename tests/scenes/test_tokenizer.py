"""The tokenizer of the tiny model, against transformers."""

import json

import numpy as np
import pytest

from diffedit_jax.scenes import sample_caption, sample_scene
from diffedit_jax.scenes.captions import words
from diffedit_jax.scenes.tokenizer import (
    END,
    MAX_LENGTH,
    START,
    build_merges,
    build_vocabulary,
    byte_characters,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(place, words())
    return place


@pytest.fixture(scope="module")
def tokenizer(folder):
    return pytest.importorskip("transformers").CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def vocabulary():
    return build_vocabulary(build_merges(words()))


def test_ids_are_a_range_and_the_specials_come_last(vocabulary, folder):
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert vocabulary[START] == len(vocabulary) - 2 and vocabulary[END] == len(vocabulary) - 1
    assert json.loads((folder / "vocab.json").read_text()) == vocabulary


def test_the_256_bytes_have_256_characters():
    assert len(set(byte_characters())) == 256


def test_every_word_of_the_world_is_one_token(tokenizer, vocabulary):
    for word in words():
        ids = tokenizer(word)["input_ids"]
        if word == "3d":  # CLIP splits digits from letters before it merges
            assert ids[1:-1] == [vocabulary["3</w>"], vocabulary["d</w>"]]
        else:
            assert ids == [vocabulary[START], vocabulary[f"{word}</w>"], vocabulary[END]]


def test_captions_fit_and_are_padded_with_the_end(tokenizer, vocabulary):
    rng = np.random.default_rng(0)
    assert tokenizer.model_max_length == MAX_LENGTH
    for _ in range(300):
        text = sample_caption(rng, sample_scene(rng))
        assert len(tokenizer(text)["input_ids"]) <= MAX_LENGTH
    padded = tokenizer("a cat", padding="max_length")["input_ids"]
    assert padded[-MAX_LENGTH + 3 :] == [vocabulary[END]] * (MAX_LENGTH - 3)


@pytest.mark.parametrize("text", ["zebra", "sks", "Ünïcödé ☃", "a CAT!", "don't"])
def test_other_text_falls_back_to_bytes_and_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids[1:-1])
    table = {
        character: byte for byte, character in zip(_byte_order(), byte_characters(), strict=True)
    }
    raw = bytes(table[c] for c in "".join(tokens).replace("</w>", ""))
    assert raw.decode("utf-8") == text.lower().replace(" ", "")


def _byte_order():
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return kept + [byte for byte in range(256) if byte not in kept]
