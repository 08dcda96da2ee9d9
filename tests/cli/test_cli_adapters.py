"""`--lora` and `--embedding` on the embedded model: used, recorded, replayed, refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from diffedit_jax import recipe
from diffedit_jax.bundles import load
from diffedit_jax.bundles.adapters import module_shapes
from diffedit_jax.checkpoints.embeddings_write import write_embedding
from diffedit_jax.checkpoints.lora import Layer
from diffedit_jax.checkpoints.lora_write import write_lora
from diffedit_jax.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A LoRA of the cross-attention and a word of two vectors, for the embedded model."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    model = load("emoji")
    layers = {
        module: Layer(rng.normal(size=(2, shape[1])).astype(np.float32),
                      rng.normal(size=(shape[0], 2)).astype(np.float32) * 0.1)
        for module, shape in module_shapes(model).items() if "attn2.to_v" in module
    }  # fmt: skip
    write_lora(folder / "style.safetensors", layers)
    width = model.texts[0].module.hidden_size
    write_embedding(folder / "toy.safetensors", {"<toy>": rng.normal(size=(2, width))})
    write_embedding(folder / "wide.safetensors", {"<wide>": np.ones((1, width + 1), np.float32)})
    write_embedding(folder / "known.pt", {"*": np.ones((1, width), np.float32)}, layout="original")
    strange = {f"unet.nowhere.{i}.to_q": Layer(np.ones((1, 4)), np.ones((4, 1))) for i in range(2)}
    write_lora(folder / "strange.safetensors", strange)
    return folder


@pytest.fixture
def here(files, tmp_path, monkeypatch):
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    return tmp_path


def drawn(*words):
    out = f"{len(words)}.png"
    common = ["--steps", "2", "--seed", "1", "--quiet", "--out", out]
    assert main(["generate", "a <toy> cat", *words, *common]) == 0
    return np.asarray(Image.open(out)).astype(float)


@pytest.mark.slow
def test_files_are_used_recorded_and_replayed(here, capsys):
    words = ["--embedding", "toy.safetensors"]
    plain, word = drawn(), drawn(*words)
    both = drawn(*words, "--lora", "style.safetensors:0.8")
    assert np.abs(plain - word).max() > 5 and np.abs(word - both).max() > 5
    said = recipe.from_png("4.png")["model"]
    assert said["lora"][0].items() >= {"path": "style.safetensors", "weight": 0.8}.items()
    assert said["embedding"][0]["token"] == "<toy>"
    assert main(["replay", "4.png", "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == "identical"
    with open("style.safetensors", "ab") as file:
        file.write(b" ")
    assert main(["replay", "4.png", "--quiet"]) == 2
    assert "lora style.safetensors has changed" in capsys.readouterr().err


def test_a_plan_takes_them(here, capsys):
    options = ["--method", "generate", "--prompt", "a <dog>", "--steps", "2"]
    assert main(["plan", *options, "--embedding", "toy.safetensors:<dog>"]) == 0
    assert "evaluations" in capsys.readouterr().out


@pytest.mark.parametrize("words, message", [
    (["--lora", "absent.safetensors:0.8"], "the file absent.safetensors does not exist"),
    (["--lora", "absent.safetensors"], "the file absent.safetensors does not exist"),
    (["--lora", "style.safetensors:strong"], "the weight should be a number, not 'strong'"),
    (["--lora", "style.safetensors:nan"], "the weight should be a number"),
    (["--lora", "strange.safetensors"], "unet.nowhere.1.to_q"),
    (["--lora", "toy.safetensors"], "<toy>"),
    (["--embedding", "absent.pt"], "the file absent.pt does not exist"),
    (["--embedding", "wide.safetensors"], "'<wide>' has"),
    (["--embedding", "known.pt"], "'*' is in the tokenizer's vocabulary already"),
    (["--embedding", "toy.safetensors:cat"], "'cat' is in the tokenizer's vocabulary already"),
    (["--embedding", "toy.safetensors", "--embedding", "toy.safetensors"], "vocabulary already"),
    (["--embedding", "style.safetensors"], "no file of learned words"),
])  # fmt: skip
def test_mistakes_are_one_line(words, message, here, capsys):
    assert main(["generate", "a cat", *words, "--out", "out.png", "--quiet"]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1
    assert not (here / "out.png").exists()


def test_damaged_recipes_are_refused():
    base = {"model": {"source": "emoji"}, "inputs": {}}
    for entry in ("x", [1], [{"path": "a"}], [{"path": "a", "weight": "1", "sha256": ""}]):
        damaged = json.loads(json.dumps(base))
        damaged["model"]["lora"] = entry
        with pytest.raises(recipe.UserError):
            recipe.adapters_of(damaged)
