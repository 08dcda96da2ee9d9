"""DreamBooth on the embedded model: the whole UNet learns an object from four pictures.

Method: Ruiz et al. 2022 (2208.12242), prior preservation with pictures of the model itself.
Hardware: 2 CPU cores. Time: minutes. Expected outcome: the object in new sentences, its class
still drawn as before; rates in docs/personalisation.md.
Command: python train/dreambooth.py --config configs/dreambooth.py --data pictures \\
    --out runs/subject --set kind=panda

Stable Diffusion, as diffusers' script and README have it: model=..., templates=dreambooth,
class_prompts=dreambooth, class_guidance=7.5, class_steps=50, class_pictures=200, batch=2 (one of
the subject, one of the class), rate=5e-6 (2e-6 with the text encoder), 800 steps (400 without
prior), focus=-1, cache_latents=False and crop=random (the middle square is used otherwise). On an
accelerator compute=bfloat16.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Settings of train/dreambooth.py."""
    return ConfigDict(
        dict(
            model="emoji",
            word="",  # the identifier; "": a rare one of the vocabulary, which is printed
            kind="",  # the class: "dog"
            text_encoder=False,  # train it too
            prior=1.0,  # weight of the class; 0: no prior preservation
            class_pictures=64,
            class_prompts="emoji",
            class_steps=25,
            class_guidance=4.0,
            templates="emoji",
            flip=0.0,
            skip_broken=False,
            crop="middle",  # or random, with cache_latents=False: the square that is used
            cache_latents=True,  # False: pictures are read anew and encoded in the step
            cache_texts=0,  # states of so many sentences are kept, not made in every step
            seed=0,
            batch=16,
            steps=200,
            rate=1e-4,
            focus=0.5,
            min_snr=0.0,
            offset=0.0,
            dtype="float16",  # of the files
            save_every=100,
            log_every=20,
        )
    )
