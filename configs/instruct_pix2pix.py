r"""InstructPix2Pix: follow an editing instruction, with a network trained for it.

Paper: Brooks et al. 2023 (2211.09800); 100 steps of Euler ancestral, guidance 7.5 for the text and
1.5 for the picture, as its command line has them.
Hardware: any; Stable Diffusion's size on one GPU or TPU core.
Expected outcome: the picture, changed as told; more image_guidance keeps more of it.
Command: diffedit edit photo.png --method instruct_pix2pix --model timbrooks/instruct-pix2pix \
    --prompt "make it winter" --set image_guidance=1.5 --out winter.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `instruct_pix2pix`."""
    return ConfigDict(
        dict(
            method="instruct_pix2pix",
            steps=100,
            guidance=7.5,
            image_guidance=1.5,
            solver="euler_ancestral",
        )
    )
