"""Figures of a personalised model, on pictures whose answers are known: nothing is drawn."""

import types

import numpy as np
import pytest

from diffedit_jax import api
from diffedit_jax.bench import edit_measures, subject
from diffedit_jax.scenes import Scene, place, render


def renders(name, grounds):
    return np.stack([render(Scene((place(name, None, "centre"),), *g)) for g in grounds])


def test_a_class_that_became_the_subject_has_the_higher_pres(monkeypatch):
    monkeypatch.setattr(edit_measures, "optional_lpips", lambda: (None, "not here"))
    grounds = subject.new_grounds("koala")[:6]
    pres = {
        name: subject.drift(None, "koala", "panda", renders(name, grounds), 0, 1.0)["PRES"]
        for name in ("koala", "panda", "house")
    }
    assert pres["koala"] > pres["panda"] > pres["house"]
    assert pres["koala"] < 1  # other backgrounds are compared as well


def test_alike_pictures_of_one_sentence_have_no_diversity(monkeypatch):
    if edit_measures.optional_lpips()[0] is None:
        pytest.skip("the weights of LPIPS are not here")
    asked = []

    def generate(model, prompts, seed, guidance):
        asked.append((set(prompts), tuple(seed)))
        names = ["panda"] * len(prompts) if model == "same" else ["panda", "house"] * 8
        drawn = [renders(name, [("red", "plain")]) for name in names]
        return types.SimpleNamespace(image=np.concatenate(drawn))

    monkeypatch.setattr(api, "generate", generate)
    drawn = renders("panda", subject.new_grounds("koala")[:2])
    div = {m: subject.drift(m, "koala", "panda", drawn, 5, 1.0)["DIV"] for m in ("same", "two")}
    assert div["same"] == 0 and div["two"] > 0.01
    sentence = subject.sentence("panda", *subject.new_grounds("koala")[0])
    assert asked == [({sentence}, tuple(range(5, 21)))] * 2
