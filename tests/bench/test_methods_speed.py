"""The table of `bench speed --what methods`: every method once, beside what diffusers has of it."""

import argparse
import json

import pytest

import diffedit_jax as de
from diffedit_jax.bench import method_entry, random_model, speed, unet_entry

from .tiny import TINY_VAE


@pytest.mark.parametrize("name", sorted(set(de.methods()) - {"inst"}))  # it needs a trained style
def test_a_method_is_given_what_it_needs(name):
    given = method_entry.arguments(name, 64, 4)
    needs = [p.name for p in de.methods()[name].parameters.values() if p.required]
    assert set(needs) <= set(given)
    calls, rows = method_entry.evaluations(name, 4)
    assert calls >= 2 and rows >= 1


def test_what_diffusers_has_is_paired_with_ours(tmp_path):
    options = argparse.Namespace(model="emoji", steps=2, threads=1, methods="sdedit,edict")
    pairs, left_out = method_entry.entries(options, True, tmp_path)
    assert [(a.title, b and b.title) for a, b in pairs] == [
        ("sdedit", "diffusers sdedit"), ("edict", None),
    ]  # fmt: skip
    pairs, left_out = method_entry.entries(options, False, tmp_path)
    assert all(b is None for _, b in pairs) and "diffusers" in left_out


TINY_VISION = {**random_model.VISION, "hidden_size": 64, "intermediate_size": 64, "image_size": 28,
               "num_hidden_layers": 5, "num_attention_heads": 2}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, calls, channels",
    [
        ("sdedit", 1, 4),  # int(2 * 0.8) steps of guidance
        ("paint_by_example", 2, 9),
    ],
)
def test_a_model_of_random_weights_runs_on_both_sides(tmp_path, capsys, name, calls, channels):
    pytest.importorskip("diffusers")
    folder, out = tmp_path / "model", tmp_path / "speed.json"
    small = dict(unet=unet_entry.SMALL, vae=TINY_VAE, vision=TINY_VISION)
    random_model.write_random_model(folder, channels, **small)
    words = ["--model", str(folder), "--methods", name, "--steps", "2", "--repeats", "2"]
    assert speed.main(["--what", "methods", *words, "--threads", "1", "--json", str(out)]) == 0
    (row,) = json.loads(out.read_text())["methods"]["methods"]
    assert row["calls"] == calls and row["rows"] == 2
    assert row["ratio"] == pytest.approx(row["seconds"] / row["diffusers"], rel=2)
    assert "diffusers s" in capsys.readouterr().out


def test_random_models_have_sisters_for_methods_of_more_channels(tmp_path, monkeypatch):
    small = dict(unet=unet_entry.SMALL, vae=TINY_VAE, vision=TINY_VISION)
    real = random_model.write_random_model
    monkeypatch.setattr(random_model, "write_random_model",
                        lambda folder, channels: real(folder, channels, **small))  # fmt: skip
    names = "sdedit,instruct_pix2pix,paint_by_example"
    options = argparse.Namespace(model="sd15", steps=2, threads=1, methods=names)
    pairs, left_out = method_entry.entries(options, True, tmp_path)
    assert not left_out
    models = [de.load(ours.request.split(" ")[1]) for ours, _ in pairs]
    assert [model.in_channels for model in models] == [4, 8, 9]
    assert models[2].exemplar is not None and not models[2].texts
