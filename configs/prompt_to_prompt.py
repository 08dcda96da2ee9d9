r"""Prompt-to-Prompt: another word, the same layout, by sharing attention maps.

Paper: Hertz et al. 2022 (2208.01626). The paper's examples take the source's cross attention for
0.8 and its self attention for 0.4 of the steps; for one changed word 0.4 for that word
("0.8, lion=0.4"). With a picture: Ju et al. 2024 (2310.01506) for the inversion.
Hardware: any; the embedded model on two CPU cores, Stable Diffusion on one GPU or TPU core.
Expected outcome: the prompt's object where the source's object was, everything else as it was.
Command: diffedit edit cat.png --method prompt_to_prompt \
    --source "a cat on a blue background" \
    --prompt "a dog on a blue background" --out dog.png
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Parameters of the method `prompt_to_prompt`."""
    return ConfigDict(
        dict(
            method="prompt_to_prompt",
            controller="auto",
            mapper="aligned",
            cross_replace_steps=0.8,
            self_replace_steps=0.4,
            inversion="pnp_inversion",
            steps=50,
            guidance=7.5,
        )
    )
