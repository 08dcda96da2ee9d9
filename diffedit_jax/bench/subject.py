"""Does a personalised model draw its subject in new sentences, and its class as before?

python -m diffedit_jax.bench.subject pictures koala --count 4          # training pictures
python -m diffedit_jax.bench.subject judge koala --word "<new>" --kind panda --embedding FILE

Only for objects of the emoji world that no training ever saw; read by the judge, which knows them.
PRES and DIV are DreamBooth's figures (Ruiz et al. 2023, section 4.3) for how the class drifts, with
the embedded CLIP in DINO's place: it knows this world, DINO does not.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..scenes import Scene, place, render, world

SHOWN = (("white", "plain"), ("yellow", "plain"), ("purple", "striped"), ("green", "dotted"))


ALIKE = 16  # pictures of one sentence whose distances are DIV


def subject_scenes(name: str, count: int, seed: int = 0) -> list[Scene]:
    """The scenes of a subject's pictures: `count` backgrounds, a little jitter."""
    rng = np.random.default_rng(seed)
    grounds = [SHOWN[i % len(SHOWN)] for i in range(count)]
    return [Scene((place(name, None, "centre", rng),), *ground) for ground in grounds]


def write_pictures(name: str, count: int, folder: Path, captions: bool = False) -> None:
    """Pictures of a subject as 0.png ...; `captions` writes 0.txt with {} for the word."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i, scene in enumerate(subject_scenes(name, count)):
        Image.fromarray(render(scene)).save(folder / f"{i}.png")
        if captions:
            (folder / f"{i}.txt").write_text(sentence("{}", scene.background, scene.pattern) + "\n")


def sentence(word: str, background: str, pattern: str) -> str:
    """ "a koala on a striped blue background": the world's own form of sentence."""
    ground = background if pattern == "plain" else f"{pattern} {background}"
    return f"a {word} on a {ground} background"


def new_grounds(name: str) -> list[tuple[str, str]]:
    """Backgrounds and patterns that no picture of the subject showed, and it stands out on."""
    pairs = itertools.product(world.BACKGROUNDS, world.PATTERNS)
    return [pair for pair in pairs if pair not in SHOWN and world.visible(name, None, pair[0])]


def judged(model, name: str, word: str, kind: str, count: int, seed: int, guidance: float) -> dict:
    """Rates over `count` sentences: subject and background of the word's, class of the class's."""
    from ..api import generate
    from ..bundles.loading import ASSETS
    from .judge import load_judge, read

    judge = load_judge(ASSETS / "emoji" / "judge" / "judge.safetensors")
    grounds = list(itertools.islice(itertools.cycle(new_grounds(name)), count))
    rates, pictures = {}, {}
    for who, said, wanted, other in (("subject", word, name, kind), ("class", kind, kind, name)):
        prompts = [sentence(said, *ground) for ground in grounds]
        drawn = generate(model, prompts, seed=seed, guidance=guidance).image
        seen = read(judge, drawn)
        rates[who] = seen["object"] == wanted
        rates[f"{who} turned into the other"] = seen["object"] == other
        rates[f"{who}: background"] = seen["background"] == np.asarray([g[0] for g in grounds])
        pictures[who] = drawn
    return rates | {"pictures": pictures}


def drift(model, name: str, kind: str, drawn: np.ndarray, seed: int, guidance: float) -> dict:
    """How far the class became the subject, and how alike its pictures are.

    PRES: mean cosine of CLIP embeddings between the drawn class and renders of the subject on the
    same backgrounds (lower is better). DIV: mean LPIPS between pictures of one sentence
    (higher is better), where LPIPS' weights are on this machine.

    Args:
      drawn: the class on `new_grounds`, in their order, uint8 [n, 64, 64, 3].
    """
    from ..api import generate
    from ..metrics import load_clip
    from ..metrics.subject import diversity, subject_fidelity
    from .edit_measures import optional_lpips

    grounds = itertools.islice(itertools.cycle(new_grounds(name)), len(drawn))
    real = np.stack([render(Scene((place(name, None, "centre"),), *ground)) for ground in grounds])
    clip = load_clip()
    found = {"PRES": float(subject_fidelity(clip.pictures(drawn), clip.pictures(real)))}
    if optional_lpips()[0]:
        one = [sentence(kind, *new_grounds(name)[0])] * ALIKE
        seeds = list(range(seed, seed + ALIKE))
        found["DIV"] = float(diversity(generate(model, one, seed=seeds, guidance=guidance).image))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Write pictures, or print rates with 95 % intervals and save a sheet of the drawn pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("pictures", "judge"))
    parser.add_argument("name", choices=sorted(world.HELD_OUT_OBJECTS))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("subject"))
    parser.add_argument("--captions", action="store_true", help="write a sentence per picture")
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--lora", action="append", default=[])
    parser.add_argument("--embedding", action="append", default=[])
    parser.add_argument("--word", help="what sentences call the subject")
    parser.add_argument("--kind", help="its class")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--guidance", type=float, default=3.0)
    found = parser.parse_args(arguments)
    if found.what == "pictures":
        write_pictures(found.name, found.count, found.out, found.captions)
        return
    if not found.word:
        raise UserError("name the word for the subject with --word")
    _judge(found)


def _judge(found) -> None:
    from PIL import Image

    from ..bundles import load
    from .statistics import wilson

    model = load(found.model, lora=found.lora, embedding=found.embedding)
    kind = found.kind or world.HELD_OUT_OBJECTS[found.name]
    rates = judged(model, found.name, found.word, kind, found.count, found.seed, found.guidance)
    pictures = rates.pop("pictures")
    for name, hits in rates.items():
        low, high = wilson(int(hits.sum()), len(hits))
        print(f"{name:32} {hits.mean():.2f}  [{low:.2f}, {high:.2f}]  n = {len(hits)}")
    for name, value in drift(
        model, found.name, kind, pictures["class"], found.seed, found.guidance
    ).items():
        print(f"{name:32} {value:.3f}")
    found.out.mkdir(parents=True, exist_ok=True)
    for who, drawn in pictures.items():
        rows = [np.concatenate(list(drawn[k : k + 8]), 1) for k in range(0, len(drawn) - 7, 8)]
        Image.fromarray(np.concatenate(rows)).save(found.out / f"{who}.png")


if __name__ == "__main__":
    main()
