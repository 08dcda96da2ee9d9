"""Put the trained parts together as diffedit_jax/assets/emoji, an ordinary diffusers folder.

python train/assemble_emoji.py --runs runs --out diffedit_jax/assets/emoji

Parts that have no run in the folder of runs stay as they are in --out.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from configs import pretrain_clip, pretrain_unet, pretrain_vae
from diffedit_jax.checkpoints.export import write_folder
from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.model_folder import read_model_folder
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.write import write_json, write_safetensors
from diffedit_jax.scenes import captions, tokenizer
from diffedit_jax.training import weights
from diffedit_jax.training.launch import start


def special_ids():
    """Size of the vocabulary and the ids that the text configs name."""
    size = len(tokenizer.build_vocabulary(tokenizer.build_merges(captions.words())))
    ends = {"bos_token_id": size - 2, "eos_token_id": size - 1, "pad_token_id": size - 1}
    return {"vocab_size": size, **ends}


def pipeline(runs, before):
    """UNet, VAE, text encoder and scheduler as parts of one model; what has no run as before."""
    files = {
        "unet": runs / "unet" / "unet.safetensors",
        "vae": runs / "vae" / "vae.safetensors",
        "text_encoder": runs / "unet" / "text_encoder.safetensors",
    }
    parts = Parts(where=str(runs))
    for name, path in files.items():
        there = path.exists() or not (before / name).is_dir()
        parts.weights[name] = (
            export(weights.load(path)) if there else read_model_folder(before).weights[name]
        )
    parts.configs = {
        "unet": pretrain_unet.UNET,
        "vae": pretrain_vae.NETWORK,
        "text_encoder": {**pretrain_unet.TEXT, **special_ids()},
        "scheduler": pretrain_unet.SCHEDULER,
    }
    return parts


def clip_weights(params):
    """Both towers in transformers' names, float16."""
    text, vision = dict(params["text"]), dict(params["vision"])
    heads = {
        "text_projection.weight": text.pop("text_projection")["kernel"].T,
        "visual_projection.weight": vision.pop("visual_projection")["kernel"].T,
        "logit_scale": np.reshape(params["logit_scale"], ()),
    }
    found = {f"text_model.{k}": v for k, v in export(text).items()}
    found |= {f"vision_model.{k}": v for k, v in export(vision).items()} | heads
    return {k: np.array(v, np.float16, order="C") for k, v in found.items()}


def write_clip(runs, folder):
    """The CLIPModel folder: config, weights, tokenizer, preprocessor."""
    folder.mkdir()
    config = {**pretrain_clip.CLIP}
    config["text_config"] = {**config["text_config"], **special_ids()}
    write_json(folder / "config.json", config)
    write_safetensors(
        folder / "model.safetensors", clip_weights(weights.load(runs / "clip" / "clip.safetensors"))
    )
    tokenizer.write_tokenizer(folder, captions.words())
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    size = {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}}
    norm = {"image_mean": mean, "image_std": std, "resample": 3}
    write_json(
        folder / "preprocessor_config.json",
        {"image_processor_type": "CLIPImageProcessor", **size, **norm},
    )


KEPT = ("README.md", "defaults.json", "quality.json")


def main():
    """Write the folder anew; what was written by hand or measured (KEPT) stays in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--out", type=Path, default=Path("diffedit_jax/assets/emoji"))
    found = parser.parse_args()
    found.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found.out.parent) as scratch:
        made = Path(scratch) / "model"
        write_all(found.runs, found.out, made)
        shutil.rmtree(found.out, ignore_errors=True)
        made.rename(found.out)


def write_all(runs, before, out):
    """The whole folder `out`, with everything of `before` that no run replaces."""
    write_folder(
        pipeline(runs, before),
        out,
        lambda _, folder: tokenizer.write_tokenizer(folder, captions.words()),
        dtype="float16",
    )
    for name, write in (("clip", write_clip), ("judge", write_judge)):
        if (runs / name / f"{name}.safetensors").exists():
            write(runs, out / name)
        elif (before / name).is_dir():
            shutil.copytree(before / name, out / name)
    for name in KEPT:
        if (before / name).exists():
            shutil.copyfile(before / name, out / name)


def write_judge(runs, folder):
    """The judge's weights, float16 already."""
    folder.mkdir()
    shutil.copyfile(runs / "judge" / "judge.safetensors", folder / "judge.safetensors")


if __name__ == "__main__":
    start(main)
