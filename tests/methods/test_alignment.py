"""Words, token maps and windows against the official code's, and where ours are more careful."""

import json

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.methods.alignment import refinement, replacement, token_map
from diffedit_jax.methods.windows import DEFAULT, self_window, token_scales, token_windows
from diffedit_jax.methods.words import Prompt, listed_words, read_prompt
from tests.golden_models import GOLDEN

LENGTH = 77
CASE = json.loads((GOLDEN / "01_p2p" / "align.json").read_text())
PAIRS = [p for p in CASE["pairs"] if p["id"] != 41]  # double spaces: the official look-up breaks


@pytest.fixture(scope="module")
def arrays():
    return dict(np.load(GOLDEN / "01_p2p" / "align.npz"))


def prompt(text, ids, decoded):
    """A prompt from the official tokenizer's ids and decoded pieces."""
    spans, at = [(0, 0)], 0
    for piece in decoded[1:-1]:
        at = text.lower().index(piece, at)
        spans.append((at, at + len(piece)))
        at += len(piece)
    return Prompt(text, tuple(ids), (*spans, (0, 0)))


def prompts(pair):
    return [
        prompt(*given) for given in zip(pair["prompts"], pair["ids"], pair["decoded"], strict=True)
    ]


def spec(given):
    """A window as the official code was given it: lists in dictionaries stand for tuples."""
    return given if isinstance(given, dict) else {DEFAULT: given}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p["id"]))
def test_words_have_the_official_tokens(pair):
    for p, official in zip(prompts(pair), pair["word_inds"], strict=True):
        assert p.word_tokens == official["by_index"]
        for word, tokens in official["by_word"].items():
            if tokens:
                assert p.tokens(word) == tokens


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p["id"]))
def test_replacement_maps_are_the_official_ones(pair, arrays):
    source, *targets = prompts(pair)
    name = f"p{pair['id']:02d}_replace_mapper"
    if pair["replace"] != "ok":
        with pytest.raises(UserError, match="use controller='refine'"):
            [replacement(source, target, LENGTH, "official") for target in targets]
        return
    ours = [replacement(source, target, LENGTH, "official").mapper for target in targets]
    np.testing.assert_allclose(np.stack(ours), arrays[name], atol=1e-7)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p["id"]))
def test_refinement_maps_are_the_official_ones(pair, arrays):
    source, *targets = prompts(pair)
    gathered = arrays[f"p{pair['id']:02d}_refine_mapper"]
    shares = arrays[f"p{pair['id']:02d}_refine_alphas"]
    for target, columns, share in zip(targets, gathered, shares, strict=True):
        ours = refinement(source, target, LENGTH, "official")
        np.testing.assert_array_equal(ours.fresh, 1 - share)
        np.testing.assert_array_equal(ours.mapper, np.eye(LENGTH)[columns].T * share)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p["id"]))
def test_windows_are_the_official_tables(pair, arrays):
    _, *targets = prompts(pair)
    for given in pair["alpha_specs"]:
        steps = np.arange(given["num_steps"] + 1)[:, None]
        words = {k: v for k, v in spec(given["spec"]).items() if k != "absent-word"}
        table = arrays[given["key"]][:, :, 0, 0]
        for row, target in enumerate(targets):
            known = {k: v for k, v in words.items() if k == DEFAULT or target.has(k)}
            window = token_windows(known, target, given["num_steps"], LENGTH)
            active = (window[:, 0] <= steps) & (steps < window[:, 1])
            np.testing.assert_array_equal(active, table[:, row])


@pytest.mark.parametrize("pair", PAIRS, ids=lambda p: str(p["id"]))
def test_factors_are_the_official_equalizer(pair, arrays):
    given = pair["equalizer"]
    target = next(p for p in prompts(pair) if p.text == given["text"])
    factors = dict(zip(given["words"], given["values"], strict=True))
    ours = token_scales(factors, target, LENGTH)
    np.testing.assert_array_equal(ours, arrays[f"p{pair['id']:02d}_eq_nulltext"][0])


def test_self_windows_count_steps():
    assert self_window(0.4, 50).tolist() == [0, 20]
    assert self_window("0.2:0.6", 50).tolist() == [10, 30]


@pytest.fixture(scope="module")
def read(tiny):
    return lambda text: read_prompt(tiny, text)


@pytest.mark.parametrize(
    ("text", "word", "same"),
    [
        ("a photo of a dog, running", "dog", "a photo of a dog running"),
        ("A Photo Of A CAT.", "cat", "a photo of a cat"),
        ('the "tiger" (sleeping)', "sleeping", "the tiger sleeping"),
        ("a  double   space", "space", "a double space"),
    ],
)  # fmt: skip
def test_words_are_found_through_punctuation_case_and_spaces(read, text, word, same):
    """The tokens are those of the bare word, without the punctuation's."""
    ids = [read(text).ids[i] for i in read(text).tokens(word)]
    assert ids == [read(same).ids[i] for i in read(same).tokens(word)]


def test_several_words_in_a_row_are_found(read):
    p = read("a hot dog on a hot plate")
    assert p.tokens("hot dog") == sorted(set(p.word_tokens[1] + p.word_tokens[2]))
    assert p.tokens("hot") == sorted(set(p.word_tokens[1] + p.word_tokens[5]))


@pytest.mark.parametrize(("word", "hint"), [("tigger", "did you mean 'tiger'"), ("zebra", "zebra")])
def test_a_word_that_is_absent_is_named(read, word, hint):
    with pytest.raises(UserError, match="is not in the prompt 'a tiger' *") as told:
        read("a tiger").tokens(word)
    assert hint in str(told.value) and "\n" not in str(told.value)


def test_a_word_that_was_cut_off_is_named(read):
    with pytest.raises(UserError, match="too long"):
        read("a " * 90 + "tiger").tokens("tiger")


def test_aligned_maps_never_shift_the_tail(read):
    """Padding after prompts of different length maps from padding, the official tail does not."""
    source, target = read("a cat on a mat"), read("a hippopotamus on a mat")
    lengths = len(source.ids), len(target.ids)
    assert lengths[0] != lengths[1]
    mapper, fresh = replacement(source, target, LENGTH)
    for k, j in enumerate(range(lengths[1] - 1, LENGTH)):
        column = np.zeros(LENGTH)
        if lengths[0] - 1 + k < LENGTH:
            column[lengths[0] - 1 + k] = 1
        np.testing.assert_array_equal(mapper[:, j], column)
        assert fresh[j] == 1 - column.sum()


@pytest.mark.parametrize("controller", ["auto", "replace", "refine", "reweight"])
def test_equal_prompts_map_token_by_token(read, controller):
    p = read("a cat on a red mat")
    mapper, fresh = token_map(p, p, LENGTH, controller)
    np.testing.assert_array_equal(mapper, np.eye(LENGTH))
    assert not fresh.any()


def test_auto_takes_replacement_for_equal_word_counts_and_refinement_else(read):
    a, b, c = read("a cat"), read("a dog"), read("a big dog")
    np.testing.assert_array_equal(token_map(a, b, LENGTH).mapper, replacement(a, b, LENGTH).mapper)
    np.testing.assert_array_equal(token_map(a, c, LENGTH).mapper, refinement(a, c, LENGTH).mapper)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ("0.8, lion=0.4", {DEFAULT: 0.8, "lion": 0.4}),
        ("0.2:0.6", (0.2, 0.6)),
        ("lion=0.1:0.3", {"lion": (0.1, 0.3)}),
    ],
)
def test_windows_are_written_as_text_too(read, given, same):
    p = read("a lion")
    windows = [token_windows(g, p, 50, LENGTH) for g in (given, same)]
    np.testing.assert_array_equal(*windows)


@pytest.mark.parametrize("bad", [1.2, -0.1, "0.6:0.2", "lots", "", {"zebra": 0.3}, (0.1, 0.2, 0.3)])
def test_windows_that_mean_nothing_are_refused(read, bad):
    with pytest.raises(UserError) as told:
        token_windows(bad, read("a lion"), 50, LENGTH)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("bad", ["3", "zebra=2", "lion=lots"])
def test_factors_that_mean_nothing_are_refused(read, bad):
    with pytest.raises(UserError):
        token_scales(bad, read("a lion"), LENGTH)


def test_lists_of_words():
    assert listed_words("cat tiger") == ["cat", "tiger"]
    assert listed_words("hot dog, tiger") == ["hot dog", "tiger"]
    assert listed_words(None) == []
