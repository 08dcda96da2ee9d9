"""Texts to token ids: transformers' CLIP tokenizer, with what it cuts off reported."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from diffedit_jax.checkpoints.files import read_json, refuse_absent
from diffedit_jax.errors import UserError

FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)


class Tokenizer:
    """The tokenizer of a folder; equal to any other with the same files, so programs are shared.

    Calling it gives int32 ids [n, length], begun, ended and padded as the files say.

        ids = Tokenizer(folder, length=77, vocabulary=49408)(["a cat"])
    """

    def __init__(self, folder: str | Path, *, length: int, vocabulary: int):
        """`length`: positions of the text encoder; `vocabulary`: rows of its token table.

        Raises: UserError when the folder holds no tokenizer.
        """
        self.folder = Path(folder)
        self.vocabulary = vocabulary
        present = [name for name in FILES if (self.folder / name).is_file()]
        if not ({"vocab.json", "merges.txt"} <= set(present) or "tokenizer.json" in present):
            raise UserError(f"{self.folder} needs vocab.json and merges.txt, or tokenizer.json")
        self.files = {name: (self.folder / name).read_bytes() for name in present}
        self.length = min(length, self._written_length())
        digest = hashlib.sha256(repr((length, vocabulary)).encode())
        for name, data in self.files.items():
            digest.update(name.encode() + data)
        self.digest = digest.hexdigest()

    def __eq__(self, other) -> bool:
        return isinstance(other, Tokenizer) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __call__(self, texts: Sequence[str]) -> Int[np.ndarray, "n length"]:
        """Ids of the texts, cut to the length.

        Raises: UserError for text that is no text (a lone surrogate), and for ids beyond the
        text encoder's table, which a network would silently mistake for another word.
        """
        _refuse_broken(texts)
        given = self._words(list(texts), padding="max_length", truncation=True)
        ids = np.asarray(given["input_ids"], np.int32)
        if ids.max(initial=0) >= self.vocabulary:
            word = self._words.convert_ids_to_tokens(int(ids.max()))
            raise UserError(
                f"the tokenizer in {self.folder} knows the word {word!r}, which the text encoder "
                f"does not ({self.vocabulary} words); use the tokenizer that belongs to it"
            )
        return ids

    def cut(self, texts: Sequence[str]) -> list[str]:
        """For each text, the end that does not fit into `length` tokens ("" where all fits)."""
        _refuse_broken(texts)
        return [self._cut(text) for text in texts]

    def notices(self, texts: Sequence[str]) -> list[str]:
        """One line for each text that is cut, saying which words are lost."""
        return [
            f"the prompt is longer than {self.length} tokens; not used: {_short(lost)!r}"
            for lost in self.cut(texts)
            if lost
        ]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids with begin and end, cut to the length, and where each stands in the text.

        The second list holds (start, end) in characters of `text`, (0, 0) for begin and end.
        """
        _refuse_broken([text])
        given = self._words(text, return_offsets_mapping=True, truncation=True)
        return given["input_ids"], given["offset_mapping"]

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files, unchanged, into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)

    def _cut(self, text: str) -> str:
        given = self._words(text, return_offsets_mapping=True, truncation=False, verbose=False)
        offsets = given["offset_mapping"][1:-1]  # without begin and end
        room = self.length - 2
        return text[offsets[room][0] :].strip() if len(offsets) > room else ""

    @functools.cached_property
    def _words(self):
        """transformers' tokenizer, imported when first needed and without any network."""
        for name in ("vocab.json", "tokenizer.json", "tokenizer_config.json"):
            if name in self.files:
                refuse_absent(self.folder / name)
        with _quietly():
            from transformers import CLIPTokenizer
        try:
            found = CLIPTokenizer.from_pretrained(str(self.folder), local_files_only=True)
        except Exception as error:
            raise UserError(f"the tokenizer in {self.folder} is damaged: {error!s:.120}") from None
        found.model_max_length = self.length
        return found

    def _written_length(self) -> int:
        if "tokenizer_config.json" not in self.files:
            return 2**31
        written = read_json(self.folder / "tokenizer_config.json").get("model_max_length")
        return int(written) if isinstance(written, int | float) and written >= 3 else 2**31


def _refuse_broken(texts: Sequence[str]) -> None:
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"the prompt has a broken character (a lone surrogate) at position {error.start}"
            ) from None


def _short(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


@contextlib.contextmanager
def _quietly():
    """Keeps transformers from remarking that torch is absent."""
    name = "TRANSFORMERS_NO_ADVISORY_WARNINGS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
