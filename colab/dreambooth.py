# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Teach the model a subject (DreamBooth)
#
# A small change of the network (LoRA) learns a subject from four pictures, and pictures that the
# model draws of the subject's class keep it from forgetting the class.
#
# In Colab, first clone the repository, then `%cd diffedit_jax` and `%pip install .`

# %%
import os
from pathlib import Path

import diffedit_jax as de
from configs import dreambooth_lora
from diffedit_jax.training.settings import complete

config = complete(dreambooth_lora.get_config())
config.update(word="z", kind="panda")  # "a z panda": a rare word of the vocabulary, and the class
config.steps = int(os.environ.get("TRAIN_STEPS", config.steps))
out = Path("subject")

# %% [markdown]
# ## Pictures
#
# The embedded model has never seen a koala, so koalas are rendered here; put your own folder in
# their place.

# %%
from diffedit_jax.bench.subject import write_pictures

pictures = Path("koalas")
write_pictures("koala", 4, pictures, captions=True)

# %% [markdown]
# ## Train
#
# First the model draws pictures of the class (`prior` is their weight, 0 leaves them out).

# %%
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import dreambooth as task
from diffedit_jax.training.tasks.shared import learned

model = de.load("emoji", dtype=config.compute)
batches = task.dreambooth_batches(model, config, pictures, out)
state = fit(task.lora_task(model, config), Stepped(batches), config, out)
task.write_low_rank(out / "lora.safetensors", task.lora(config), learned(state), config.layout)

# %% [markdown]
# ## Use it
#
# On the command line: `diffedit generate "a z panda on a pink background" --lora
# subject/lora.safetensors --out koala.png`. The weight says how much: 0 is the model as it was.

# %%
from PIL import Image

rows = []
for prompt, weight in (("a z panda on a dotted pink background", 1.0),
                       ("a panda on a dotted pink background", 1.0),
                       ("a panda on a dotted pink background", 0.0)):  # fmt: skip
    taught = model.with_lora(out / "lora.safetensors", weight)
    rows.append(de.generate(taught, [prompt] * 4, seed=[0, 1, 2, 3]).images)
sheet = Image.new("RGB", (4 * 64, 3 * 64))
for y, row in enumerate(rows):
    for x, image in enumerate(row):
        sheet.paste(Image.fromarray(image), (64 * x, 64 * y))
sheet.resize((1024, 768), Image.Resampling.NEAREST)
