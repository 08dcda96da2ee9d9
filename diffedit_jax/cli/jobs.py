"""From options to jobs: one job is one picture to be written."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import re
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..methods.registry import Method, find
from .rows import read_rows
from .values import checked_prompt, checked_seed, parameter, parameters_of

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
TEXTS = ("prompt", "source", "negative")
FILES = ("mask", "example", "style")
MIN_SIDE, MAX_SIDE = 8, 16_384  # pixels
_KNOBS = ("steps", "guidance", "strength", "solver")


@dataclasses.dataclass(frozen=True)
class Job:
    """One picture to be written.

    Attributes:
      method: how.
      image: the picture to edit; None where the method draws it.
      out: the file to write.
      seed: of its noise.
      own: texts and files of this job alone (`TEXTS`, `FILES`).
      rest: the method's other parameters, and "size"; jobs with equal ones can share a program.
    """

    method: Method
    image: Path | None
    out: Path
    seed: int
    own: dict[str, Any]
    rest: dict[str, Any]


def jobs_of(options: argparse.Namespace) -> list[Job]:
    """Every job that the options ask for: pictures x prompts x seeds, or the rows of a list."""
    if options.list:
        if getattr(options, "images", None) or options.prompt:
            raise UserError("--list names the pictures and prompts; give no others beside it")
        rows = read_rows(Path(options.list))
    else:
        rows = _combinations(options)
    if options.out is None and options.command != "plan":
        raise UserError("--out is missing: where shall the result go?")
    jobs = [_job(options, row) for row in rows]
    return _with_targets(options, jobs, rows)


def _combinations(options) -> list[dict[str, Any]]:
    prompts = options.prompt or [None]
    seeds = options.seed or [0]
    images = _pictures(getattr(options, "images", None) or [])
    if not images:
        if find(_method_name(options, {})).start == "picture":
            raise UserError("which picture? give a file, a folder or --list")
        images = [None]
    rows = []
    for image, (number, prompt), seed in itertools.product(images, enumerate(prompts, 1), seeds):
        name = [image.stem if image else _slug(prompt)]
        name += [f"p{number}"] if image and len(prompts) > 1 else []
        name += [f"s{seed}"] if len(seeds) > 1 else []
        rows.append(dict(image=image, prompt=prompt, seed=seed, name="-".join(name)))
    return rows


def _pictures(given: list[str]) -> list[Path]:
    """The files named, and the pictures in the folders named, in alphabetical order."""
    found = []
    for path in map(Path, given):
        if not path.is_dir():
            found.append(path)
            continue
        inside = [p for p in sorted(path.iterdir()) if p.suffix.lower() in _ENDINGS]
        if not inside:
            raise UserError(f"folder {path} holds no picture ({', '.join(_ENDINGS)})")
        found += inside
    return found


def _method_name(options, row: dict) -> str:
    if options.command == "generate":
        return "generate"
    name = row.get("method") or options.method
    if not name:
        raise UserError("--method is missing; `diffedit methods` lists them")
    return name


def _job(options, row: dict) -> Job:
    method = find(_method_name(options, row))
    if method.start == "noise" and row.get("image") is not None:
        raise UserError(f"{method.name} draws pictures from noise; it takes no picture")
    own = {name: getattr(options, name, None) for name in (*TEXTS, *FILES)} | {
        name: row[name] for name in (*TEXTS, *FILES) if row.get(name) is not None
    }
    own = {name: value for name, value in own.items() if value not in (None, [])}
    rest = parameters_of(method, options.set)
    rest |= {k: v for k in _KNOBS if (v := getattr(options, k, None)) is not None}
    rest |= {k: v for k, v in row.items() if k not in (*TEXTS, *FILES, *_OWN_COLUMNS)}
    rest = {k: parameter(method, k, v) for k, v in rest.items()}
    for name, value in own.items():
        parameter(method, name, value)
        if name in TEXTS:
            checked_prompt(name, value)
    size = _size(row.get("image"), row.get("size") or options.size)
    seed = checked_seed(row["seed"] if row.get("seed") is not None else (options.seed or [0])[0])
    image = row.get("image")
    return Job(method, None if image is None else Path(image), Path(), seed, own, {**rest, **size})


_OWN_COLUMNS = ("image", "out", "seed", "name", "method", "size")


def _size(image: Any, text: Any) -> dict[str, int]:
    """`--size`: the longer side of a picture; N or WxH where there is none."""
    if text is None:
        return {}
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", str(text))
    if not found or not all(MIN_SIDE <= int(n) <= MAX_SIDE for n in found.groups() if n):
        raise UserError(f"--size {text} should be a number of pixels, {MIN_SIDE} to {MAX_SIDE}")
    width, height = int(found[1]), found[2] and int(found[2])
    if image is None:
        return {"width": width, "height": height or width}
    if height:
        raise UserError("--size of an edit is the longer side alone; the picture gives the shape")
    return {"size": width}


def _with_targets(options, jobs: list[Job], rows: list[dict]) -> list[Job]:
    """Gives every job the file that it writes."""
    if options.out is None:
        return jobs
    out = Path(options.out)
    if len(jobs) == 1 and not options.list and not _is_folder(options.out):
        return [_aimed(jobs[0], out)]
    if out.suffix.lower() in _ENDINGS and not out.is_dir():
        raise UserError(f"{len(jobs)} results do not fit into {out}; give --out a folder")
    taken: set[Path] = set()
    aimed = []
    for number, (job, row) in enumerate(zip(jobs, rows, strict=True), 1):
        name = row.get("out") or f"{row.get('name') or _row_name(row, number)}.png"
        aimed.append(_aimed(job, _free(out / name, taken, bool(row.get("out")))))
    return aimed


def _is_folder(text: str) -> bool:
    return text.endswith(("/", "\\")) or Path(text).is_dir()


def _row_name(row: dict, number: int) -> str:
    return f"{number:04d}-{Path(row['image']).stem}" if row.get("image") else f"{number:04d}"


def _free(path: Path, taken: set[Path], exact: bool) -> Path:
    """A name that no other job writes: cat.png, cat-2.png, ..."""
    plain, number = path, 1
    while path in taken:
        if exact:
            raise UserError(f"two rows of the list write {path}")
        number += 1
        path = plain.with_stem(f"{plain.stem}-{number}")
    taken.add(path)
    return path


def _aimed(job: Job, out: Path) -> Job:
    if job.image is not None and out.exists() and job.image.exists() and out.samefile(job.image):
        raise UserError(f"--out would overwrite the picture {job.image}; give another name")
    return dataclasses.replace(job, out=out)


def _slug(text: str | None) -> str:
    """A file name made of a prompt."""
    words = re.findall(r"[a-z0-9]+", (text or "").lower())
    return "-".join(words)[:60].strip("-") or "picture"
