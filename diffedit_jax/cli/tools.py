"""`diffedit convert`, `bench` and `train`: doors to what other packages do."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import runpy
import sys
from pathlib import Path

from ..errors import UserError

_BENCHES = ("quality", "speed", "tpu")


def convert(options: argparse.Namespace) -> None:
    """Turns a checkpoint into a diffusers folder or a single file."""
    from .. import bundles
    from .adapters import files_of

    names = ("dtype", "prediction_type", "variant", "config")
    chosen = {name: getattr(options, name) for name in names} | files_of(options)
    notices = bundles.convert(options.source, options.target, ema=not options.no_ema, **chosen)
    if not options.quiet:
        for text in (*(f"note: {notice}" for notice in notices), f"wrote {options.target}"):
            print(f"diffedit: {text}", file=sys.stderr)


def bench(options: argparse.Namespace) -> int | None:
    """Runs diffedit_jax.bench.NAME with the words that follow."""
    there = [n for n in _BENCHES if importlib.util.find_spec(f"diffedit_jax.bench.{n}")]
    if options.name in (None, "-h", "--help"):
        print(f"usage: diffedit bench {'|'.join(there)} ...")
        return None
    if options.name not in there:
        raise UserError(f"there is no bench {options.name!r}; there are: {', '.join(there)}")
    module = importlib.import_module(f"diffedit_jax.bench.{options.name}")
    return module.main(options.arguments)


def train(options: argparse.Namespace) -> int | None:
    """Runs train/NAME.py of a checkout; without a name, lists what there is."""
    scripts = {path.stem: path for folder in _folders() for path in sorted(folder.glob("*.py"))}
    if not scripts:
        raise UserError("no trainings found; run from a checkout, which has the folder train/")
    if options.name is None:
        for name, path in scripts.items():
            print(f"{name:<20} {_first_line(path)}")
        return None
    if options.name not in scripts:
        known = ", ".join(scripts)
        raise UserError(f"there is no training {options.name!r}; there are: {known}")
    if not options.config or not options.out:
        raise UserError(f"train {options.name} needs --config FILE and --out DIR")
    if not Path(options.config).is_file():
        raise UserError(f"config {options.config} does not exist")
    if options.max_restarts:
        return _supervised(options)
    return _run_script(scripts[options.name], options)


def _words(options: argparse.Namespace) -> list[str]:
    words = ["--config", options.config, "--out", options.out]
    words += ["--data", options.data] if options.data else []
    words += [word for pair in options.set for word in ("--set", pair)]
    return [*words, "--quiet"] if options.quiet else words


def _supervised(options: argparse.Namespace) -> int:
    """The same command in a process of its own, started again when it is lost."""
    from ..training.supervisor import supervise

    own = [sys.executable, "-m", "diffedit_jax", "train", options.name]
    return supervise([*own, *_words(options)], max_restarts=options.max_restarts)


def _run_script(path: Path, options: argparse.Namespace) -> None:
    before, sys.argv = sys.argv, [str(path), *_words(options)]
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before


def _folders() -> list[Path]:
    """Where training scripts lie: in the checkout that runs, or else that one works in."""
    checkouts = (Path(__file__).resolve().parents[2], Path.cwd())
    found = [place for place in checkouts if (place / "train").is_dir()]
    return [place / "train" for place in found if (place / "diffedit_jax").is_dir()][:1]


def _first_line(path: Path) -> str:
    text = path.read_text(encoding="utf-8").lstrip()
    return text.split("\n", 1)[0].strip('"# ') if text.startswith(('"""', "#")) else ""
