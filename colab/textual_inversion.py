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
# # Teach the model a word (textual inversion)
#
# Four pictures of a thing become a few numbers: a new word, in a file of some kilobytes, that any
# prompt can use. The model itself stays as it is.
#
# In Colab, first clone the repository, then `%cd diffedit_jax` and `%pip install .`

# %%
import os
from pathlib import Path

import diffedit_jax as de
from configs import textual_inversion
from diffedit_jax.training.settings import complete

config = complete(textual_inversion.get_config())
config.update(word="<koala>", initial="panda")
config.steps = int(os.environ.get("TRAIN_STEPS", config.steps))
out = Path("word")

# %% [markdown]
# ## Pictures
#
# A folder of three to five pictures, any size. `0.txt` beside `0.png` tells what is *not* the
# subject, with `{}` for the word; without it, templates are used. The embedded model has never seen
# a koala, so koalas are rendered here; put your own folder in their place.

# %%
from diffedit_jax.bench.subject import write_pictures

pictures = Path("pictures")
write_pictures("koala", 4, pictures, captions=True)
sorted(path.name for path in pictures.iterdir())

# %% [markdown]
# ## Train
#
# `with_word` adds the word to tokenizer and text encoder; only its own vectors are trained. The
# progress bar shows the loss; a run that is interrupted goes on where it was.

# %%
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.loop import fit
from diffedit_jax.training.tasks import textual_inversion as task
from diffedit_jax.training.tasks.shared import learned

model, rows = task.with_word(de.load("emoji", dtype=config.compute), config.word, config.vectors)
batches = task.inversion_batches(model, config, pictures, rows)
state = fit(task.inversion_task(model, config, rows), Stepped(batches), config, out)
task.write_word(out / "learned_embeds.safetensors", config.word, learned(state))

# %% [markdown]
# ## Use it
#
# On the command line: `diffedit generate "a <koala> on a pink background" --embedding
# word/learned_embeds.safetensors --out koala.png`

# %%
from PIL import Image

taught = de.load("emoji").with_embedding(out / "learned_embeds.safetensors")
drawn = de.generate(taught, ["a <koala> on a dotted pink background"] * 4, seed=[0, 1, 2, 3])
sheet = Image.new("RGB", (4 * 64, 64))
for i, image in enumerate(drawn.images):
    sheet.paste(Image.fromarray(image), (64 * i, 0))
sheet.resize((1024, 256), Image.Resampling.NEAREST)
