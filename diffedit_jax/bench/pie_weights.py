"""Which of PIE-Bench's metrics can be computed here, and what is missing for the others."""

from __future__ import annotations

from diffedit_jax.bench.pie_scores import COLUMNS, Scores


def scores() -> tuple[Scores, dict[str, str]]:
    """(the metrics, {column: why it is missing})."""
    judge = Scores()
    return judge, {c: "its network is not here" for c in COLUMNS if c not in judge.columns}
