"""The embedded model: small enough, an ordinary diffusers folder, and as good as it says."""

import json
from importlib.resources import files
from pathlib import Path

import jax
import numpy as np
import pytest

import diffedit_jax as de

EMOJI = Path(str(files("diffedit_jax") / "assets" / "emoji"))
PROMPT = "a cat on a blue background"


@pytest.fixture(scope="module")
def model():
    return de.load("emoji")


def test_everything_fits_into_20_mb():
    size = sum(path.stat().st_size for path in EMOJI.rglob("*") if path.is_file())
    assert size <= 20_000_000


def test_the_model_card_says_what_it_is():
    card = (EMOJI / "README.md").read_text()
    for word in ("pretrain_unet.py", "Noto", "Fluent", "Apache", "MIT", "95 %"):
        assert word in card


def test_the_report_that_ships_holds_every_bar():
    from diffedit_jax.bench.quality_of_model import BARS

    report = json.loads((EMOJI / "quality.json").read_text())
    assert set(report["bars"]) == set(BARS)
    for row in report["bars"].values():
        assert row["low"] <= row["value"] <= row["high"] and row["n"] >= 64


def test_weights_are_half_precision_safetensors():
    from safetensors import safe_open

    found = sorted(EMOJI.rglob("*.safetensors"))
    assert len(found) == 5
    for path in found:
        with safe_open(path, "np") as handle:
            names = list(handle.keys())
            assert {str(handle.get_slice(name).get_dtype()) for name in names} == {"F16"}


@pytest.mark.slow
def test_diffusers_loads_it_and_samples_the_same_picture(model):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(EMOJI, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    noise = np.random.default_rng(0).normal(size=(1, 16, 16, 4)).astype(np.float32)
    theirs = pipe(
        PROMPT, num_inference_steps=10, guidance_scale=3.0, output_type="np",
        latents=torch.from_numpy(noise.transpose(0, 3, 1, 2)),
    ).images[0]  # fmt: skip
    with jax.default_matmul_precision("highest"):
        ours = de.generate(model, PROMPT, steps=10, guidance=3.0, noise=noise).image
    error = np.square(np.round(theirs * 255) - ours.astype(np.float64)).mean()
    assert 10 * np.log10(255**2 / max(error, 1e-12)) > 60


@pytest.mark.slow
def test_transformers_loads_the_clip_and_agrees_with_ours():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from diffedit_jax.scenes import Scene, place, render

    theirs = transformers.CLIPModel.from_pretrained(EMOJI / "clip", dtype=torch.float32)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(EMOJI / "clip")
    processor = json.loads((EMOJI / "clip" / "preprocessor_config.json").read_text())
    scenes = [
        Scene((place(name, None, "centre"),), ground)
        for name, ground in (("cat", "blue"), ("dog", "red"), ("tree", "white"), ("pig", "black"))
    ]
    texts = [f"a {s.things[0].name} on a {s.background} background" for s in scenes]
    pixels = np.stack([render(s) for s in scenes]).astype(np.float32) / 255
    pixels = (pixels - processor["image_mean"]) / processor["image_std"]
    ids = tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        out = theirs(ids, torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float())
    assert (out.logits_per_image.argmax(-1).numpy() == np.arange(4)).all()
