"""InST's inversion module in torch, written from its description, and its files."""

import sys
import types

import torch
from torch import nn


class CrossAttention(nn.Module):
    """Attention of several heads; only the way out has a bias, and dropout behind it."""

    def __init__(self, width, heads, head, dropout):
        super().__init__()
        self.heads = heads
        inner = heads * head
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(width, inner, bias=False)
        self.to_v = nn.Linear(width, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width), nn.Dropout(dropout))

    def forward(self, x, y):
        q, k, v = (f(a).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for f, a in ((self.to_q, x), (self.to_k, y), (self.to_v, y)))  # fmt: skip
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        found = scores.softmax(-1) @ v
        return self.to_out(found.transpose(1, 2).flatten(-2))


class Attentions(nn.Module):
    """Two attentions over the same tokens, then a linear layer."""

    def __init__(self, width=16, heads=8, head=4, dropout=0.05):
        super().__init__()
        self.attn1 = CrossAttention(width, heads, head, dropout)
        self.attn2 = CrossAttention(width, heads, head, dropout)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width))

    def forward(self, x):
        return self.net(self.attn2(self.attn1(x, x), x))


HOMES = {CrossAttention: "ldm.modules.attention", Attentions: "ldm.modules.embedding_manager"}


def save_official(path, module, monkeypatch):
    """embeddings.pt as the original writes it: the module itself, pickled under its own names."""
    for kind, home in HOMES.items():
        monkeypatch.setattr(kind, "__module__", home)
        place = types.ModuleType(home)
        setattr(place, kind.__name__, kind)
        monkeypatch.setitem(sys.modules, home, place)
    for name in ("ldm", "ldm.modules"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    torch.save({"string_to_token": {"*": torch.tensor(265)}, "attention": module}, path)
