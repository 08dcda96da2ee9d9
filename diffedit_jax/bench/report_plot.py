"""Success against preservation as SVG: the baseline's curve, every method with its intervals."""

from __future__ import annotations

from html import escape

WIDTH, HEIGHT = 820, 440
LEFT, RIGHT, TOP, BOTTOM = 56, 200, 34, 44  # margins; the legend is at the right
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2",
           "#bcbd22", "#393b79", "#637939", "#ad494a")  # fmt: skip
CURVE = "#555"
EXACT = 60.0  # dB; what lies above, equal to the bit or nearly, is drawn at the upper edge


class Plot:
    """A frame with two axes; x is a share in [0, 1], y in dB."""

    def __init__(self, title: str, y_label: str, low: float, high: float):
        self._low, self._high = low, high
        self._parts = [f'<text x="{LEFT}" y="20" class="title">{escape(title)}</text>']
        self._axes(y_label)
        self._rows = 0

    def x(self, share: float) -> float:
        """Pixels from the left; a little room on both sides, so that 0 and 1 can be seen."""
        return LEFT + (0.03 + 0.94 * share) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self._low) / (self._high - self._low)
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    def _axes(self, y_label: str) -> None:
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        self._parts.append(f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" '
                           f'height="{bottom - TOP}" fill="none" stroke="#999"/>')  # fmt: skip
        for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
            x = self.x(tick)
            self._line(x, bottom, x, bottom + 4, "#999")
            self._text(x, bottom + 17, f"{100 * tick:.0f}", "middle")
        for tick in ticks(self._low, self._high):
            y = self.y(tick)
            self._line(LEFT, y, right, y, "#eee")
            self._text(LEFT - 6, y + 4, f"{tick:g}", "end")
        self._text((LEFT + right) / 2, HEIGHT - 8, "edits done, % (judge)", "middle")
        middle = (TOP + bottom) / 2
        self._parts.append(f'<text x="14" y="{middle}" text-anchor="middle" '
                           f'transform="rotate(-90 14 {middle})">{y_label}</text>')  # fmt: skip

    def _line(self, x1, y1, x2, y2, colour, width=1.0) -> None:
        self._parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                           f'stroke="{colour}" stroke-width="{width}"/>')  # fmt: skip

    def _text(self, x, y, text, anchor="start") -> None:
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def curve(self, points: list[tuple[str, dict, dict]]) -> None:
        """The baseline: (label, success, preservation) from weak to strong, joined by lines."""
        places = [(self.x(s["value"]), self.y(p["value"])) for _, s, p in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        self._parts.append(f'<polyline points="{path}" fill="none" stroke="{CURVE}" '
                           'stroke-width="1.5" stroke-dasharray="5 3"/>')  # fmt: skip
        for (x, y), (label, _, _) in zip(places, points, strict=True):
            self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{CURVE}"/>')
            self._text(x - 7, y + 4, label, "end")
        self._legend("sdedit by strength", CURVE)

    def point(self, name: str, success: dict, preserved: dict) -> None:
        """One method with the intervals of both values."""
        colour, above = COLOURS[(self._rows - 1) % len(COLOURS)], preserved["value"] >= EXACT
        x, y = self.x(success["value"]), TOP + 7 if above else self.y(preserved["value"])
        self._line(self.x(success["low"]), y, self.x(success["high"]), y, colour, 1.3)
        if not above:
            self._line(x, self.y(preserved["low"]), x, self.y(preserved["high"]), colour, 1.3)
        hint = escape(f"{name}: {100 * success['value']:.0f} %, {preserved['value']:.1f} dB")
        shape = (
            f'<path d="M{x:.1f},{TOP + 1} l6,11 h-12 z"'
            if above
            else f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"'
        )
        end = "path" if above else "circle"
        self._parts.append(f'{shape} fill="{colour}"><title>{hint}</title></{end}>')
        self._legend(f"{name} (beyond the edge)" if above else name, colour)

    def _legend(self, name: str, colour: str) -> None:
        x, y = WIDTH - RIGHT + 14, TOP + 12 + 17 * self._rows
        self._parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/>')
        self._text(x + 10, y, name)
        self._rows += 1

    def svg(self) -> str:
        """The whole drawing, with its own style, so that it also stands alone."""
        style = "text{font:12px sans-serif;fill:#222}.title{font-weight:bold;font-size:14px}"
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
                f'width="{WIDTH}" height="{HEIGHT}"><style>{style}</style>'
                f'<rect width="100%" height="100%" fill="white"/>'
                f"{''.join(self._parts)}</svg>")  # fmt: skip


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two ends, at most eight steps apart."""
    span = high - low
    step = next(s for s in (0.5, 1, 2, 5, 10, 20, 50) if span / s <= 8)
    first = int(-(-low // step))
    return [step * k for k in range(first, int(high // step) + 1)]


def plot(kind: str, rows: dict[str, dict], curve: list[str], still: str, measure: str) -> str:
    """SVG of one kind of edit.

    Args:
      rows: {name: summary of its values}.
      curve: names of the baseline's points from weak to strong; labelled by their last word.
      still: name of the baseline at strength 0.
      measure: what stands for preservation.
    """
    names = [name for name in (still, *curve) if name in rows]
    others = [n for n in rows if n not in names and not n.startswith("the ")]
    ends = [rows[n][measure][end] for n in (*names, *others) for end in ("low", "high")]
    ends = [end for end in ends if end < EXACT] or ends
    pad = 0.06 * (max(ends) - min(ends)) + 0.1
    label = {"psnr_kept": "PSNR of what must stay, dB", "psnr_truth": "PSNR to the truth, dB"}
    drawn = Plot(f"{kind}: success and preservation", label[measure], min(ends) - pad,
                 max(ends) + pad)  # fmt: skip
    points = [(n, rows[n]["success"], rows[n][measure]) for n in names]
    drawn.curve([("0" if n == still else n.split()[-1], s, p) for n, s, p in points])
    for name in others:
        drawn.point(name, rows[name]["success"], rows[name][measure])
    return drawn.svg()
