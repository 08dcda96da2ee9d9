"""The measurement of methods as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import base64
import io
from html import escape

import numpy as np

from diffedit_jax.bench.entrants import RECONSTRUCT
from diffedit_jax.bench.report_sheet import MEANING
from diffedit_jax.bench.report_table import LEGEND, kind_table, notes, summary_table

STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:24px auto;padding:0 24px;max-width:1500px;
color:#222}
h1{font-size:22px}h2{font-size:18px;margin-top:40px;border-top:1px solid #ddd;padding-top:16px}
table{border-collapse:collapse}
td,th{padding:3px 9px;text-align:right;border-bottom:1px solid #eee;white-space:nowrap}
td:first-child,th:first-child{text-align:left}th{background:#f6f6f6}
.better{color:#12722f}.worse{color:#b02020}.wide{overflow-x:auto}
nav a{margin-right:14px}.shots td{vertical-align:top;padding:2px;border:0;text-align:left}
.shots th{font-size:11px;font-weight:normal;max-width:96px;text-align:left;vertical-align:bottom}
.shots img{width:96px;image-rendering:pixelated;display:block}
.words{font-size:12px;color:#444;width:190px;overflow:hidden;display:block;white-space:normal}
"""


def page(found: dict, plots: dict[str, str], shots: dict[str, tuple[list[str], dict]]) -> str:
    """The page.

    Args:
      found: see method_figures.figures.
      plots: {kind: SVG}.
      shots: {kind: (captions of the rows, {name: column of pictures})}.
    """
    options = found["options"]
    links = "".join(f'<a href="#{kind}">{kind}</a>' for kind in found["kinds"])
    parts = [
        "<h1>Editing methods on rendered scenes</h1>",
        f"<p>{options['edits']} edits of each kind with exact ground truth, the same for every "
        f"method; model {escape(options['model'])}; 95 % intervals.</p><nav>{links}</nav>",
        f"<h2>Summary</h2><p>{escape(LEGEND)}</p>",
        _table(*summary_table(found)),
        "<ul>" + "".join(f"<li>{escape(line[2:])}</li>" for line in notes(found)) + "</ul>",
    ]
    for kind in found["kinds"]:
        parts.append(f'<h2 id="{kind}">{kind}: {MEANING[kind]}</h2>')
        parts += [plots.get(kind, ""), _table(*kind_table(found, kind)), _shots(kind, *shots[kind])]
    return ('<!doctype html><html lang="en"><meta charset="utf-8"><title>Editing methods</title>'
            f"<style>{STYLE}</style>{''.join(parts)}</html>\n")  # fmt: skip


def _table(head: list[str], body: list[list[str]]) -> str:
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    rows = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in body)
    return f'<div class="wide"><table><tr>{top}</tr>{rows}</table></div>'


def _cell(text: str) -> str:
    better = text.endswith("▲") or text.startswith("beats")
    worse = text.endswith("▼") or text.startswith("below")
    kind = ' class="better"' if better else ' class="worse"' if worse else ""
    return f"<td{kind}>{escape(text)}</td>"


def _shots(kind: str, captions: list[str], columns: dict[str, np.ndarray]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in columns)
    high = 0 if not captions else 96 * len(next(iter(columns.values()))) // (64 * len(captions))
    words = "".join(
        f'<span class="words" style="height:{high}px">{escape(c)}</span>' for c in captions
    )
    images = "".join(f'<td><img alt="{kind}, {escape(name)}" src="{data_url(strip)}"></td>'
                     for name, strip in columns.items())  # fmt: skip
    hint = "" if kind == RECONSTRUCT else (
        "<p>Below each picture, left: what was asked for is there; right: the rest stayed "
        "(green yes, red no, by the judge).</p>")  # fmt: skip
    return (f'{hint}<div class="wide"><table class="shots"><tr><th></th>{names}</tr>'
            f"<tr><td>{words}</td>{images}</tr></table></div>")  # fmt: skip


def data_url(pixels: np.ndarray) -> str:
    """A picture inside the page itself."""
    from PIL import Image

    memory = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(memory, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(memory.getvalue()).decode()
