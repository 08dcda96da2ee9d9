"""Words of a prompt and the tokens they became: host code, before anything is compiled."""

from __future__ import annotations

import dataclasses
import difflib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..errors import UserError


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text with its tokens.

    Attributes:
      text: as the user wrote it.
      ids: token ids with begin and end, cut to the encoder's length, without padding.
      spans: where each token stands in the text, (start, end) in characters; (0, 0) for begin/end.
    """

    text: str
    ids: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def words(self) -> list[str]:
        """The text split at white space, punctuation included."""
        return self.text.split()

    @property
    def word_tokens(self) -> list[list[int]]:
        """For each word, the positions of its tokens (none for a word that was cut off)."""
        return [self._within(m.start(), m.end()) for m in re.finditer(r"\S+", self.text)]

    def tokens(self, word: str) -> list[int]:
        """Positions of the tokens of a word, wherever it occurs, or of several words in a row.

        The word is looked for as written; then without regard to case and to the punctuation
        around it ("cat" finds "Cat,", and then only the token of "Cat").
        Raises: UserError when the prompt has no such word, naming the nearest one.

        Example: `prompt.tokens("tiger")` is [2] for "a tiger".
        """
        found = self._places(word)
        if not found:
            raise UserError(
                f"the word {word!r} is not in the prompt {self.text!r}{self._hint(word)}"
            )
        tokens = sorted({t for start, end in found for t in self._within(start, end)})
        if not tokens:
            raise UserError(f"the word {word!r} was cut off: the prompt {self.text!r} is too long")
        return tokens

    def has(self, word: str) -> bool:
        """Whether `tokens` would find it."""
        try:
            return bool(self.tokens(word))
        except UserError:
            return False

    def _places(self, word: str) -> list[tuple[int, int]]:
        """Where the word stands in the text, (start, end) in characters."""
        wanted = word.split()
        if not wanted:
            return []
        found = self._matches(wanted, lambda m: (m.group(), m.start(), m.end()))
        return found or self._matches([_bare(w) for w in wanted], _core)

    def _matches(self, wanted, read) -> list[tuple[int, int]]:
        words = [read(m) for m in re.finditer(r"\S+", self.text)]
        runs = (words[i : i + len(wanted)] for i in range(len(words) - len(wanted) + 1))
        return [(run[0][1], run[-1][2]) for run in runs if [w for w, *_ in run] == wanted]

    def _within(self, start: int, end: int) -> list[int]:
        return [i for i, (a, b) in enumerate(self.spans) if a < b and a < end and start < b]

    def _hint(self, word: str) -> str:
        known = {_bare(w): w for w in self.words}
        close = difflib.get_close_matches(_bare(word), list(known), n=1)
        return f" (did you mean {known[close[0]]!r}?)" if close else ""


def in_no_prompt(word: str, prompts: Sequence[Prompt]) -> UserError:
    """The error for a word that none of the prompts has: names it and the words that there are."""
    for prompt in prompts:
        if prompt._places(word):
            prompt.tokens(word)  # says that it was cut off
    there = ", ".join(dict.fromkeys(_bare(w) for prompt in prompts for w in prompt.words))
    return UserError(f"the word {word!r} is in no prompt; there are: {there}")


def read_prompt(model, text: str) -> Prompt:
    """The prompt as the model's tokenizer sees it."""
    ids, spans = model.tokenizers[0].spans(text)
    return Prompt(text, tuple(int(i) for i in ids), tuple((int(a), int(b)) for a, b in spans))


def selector(tokens: Sequence[int], length: int) -> Float[np.ndarray, "tokens"]:
    """1 at the given positions, 0 elsewhere."""
    chosen = np.zeros(length, np.float32)
    chosen[list(tokens)] = 1
    return chosen


def listed_words(value: str | Sequence[str] | None) -> list[str]:
    """ "cat, hot dog" -> ["cat", "hot dog"]; without a comma every word stands for itself."""
    if value is None:
        return []
    if not isinstance(value, str):
        return [str(v) for v in value]
    parts = value.split(",") if "," in value else value.split()
    return [p.strip() for p in parts if p.strip()]


def _core(match: re.Match) -> tuple[str, int, int]:
    """A word without case and outer punctuation, and where that core stands."""
    word = match.group()
    bare = word.strip(_outer(word))
    start = match.start() + (word.index(bare) if bare else 0)
    return _bare(word), start, start + len(bare or word)


def _bare(word: str) -> str:
    return (word.strip(_outer(word)) or word).casefold()


def _outer(word: str) -> str:
    """The characters of a word that are neither letters, numbers nor marks."""
    return "".join({c for c in word if unicodedata.category(c)[0] not in "LNM"})
