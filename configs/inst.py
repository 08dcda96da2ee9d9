r"""InST: repaint a picture in the style that one painting taught.

Paper: Zhang et al. 2023 (2211.13203); strength 0.7, guidance 10, 50 steps of DDIM and AdaIN on, as
the released notebook has them.
Hardware: any; Stable Diffusion's size on one GPU or TPU core. The style is trained beforehand
(configs/train_inst.py).
Expected outcome: the picture's layout in the painting's colours and strokes; more strength is more
style and less picture.
Command: diffedit edit photo.png --method inst --style runs/style/style.safetensors --out styled.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `inst`."""
    return ConfigDict(
        dict(
            method="inst",
            strength=0.7,
            adain=1.0,
            steps=50,
            guidance=10.0,
            rescale=0.0,
            solver="ddim",
        )
    )
