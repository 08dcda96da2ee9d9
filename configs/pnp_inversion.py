r"""PnP Inversion with Prompt-to-Prompt: the source row is held to its path.

Paper: Ju et al. 2024 (2310.01506); shares of the steps and guidance are those of the authors' code
for Prompt-to-Prompt on PIE-Bench.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: Prompt-to-Prompt's edit of a real picture, with a background close to the source.
Command: diffedit edit cat.png --method pnp_inversion --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `pnp_inversion`."""
    return ConfigDict(
        dict(method="pnp_inversion", steps=50, guidance=7.5, cross_replace_steps=0.4,
             self_replace_steps=0.6)
    )  # fmt: skip
