"""The tiny networks of the golden vectors as a bundle whose prompts are names of embeddings."""

import json
import pathlib
import shutil

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.bundles.build import build
from diffedit_jax.bundles.stable_diffusion import Coder, StableDiffusion
from diffedit_jax.checkpoints.model_folder import NETWORKS, read_component
from diffedit_jax.checkpoints.parts import Parts
from diffedit_jax.checkpoints.style_file import StyleParts, write_style
from diffedit_jax.core import Cond, Network, Schedule

GOLDEN = pathlib.Path(__file__).parent / "golden" / "latent"


class Told(StableDiffusion):
    """A bundle without a text encoder: a prompt is the name of an embedding in `told`."""

    told: dict = struct.field(default_factory=dict)  # {prompt: [tokens, width]}

    def condition(self, prompts, **sizes):
        return Cond(text=jnp.stack([self.told[prompt] for prompt in prompts]))

    def text_notices(self, texts):
        return []


def golden_bundle(unet: str, told: dict, *, kind="epsilon", schedule=None, **options) -> Told:
    """The golden set's `models/<unet>` and `models/vae`.

    Args:
      unet: "unet_sd1", "unet_ip2p" or "unet_inpaint".
      told: {prompt: [tokens, width] or [1, tokens, width]}; "" is the null prompt.
      options: of the networks (dtype, attention, ...).
    """
    parts = Parts(where="golden")
    for name, folder in (("unet", unet), ("vae", "vae")):
        place = GOLDEN / "models" / folder
        parts.weights[name] = NETWORKS[name][0](read_component(place, None, print), str(place))
        parts.configs[name] = json.loads((place / "config.json").read_text())
    module, params = build(parts, "unet", **options)
    vae, vae_params = build(parts, "vae", **options)
    return Told(
        denoiser=Network(params=params, module=module, kind=kind),
        vae=Coder(params=vae_params, module=vae),
        texts=(),
        tokenizers=(),
        schedule=schedule or Schedule(),
        scaling_factor=float(vae.scaling_factor),
        told={name: jnp.asarray(np.squeeze(value)) for name, value in told.items()},
    )


def exemplar_folder(place: pathlib.Path) -> pathlib.Path:
    """A whole tiny Paint by Example as a diffusers folder: the golden set's networks."""
    sources = {"unet": "models/unet_inpaint", "vae": "models/vae",
               "image_encoder": "09_paint_by_example/image_encoder"}  # fmt: skip
    for name, source in sources.items():
        shutil.copytree(GOLDEN / source, place / name)
    scheduler = {"_class_name": "PNDMScheduler", "num_train_timesteps": 1000,
                 "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                 "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}  # fmt: skip
    (place / "scheduler").mkdir()
    (place / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = {
        "_class_name": "PaintByExamplePipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "image_encoder": ["paint_by_example", "PaintByExampleImageEncoder"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "safety_checker": [None, None],
    }
    (place / "model_index.json").write_text(json.dumps(index))
    return place


def nhwc(array):
    """[..., c, h, w] as the golden files store -> [..., h, w, c]."""
    return np.moveaxis(np.asarray(array), -3, -1)


def style_file(path: pathlib.Path, *, width: int = 16, seed: int = 0, **facts) -> str:
    """A style file of random weights whose words are `width` wide; facts as `StyleParts` has them.

    By default it holds what its pictures said: a word and the statistics of 4 channels.
    """
    rng = np.random.default_rng(seed)
    inner = {f"to_{name}.weight": (32, width) for name in "qkv"}
    inner |= {"to_out.0.weight": (width, 32), "to_out.0.bias": (width,)}
    shapes = {f"attn{k}.{name}": shape for k in (1, 2) for name, shape in inner.items()}
    shapes |= {"net.1.weight": (width, width), "net.1.bias": (width,)}
    weights = {name: rng.normal(size=shape) / 4 for name, shape in shapes.items()}
    kept = {"vector": rng.normal(size=width), "mean": rng.normal(size=4) / 2,
            "deviation": rng.uniform(0.5, 1.5, 4)}  # fmt: skip
    write_style(path, StyleParts(weights, **{"kept": kept, "tower": "emoji"} | facts))
    return str(path)
