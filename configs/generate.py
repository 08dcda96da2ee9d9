"""Text to image with classifier-free guidance.

Paper: Ho & Salimans 2022, Classifier-Free Diffusion Guidance (2207.12598).
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: a picture of the prompt.
Command: diffedit generate "a cat on a blue background" --guidance 7.5 --out cat.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `generate`."""
    return ConfigDict(
        dict(method="generate", steps=50, guidance=7.5, rescale=0.0, solver="ddim", eta=0.0)
    )
