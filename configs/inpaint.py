r"""Inpainting: repaint what a mask covers and keep every other pixel.

Paper: Rombach et al. 2022 (2112.10752) for networks with nine input channels; Avrahami et al. 2022
(2111.14818) for blending with any network.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: the prompt's object inside the mask, the source's own pixels outside.
Command: diffedit edit cat.png --method inpaint \
    --mask mask.png --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `inpaint`."""
    return ConfigDict(
        dict(
            method="inpaint",
            strength=1.0,
            steps=50,
            guidance=7.5,
            solver="ddim",
            paste=True,
            band=4,
        )
    )
