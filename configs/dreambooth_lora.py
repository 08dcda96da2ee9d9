"""DreamBooth by LoRA on the embedded model: a small file that teaches an object.

Method: Ruiz et al. 2022 (2208.12242) with low-rank changes (Hu et al. 2021, 2106.09685).
Hardware: 2 CPU cores. Time: minutes. Expected outcome: as configs/dreambooth.py.
Command: python train/dreambooth_lora.py --config configs/dreambooth_lora.py --data pictures \\
    --out runs/subject --set kind=panda

Stable Diffusion, as diffusers' script and README have it: model=..., templates=dreambooth, prior=0,
targets=attention (or "attention and text"), rank=4, batch=1, rate=1e-4, steps=500, focus=-1; with
prior preservation the settings of dreambooth.py's docstring for the class. On an accelerator
compute=bfloat16.
"""

from ml_collections import ConfigDict

from configs import dreambooth


def get_config() -> ConfigDict:
    """Settings of train/dreambooth_lora.py: those of dreambooth.py and the LoRA's own."""
    config = dreambooth.get_config()
    del config["text_encoder"], config["dtype"]
    config.update(
        dict(
            rank=8,
            alpha=0.0,  # scale times rank; 0: the rank
            targets="transformers",  # attention, attention and text, transformers (and text)
            convolutions=0,  # rank of 3x3 convolutions and of resnets; 0: none
            convolution_alpha=0.0,  # their scale times their rank; 0: the rank
            start="gaussian",  # or kaiming
            layout="diffusers",  # of the file, or kohya
            rate=2e-3,
        )
    )
    return config
