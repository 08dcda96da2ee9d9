"""`diffedit bench quality`: editing methods on rendered scenes with exact ground truth.

Writes OUT/quality.json, report.html (one page with everything in it), sheet.png, table.md and a
drawing per kind; OUT/pieces holds the pictures, and a run that was stopped goes on where it was.
With --shard 0/2 and --shard 1/2 two processes share the work; the last to finish writes the report.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffedit_jax.bench import entrants as takers
from diffedit_jax.bench import report_table as tables
from diffedit_jax.bench import shards
from diffedit_jax.bench.edit_measures import measured, optional_lpips
from diffedit_jax.bench.entrants import RECONSTRUCT
from diffedit_jax.bench.judge import embedded_judge
from diffedit_jax.bench.method_figures import COPY, STILL, TRUTH, figures, missing, pictures_of
from diffedit_jax.bench.quality_of_methods import Plan, edits_of, run, tell
from diffedit_jax.bench.report_page import page
from diffedit_jax.bench.report_plot import plot
from diffedit_jax.bench.report_sheet import block, column, stacked
from diffedit_jax.errors import UserError

SHOWN = 6  # edits of each kind on the page; half of them on the sheet


def write_report(plan: Plan) -> dict:
    """Measures what lies in the pieces and writes all files; returns the figures."""
    judge, (lpips, why) = embedded_judge(), optional_lpips()
    found = figures(plan, judge, lpips)
    found["options"]["no_lpips"] = why
    shots = {kind: _columns(plan, kind, judge) for kind in plan.kinds}
    plots = {kind: _plot(plan, found, kind) for kind in plan.kinds if kind != RECONSTRUCT}
    captions = {kind: _captions(plan, kind) for kind in plan.kinds}
    both = {kind: (captions[kind], shots[kind]) for kind in plan.kinds}
    _write(plan.folder / "quality.json", json.dumps(found, indent=1) + "\n")
    _write(plan.folder / "table.md", tables.document(found))
    _write(plan.folder / "report.html", page(found, plots, both))
    for kind, drawing in plots.items():
        _write(plan.folder / f"{kind}.svg", drawing)
    stacked([_block(plan, kind, shots[kind]) for kind in plan.kinds]).save(
        plan.folder / "sheet.png", optimize=True
    )
    return found


def _write(path: Path, text: str) -> None:
    hidden = path.with_name(f".{path.name}.part")
    hidden.write_text(text, encoding="utf-8")
    os.replace(hidden, path)


def _columns(plan: Plan, kind: str, judge) -> dict[str, np.ndarray]:
    """{name: column of pictures with their marks}, the source and the truth first."""
    edits = edits_of(kind, plan.count, plan.seed)[:SHOWN]
    source = np.stack([edit.source_image for edit in edits])
    truth = np.stack([edit.target_image for edit in edits])
    made = {name: each[:SHOWN] for name, each in pictures_of(plan, kind).items()}
    shown = {COPY: column(source), TRUTH: column(truth)}
    for name, pictures in made.items():
        shown[name] = column(pictures, measured(judge, pictures, edits))
    return shown


def _captions(plan: Plan, kind: str) -> list[str]:
    edits = edits_of(kind, plan.count, plan.seed)[:SHOWN]
    return [f"{edit.source_caption} → {edit.target_caption}" for edit in edits]


def _block(plan: Plan, kind: str, columns: dict[str, np.ndarray]):
    edits = edits_of(kind, plan.count, plan.seed)[:SHOWN]
    few = max(1, SHOWN // 2)
    cut = {n: c[: len(c) // len(edits) * few] for n, c in columns.items()}
    return block(kind, edits[:few], cut)


def _plot(plan: Plan, found: dict, kind: str) -> str:
    rows = found["kinds"][kind]
    curve = [e.name for e in plan.entrants if e.baseline]
    return plot(
        kind, rows, curve, STILL, "psnr_kept" if "psnr_kept" in rows[STILL] else "psnr_truth"
    )


def table(found: dict) -> str:
    """The summary as lines of text."""
    head, body = tables.summary_table(found)
    widths = [max(len(row[k]) for row in (head, *body)) for k in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in (head, *body)
    ]
    return "\n".join([*lines, tables.LEGEND, *tables.notes(found)])


def _plan(given: argparse.Namespace) -> Plan:
    if given.edits < 1:
        raise UserError(f"--edits should be at least 1, not {given.edits}")
    options = {"steps": given.steps, "guidance": given.guidance}
    options = {name: value for name, value in options.items() if value is not None}
    who, left_out = takers.entrants(given.model, _names(given.methods), **options)
    kinds = takers.every_kind(_names(given.kinds))
    return Plan(Path(given.out), who, left_out, kinds, given.edits, given.seed, given.model)


def _names(text: str) -> Sequence[str]:
    return [name for name in text.split(",") if name]


def main(words: list[str]) -> None:
    """Runs this shard's part; writes the report when nothing is missing any more."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="diffedit bench quality", description=__doc__, formatter_class=form
    )
    parser.add_argument("--model", default="emoji")
    parser.add_argument("--out", default="quality_of_methods", help="folder for pieces and reports")
    parser.add_argument("--methods", default="", help="a,b,...; all registered ones if not given")
    parser.add_argument(
        "--kinds", default="", help="object,colour,...,reconstruct; all if not given"
    )
    parser.add_argument("--edits", type=int, default=64, help="of each kind")
    parser.add_argument("--seed", type=int, default=0, help="other edits and other noise")
    parser.add_argument("--steps", type=int, help="the model's own if not given")
    parser.add_argument("--guidance", type=float, help="the model's own if not given")
    parser.add_argument("--shard", default="0/1", metavar="K/N", help="part K of N of the work")
    given = parser.parse_args(words)
    plan = _plan(given)
    run(plan, shards.parse_shard(given.shard), tell)
    absent = missing(plan)
    if absent:
        tell(f"{len(absent)} pieces of other shards are missing; no report yet")
        return
    print(table(write_report(plan)))
    tell(f"wrote {plan.folder / 'report.html'}")
