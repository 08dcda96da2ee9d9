"""Which of PIE-Bench's metrics can be computed here, and what is missing for the others."""

from __future__ import annotations

import functools

import numpy as np

from diffedit_jax import metrics
from diffedit_jax.bench.pie_scores import COLUMNS, STRUCTURE, Scores, lpips_column
from diffedit_jax.errors import UserError

_CLIP = "name a CLIP with --clip (the published table: openai/clip-vit-large-patch14)"
_DINO = "name DINO's ViT-B/8 with --dino (dino_vitbase8_pretrain.pth)"
_LPIPS = (
    "--lpips squeeze with --lpips-trunk (torchvision's squeezenet1_1) and --lpips-heads (lpips "
    "0.1's squeeze.pth); alex and vgg give a column of another name"
)
NETS = ("squeeze", "alex", "vgg")  # the first is the benchmark's


def scores(
    clip: str | None = None,
    dino: str | None = None,
    lpips: str | None = None,
    *,
    trunk: str | None = None,
    heads: str | None = None,
) -> tuple[Scores, dict[str, str]]:
    """(the metrics, {column: why it is missing}).

    Args:
      clip: see metrics.load_clip.
      dino: see metrics.load_dino.
      lpips: one of NETS; a column that is not the benchmark's is named after its network.
      trunk, heads: its files, see metrics.load_lpips.
    """
    if (trunk or heads) and not lpips:
        raise UserError("--lpips-trunk and --lpips-heads belong to --lpips; say which network")
    judge = Scores(
        clip=_clip(clip) if clip else None,
        structure=_structure(dino) if dino else None,
        lpips=_lpips(lpips, trunk, heads) if lpips else None,
        lpips_net=lpips if lpips and lpips != NETS[0] else "",
    )
    reasons = {STRUCTURE: _DINO, lpips_column(""): _LPIPS}
    return judge, {c: reasons.get(c, _CLIP) for c in COLUMNS if c not in judge.columns}


def _clip(source: str):
    network = metrics.load_clip(source)
    return lambda picture, text: _one(metrics.clip_score(picture, text, network))


def _structure(path: str):
    network = metrics.load_dino(path)
    return lambda source, result: _one(metrics.dino_structure_distance(source, result, network))


def _lpips(net: str, trunk: str | None, heads: str | None):
    weights = metrics.load_lpips(trunk, net, heads=heads)
    found = functools.partial(metrics.lpips, net=net, weights=weights)
    return lambda a, b: _one(found(a, b))


def _one(value) -> float:
    return float(np.asarray(value).reshape(()))
