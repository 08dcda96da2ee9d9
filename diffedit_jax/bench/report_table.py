"""Figures of methods as tables of text, for a page and for a document."""

from __future__ import annotations

from diffedit_jax.bench.entrants import BASELINE, RECONSTRUCT

COLUMNS = {  # value: (heading, factor, digits)
    "success": ("done %", 100, 0),
    "kept": ("rest kept %", 100, 0),
    "psnr_kept": ("PSNR kept", 1, 1),
    "ssim_kept": ("SSIM kept", 1, 3),
    "psnr_truth": ("PSNR truth", 1, 1),
    "lpips_truth": ("LPIPS truth", 1, 3),
}
SIGN = {"better": "beats sdedit", "worse": "below sdedit", "not told apart": "not told apart"}


def cell(name: str, found: dict | None) -> str:
    """A value with its interval: "87 (79-92)"; nothing where it was not measured."""
    if found is None:
        return ""
    _, factor, digits = COLUMNS[name]
    value, low, high = (f"{factor * found[end]:.{digits}f}" for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def kind_table(found: dict, kind: str) -> tuple[list[str], list[list[str]]]:
    """(headings, rows) of one kind of edit."""
    rows = found["kinds"][kind]
    columns = [name for name in COLUMNS if any(name in row for row in rows.values())]
    compared = kind != RECONSTRUCT
    head = ["", *(COLUMNS[name][0] for name in columns), *(["against sdedit"] if compared else [])]
    body = []
    for name, row in rows.items():
        cells = [cell(each, row.get(each)) for each in columns]
        body.append([name, *cells, *([verdict(found, kind, name)] if compared else [])])
    return head, body


def verdict(found: dict, kind: str, name: str) -> str:
    """ "beats sdedit, +2.1 dB (1.0 to 3.2)"; empty for the baseline and the references."""
    gain = found["gains"].get(kind, {}).get(name)
    if gain is None:
        return ""
    return f"{SIGN[gain['verdict']]}, {gain['value']:+.1f} dB ({gain['low']:+.1f} to {gain['high']:+.1f})"  # noqa: E501


def summary_table(found: dict) -> tuple[list[str], list[list[str]]]:
    """(headings, rows): one row per entrant, one column per kind: done %, and the gain in dB."""
    kinds = [kind for kind in found["kinds"] if kind != RECONSTRUCT]
    head = ["method", *kinds, "network calls", "seconds"]
    body = []
    for name, cost in found["methods"].items():
        cells = [_short(found, kind, name) for kind in kinds]
        calls = f"{cost['evaluations']} x {cost['rows']}"
        body.append([name, *cells, calls, f"{cost['seconds']:.2f}"])
    return head, body


def _short(found: dict, kind: str, name: str) -> str:
    row = found["kinds"][kind].get(name)
    if row is None:
        return "refused" if kind in found["refused"].get(name, {}) else ""
    gain = found["gains"].get(kind, {}).get(name)
    kept = row.get("psnr_kept", row["psnr_truth"])
    text = f"{100 * row['success']['value']:.0f} %, {kept['value']:.1f} dB"
    mark = {"better": " ▲", "worse": " ▼", "not told apart": " ="}
    return text + (mark[gain["verdict"]] if gain else "")


def markdown(head: list[str], body: list[list[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


LEGEND = (
    "Each cell: edits done according to the judge, and PSNR of the pixels that must not change "
    "(style: PSNR to the true picture, as all may change). ▲ preserves more than "
    f"{BASELINE} at equal success (95 % interval of the difference above 0), ▼ less, = not told "
    "apart."
)


def document(found: dict) -> str:
    """The whole report as Markdown, without pictures."""
    options = found["options"]
    lines = [f"{options['edits']} edits of each kind, seed {options['seed']}, model "
             f"`{options['model']}` ({_told(options)}). {LEGEND}", "",
             markdown(*summary_table(found)), ""]  # fmt: skip
    for kind in found["kinds"]:
        lines += [f"### {kind}", "", markdown(*kind_table(found, kind)), ""]
    return "\n".join(lines + notes(found)) + "\n"


def _told(options: dict) -> str:
    """The model's own numbers, where the run did not set others for everybody."""
    given = [set(entrant.items()) for entrant in options["entrants"].values()]
    set_ = dict(set.intersection(*given)) if given else {}
    numbers = {k: set_.get(k, v) for k, v in options["defaults"].items()}
    said = {k: v if isinstance(v, str) else f"{v:g}" for k, v in sorted(numbers.items())}
    return ", ".join(f"{name} {value}" for name, value in said.items())


def notes(found: dict) -> list[str]:
    """What was not measured, and why."""
    lines = [f"- Left out: {name}: {why}." for name, why in found["left_out"].items()]
    for name, kinds in found["refused"].items():
        for why in dict.fromkeys(kinds.values()):
            where = ", ".join(kind for kind, reason in kinds.items() if reason == why)
            lines.append(f"- {name} refused {where}: {why}.")
    if not found["options"]["lpips"]:
        lines.append(f"- No LPIPS: {found['options'].get('no_lpips', 'its weights are not here')}.")
    return lines
