r"""Direct Inversion: no source prompt, one knob between the picture and the prompt.

Paper: Elarabawy et al. 2022 (2211.07825); steps, guidance and lambda are those of the authors'
notebook.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: a compromise between picture and prompt that --set injection moves: 1 gives the
picture back, 0 is DDIM inversion without a source prompt.
Command: diffedit edit cat.png --method direct_inversion --prompt "a dog on a blue background" \
    --set injection=0.5 --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `direct_inversion`."""
    return ConfigDict(dict(method="direct_inversion", steps=100, guidance=3.0, injection=0.5))
