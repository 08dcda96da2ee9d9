"""The networks, in linen and NHWC; each returns its result and a dict of named features."""

from diffedit_jax.models.clip import CLIPText, CLIPVision
from diffedit_jax.models.unet import UNet
from diffedit_jax.models.vae import AutoencoderKL

__all__ = ["AutoencoderKL", "CLIPText", "CLIPVision", "UNet"]
