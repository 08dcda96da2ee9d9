"""Builds the tokenizer of the tiny model: CLIP's byte-level BPE with the world's words whole.

Source: CLIP (Radford et al. 2021), byte-level BPE with `</w>` word ends.
"""

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

MAX_LENGTH = 24  # tokens, start and end included
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_characters() -> list[str]:
    """The printable character that stands for each byte 0..255 (GPT-2's table, CLIP's order)."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = {byte: 256 + n for n, byte in enumerate(b for b in range(256) if b not in kept)}
    return [chr(b) for b in kept] + [chr(code) for code in shifted.values()]


def segment(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Apply merges to a word, lowest rank first: segment("cat", {}) is ["c", "a", "t</w>"]."""
    pieces = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = [(ranks[pair], k) for k, pair in enumerate(pairwise(pieces)) if pair in ranks]
        if not pairs:
            return pieces
        first = min(pairs)[1]
        pieces[first : first + 2] = ["".join(pieces[first : first + 2])]


def build_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merges after which every word is one token.

    Each word joins what the merges before it leave; its new merges come later in rank, so they
    never disturb the words before it.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        pieces = segment(word, ranks)
        while len(pieces) > 1:
            ranks.setdefault((pieces[0], pieces[1]), len(ranks))
            pieces = segment(word, ranks)
    return list(ranks)


def build_vocabulary(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Token -> id: bytes, bytes that end a word, merges, then start and end of text."""
    bytes_ = byte_characters()
    tokens = [*bytes_, *(b + "</w>" for b in bytes_), *("".join(pair) for pair in merges)]
    return {token: k for k, token in enumerate([*dict.fromkeys(tokens), START, END])}


def write_tokenizer(folder: Path, words: Iterable[str]) -> None:
    """Write vocab.json, merges.txt and the configuration files of a CLIPTokenizer."""
    merges = build_merges(words)
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    configuration = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_LENGTH,
        "do_lower_case": True,
        "add_prefix_space": False,
        **special,
    }
    folder.mkdir(parents=True, exist_ok=True)
    lines = "\n".join(" ".join(pair) for pair in merges)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
    for name, content in (
        ("vocab.json", build_vocabulary(merges)),
        ("tokenizer_config.json", configuration),
        ("special_tokens_map.json", special),
    ):
        (folder / name).write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
