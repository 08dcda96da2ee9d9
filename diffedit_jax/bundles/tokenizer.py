"""Texts to token ids: transformers' CLIP tokenizer, with what it cuts off reported.

A learned word of several vectors is several tokens `word`, `word_1`, ... that are written as one:
in ids, the first stands for all of them.

Source: diffusers' TextualInversionLoaderMixin.maybe_convert_prompt for the names of the parts.
"""

import contextlib
import copy
import functools
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
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
        self.added: tuple[str, ...] = ()
        self.length = min(length, self._written_length())
        digest = hashlib.sha256(repr((length, vocabulary)).encode())
        for name, data in self.files.items():
            digest.update(name.encode() + data)
        self.digest = digest.hexdigest()

    def extended(self, words: Mapping[str, int]) -> "Tokenizer":
        """The same with new words, {word: how many vectors it has}; ids follow the old ones.

        A word is found wherever it stands by itself, in upper or lower case.
        Raises: UserError for words that are there already, or would be mistaken for parts of one.
        """
        tokens = [token for word, count in words.items() for token in parts_of(word, count)]
        self._refuse_known(words)
        if len(self._words) != self.vocabulary:
            raise UserError(
                f"the tokenizer in {self.folder} has {len(self._words)} words and the text "
                f"encoder {self.vocabulary}; no word can be added to either"
            )
        found = copy.copy(self)
        found.__dict__.pop("_words", None)
        found.__dict__.pop("_several", None)
        found.added = self.added + tuple(tokens)
        found.vocabulary = self.vocabulary + len(tokens)
        found.digest = hashlib.sha256(repr((self.digest, tokens)).encode()).hexdigest()
        return found

    def _refuse_known(self, words: Mapping[str, int]) -> None:
        known = {word.casefold() for word in self._words.get_vocab()}
        added = {word.casefold() for word in self._words.get_added_vocab()}
        for word, count in words.items():
            parts = [part.casefold() for part in parts_of(word, count)]
            if known & {*parts, *(f"{part}</w>" for part in parts)}:
                raise UserError(
                    f"the word {word!r} is in the tokenizer's vocabulary already; give the "
                    "embedding another name (FILE:NAME)"
                )
            root, _, number = parts[0].rpartition("_")
            if (number.isdigit() and root in added) or f"{parts[0]}_{count}" in added:
                raise UserError(
                    f"the word {word!r} would be mixed up with a word of several vectors; give "
                    "the embedding another name (FILE:NAME)"
                )
            known.update(parts)
            added.update(parts)

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
        rows = [self.spans(text)[0] for text in texts]
        pad = self._words.pad_token_id
        padded = [row + [pad] * (self.length - len(row)) for row in rows]
        ids = np.asarray(padded, np.int32).reshape(len(rows), self.length)
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
        ids, places = self._pieces(text)
        room = self.length - 2
        begin, end = self._words("")["input_ids"]
        return [begin, *ids[:room], end], [(0, 0), *places[:room], (0, 0)]

    def token(self, word: str) -> int:
        """The id of a word that is one token. Raises: UserError if it is none or several."""
        ids = self.spans(word)[0][1:-1]
        if len(ids) != 1:
            raise UserError(
                f"{word!r} is {len(ids)} tokens of this model; choose a word that is one"
            )
        return ids[0]

    def _pieces(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """All ids without begin and end, words of several vectors spelt out, and their places."""
        given = self._words(
            text,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        ids: list[int] = []
        places: list[tuple[int, int]] = []
        for token, place in zip(given["input_ids"], given["offset_mapping"], strict=True):
            whole = self._several.get(token, (token,))
            ids += whole
            places += [place] * len(whole)
        return ids, places

    def save(self, folder: Path) -> None:
        """Writes the tokenizer's files into a folder, unchanged but for words that were added."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        if self.added:
            (folder / "tokenizer.json").write_text(self._words.backend_tokenizer.to_str())
            written = self._words.get_added_vocab()
            (folder / "added_tokens.json").write_text(json.dumps(written, indent=2))

    def _cut(self, text: str) -> str:
        _, places = self._pieces(text)
        room = self.length - 2
        return text[places[room][0] :].strip() if len(places) > room else ""

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
        if self.added:
            from tokenizers import AddedToken

            # single_word: "sks" must not be found inside "asks", nor "sty" inside "sty_1"
            found.add_tokens([AddedToken(t, single_word=True, normalized=True) for t in self.added])
        return found

    @functools.cached_property
    def _several(self) -> dict[int, tuple[int, ...]]:
        """{id of an added word: ids of all its parts}, for words of several vectors."""
        added = self._words.get_added_vocab()
        runs = {}
        for word, first in added.items():
            parts = [first]
            while (part := f"{word}_{len(parts)}") in added:
                parts.append(added[part])
            if len(parts) > 1:
                runs[first] = tuple(parts)
        return runs

    def _written_length(self) -> int:
        if "tokenizer_config.json" not in self.files:
            return 2**31
        written = read_json(self.folder / "tokenizer_config.json").get("model_max_length")
        return int(written) if isinstance(written, int | float) and written >= 3 else 2**31


def parts_of(word: str, count: int) -> list[str]:
    """The tokens of a word of `count` vectors: word, word_1, word_2, ..."""
    return [word, *(f"{word}_{number}" for number in range(1, count))]


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
