"""The tiny networks of the golden vectors as a bundle whose prompts are names of embeddings."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffedit_jax.bundles.build import build
from diffedit_jax.bundles.stable_diffusion import Coder, StableDiffusion
from diffedit_jax.checkpoints.model_folder import NETWORKS, read_component
from diffedit_jax.checkpoints.parts import Parts
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


def nhwc(array):
    """[..., c, h, w] as the golden files store -> [..., h, w, c]."""
    return np.moveaxis(np.asarray(array), -3, -1)
