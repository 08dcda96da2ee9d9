"""Recorded ids, what is cut and said so, and texts that are none."""

import json
import shutil

import numpy as np
import pytest

from diffedit_jax.bundles.tokenizer import Tokenizer
from diffedit_jax.errors import UserError

from .conftest import PIPELINES

GOLDEN = json.loads((PIPELINES / "tokenizer_golden.json").read_text())["tiny"]


def tokenizer(name="sd1", **sizes):
    sizes = {"length": 77, "vocabulary": 654} | sizes
    return Tokenizer(PIPELINES / name / "tokenizer", **sizes)


@pytest.fixture(scope="module")
def sd1():
    return tokenizer()


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "tokenizer"
    shutil.copytree(PIPELINES / "sd2" / "tokenizer", folder)
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755)
    return folder


def test_recorded_ids(sd1):
    texts = [case["text"] for case in GOLDEN]
    np.testing.assert_array_equal(sd1(texts), [case["ids_sd1"] for case in GOLDEN])
    assert sd1(texts).dtype == np.int32


def test_stable_diffusion_2_pads_with_exclamation_marks():
    expected = [case["ids_sd2_pad_exclamation"] for case in GOLDEN]
    np.testing.assert_array_equal(tokenizer("sd2")([case["text"] for case in GOLDEN]), expected)


def test_the_special_tokens_map_wins_over_the_config(files):
    """The published Stable Diffusion 2 says "!" in one and the end of text in the other."""
    config = json.loads((files / "tokenizer_config.json").read_text())
    config["pad_token"] = "<|endoftext|>"
    (files / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer(files, length=77, vocabulary=654)([""])[0, -1] == 0


def test_texts_that_fit_are_not_remarked_on(sd1):
    assert sd1.cut(["", "a", "a " * 75]) == ["", "", ""]
    assert sd1.notices(["a " * 75]) == []


@pytest.mark.parametrize("words", [76, 200, 5000])
def test_what_does_not_fit_is_said(sd1, words):
    texts = ["x " * 75 + " ".join(["Lost"] + ["a"] * (words - 76)), "short"]
    (cut, kept), notices = sd1.cut(texts), sd1.notices(texts)
    assert cut.startswith("Lost") and kept == ""
    assert len(notices) == 1 and "77 tokens" in notices[0] and "Lost" in notices[0]
    assert len(notices[0]) < 400
    assert sd1(texts).shape == (2, 77) and (sd1(texts)[0, -1] == 653).all()


def test_a_prompt_of_10000_characters(sd1):
    assert sd1(["a" * 10_000]).shape == (1, 77)
    assert len(sd1.cut(["a" * 10_000])[0]) == 10_000 - 75


@pytest.mark.parametrize("text", ["a \ud800 cat", "\udfff"])
def test_lone_surrogates(sd1, text):
    for function in (sd1, sd1.cut):
        with pytest.raises(UserError, match="lone surrogate"):
            function(["fine", text])


@pytest.mark.parametrize("text", ["\x00", "e\u0301", "\U0001f9ff\u200d", "\u202eabc", "a\r\nb\tc"])
def test_odd_texts_are_texts(sd1, text):
    ids = sd1([text])
    assert ids.shape == (1, 77) and ids.max() < 654


def test_ids_beyond_the_text_encoder():
    small = tokenizer(vocabulary=600)
    with pytest.raises(UserError, match="600 words"):
        small(["a cat"])


def test_added_words(files):
    (files / "added_tokens.json").write_text('{"<my-cat>": 654}')
    with_word = Tokenizer(files, length=77, vocabulary=655)
    assert 654 in with_word(["a photo of <my-cat>"])
    with pytest.raises(UserError, match="'<my-cat>'"):
        Tokenizer(files, length=77, vocabulary=654)(["<my-cat>"])


def test_the_shorter_length_holds(files):
    assert Tokenizer(files, length=12, vocabulary=654)(["a cat"]).shape == (1, 12)
    assert Tokenizer(files, length=400, vocabulary=654)(["a cat"]).shape == (1, 77)


def test_equality_is_by_content(files):
    same = Tokenizer(files, length=77, vocabulary=654)
    assert same == tokenizer("sd2") and hash(same) == hash(tokenizer("sd2"))
    assert same != tokenizer("sd1")


def test_saved_files_are_the_same(files, tmp_path):
    first = Tokenizer(files, length=77, vocabulary=654)
    first.save(tmp_path / "copy")
    assert first == Tokenizer(tmp_path / "copy", length=77, vocabulary=654)


def test_folders_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match="vocab.json and merges.txt"):
        Tokenizer(tmp_path, length=77, vocabulary=654)


@pytest.mark.parametrize("content", ["", "{", "[]", "<html>"])
def test_damaged_files(files, content):
    (files / "vocab.json").write_text(content)
    with pytest.raises(UserError):
        Tokenizer(files, length=77, vocabulary=654)(["a"])


def test_config_files_never_choose_code(files, tmp_path):
    config = json.loads((files / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (files / "tokenizer_config.json").write_text(json.dumps(config))
    (files / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\nclass Evil: pass\n")
    Tokenizer(files, length=77, vocabulary=654)(["a"])
    assert not (tmp_path / "marker").exists()
