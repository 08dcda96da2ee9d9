"""Hub ids without a network: the local cache, what would be fetched, one line when offline."""

import os

import huggingface_hub
import pytest

from diffedit_jax.bundles import load
from diffedit_jax.bundles.hub import CLIP_TOKENIZER, fetch, wanted_files
from diffedit_jax.bundles.loading import read_parts
from diffedit_jax.errors import UserError

from .conftest import PIPELINES

SMALL = [
    *("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"),
    *("tokenizer/merges.txt", "unet/config.json", "vae/config.json", "text_encoder/config.json"),
]
NAMES = [
    *SMALL,
    *("README.md", ".gitattributes", "v1-5-pruned.ckpt", "safety_checker/model.safetensors"),
    *("safety_checker/config.json", "feature_extractor/preprocessor_config.json"),
    *("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.safetensors"),
    *("unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_flax_model.msgpack"),
    *("vae/diffusion_pytorch_model.bin", "vae/diffusion_pytorch_model.fp16.bin"),
    "text_encoder/model.safetensors.index.json",
    *(f"text_encoder/model-0000{n}-of-00002.safetensors" for n in (1, 2)),
    *(f"text_encoder/pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)),
]


def weights_of(names):
    return sorted(set(names) - set(SMALL))


def test_only_what_is_needed_is_fetched():
    assert set(SMALL) <= set(wanted_files(NAMES, None))
    assert weights_of(wanted_files(NAMES, None)) == [
        "text_encoder/model-00001-of-00002.safetensors",
        "text_encoder/model-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]


def test_a_variant_where_there_is_one():
    chosen = weights_of(wanted_files(NAMES, "fp16"))
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in chosen
    assert "vae/diffusion_pytorch_model.fp16.bin" in chosen
    assert "text_encoder/model.safetensors.index.json" in chosen
    assert not any(name.endswith("unet/diffusion_pytorch_model.safetensors") for name in chosen)


def test_repositories_that_are_no_model():
    with pytest.raises(UserError, match="no diffusers model"):
        wanted_files(["README.md", "model.safetensors"], None)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache as huggingface_hub lays it out, and no network."""
    hub = tmp_path / "hub"

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", offline)
    original = huggingface_hub.snapshot_download

    def download(repository, *, local_files_only=False, **rest):
        if not local_files_only:
            offline()
        return original(repository, cache_dir=hub, local_files_only=True, **rest)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return hub


def put(cache, repository, source):
    """Stores a folder as a snapshot whose files are links to blobs, as downloads are."""
    place = cache / f"models--{repository.replace('/', '--')}"
    commit = "0123456789abcdef0123456789abcdef01234567"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    (place / "blobs").mkdir()
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file())):
        blob = place / "blobs" / str(number)
        blob.write_bytes(path.read_bytes())
        link = place / "snapshots" / commit / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.mark.parametrize("local_files_only", [True, False])
def test_the_local_cache_is_honoured(cache, local_files_only):
    put(cache, "someone/tiny", PIPELINES / "sd1")
    folder = fetch("someone/tiny", variant=None, local_files_only=local_files_only)
    assert (folder / "unet" / "config.json").exists()
    parts = read_parts("someone/tiny", local_files_only=local_files_only)
    assert len(parts.weights["unet"]) == 304


def test_one_line_when_offline(cache):
    with pytest.raises(UserError, match="no route to host.*not in the local cache") as caught:
        load("someone/tiny")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="local_files_only"):
        load("someone/tiny", local_files_only=True)


def test_the_tokenizer_of_a_single_file_comes_from_the_cache(cache):
    put(cache, CLIP_TOKENIZER, PIPELINES / "sd1" / "tokenizer")
    parts = read_parts(PIPELINES / "sd1_single.ckpt", local_files_only=True)
    assert len(parts.tokenizers) == 1 and (parts.tokenizers[0] / "vocab.json").exists()
