"""The networks, in linen and NHWC; each returns its result and a dict of named features."""

from diffedit_jax.models.clip import CLIPText, CLIPVision
from diffedit_jax.models.exemplar import Exemplar
from diffedit_jax.models.lpips import LPIPS
from diffedit_jax.models.trunks import VGG, AlexNet, SqueezeNet
from diffedit_jax.models.unet import UNet
from diffedit_jax.models.vae import AutoencoderKL
from diffedit_jax.models.vit import ViT

__all__ = [
    "LPIPS",
    "VGG",
    "AlexNet",
    "AutoencoderKL",
    "CLIPText",
    "CLIPVision",
    "Exemplar",
    "SqueezeNet",
    "UNet",
    "ViT",
]
