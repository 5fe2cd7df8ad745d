"""The tokens of a conversation, such that the KV cache goes on to hold them.

An answer's text, read back as part of the next prompt, need not become the tokens that it was written
with. Where a conversation goes on, the tokens that were evaluated are therefore kept, and only what follows
them is tokenised.
"""

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    def tokenize(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]: ...

    def piece(self, token: int) -> bytes: ...

    def special_text(self, token: int | None) -> str: ...


class TokenTrail:
    """The last prompt and its answer, as text and as tokens, and where in them prompts and answers end."""

    def __init__(self, model: Tokenizer) -> None:
        self._model = model
        self._text = ""
        self._tokens: list[int] = []
        self._ends: list[tuple[int, int]] = []  # characters and tokens

    def tokens(self, text: str) -> list[int]:
        """A prompt's tokens: as they were evaluated as far as it is the same text, tokenised behind that.

        A text is only cut in front of a control token, where no token can span the cut.
        """
        for characters, count in reversed(self._ends):
            if text.startswith(self._text[:characters]):
                rest = text[characters:]
                more = self._model.tokenize(rest, add_special=False) if rest else []
                if not more or self._is_control(more[0], rest):
                    return self._tokens[:count] + more
        return self._model.tokenize(text)

    def follow(self, prompt: str, tokens: Sequence[int], answer: str, said: Sequence[int]) -> None:
        """`prompt`, whose tokens came from here, was answered with the tokens `said`, which read `answer`."""
        ends = [end for end in self._ends if self._is_same(end, prompt, tokens)]
        ends.append((len(prompt), len(tokens)))
        # A stop string cuts the text within tokens.
        if answer and b"".join(map(self._model.piece, said)).decode("utf-8", "replace") == answer:
            ends.append((len(prompt) + len(answer), len(tokens) + len(said)))
        self._text, self._tokens, self._ends = prompt + answer, [*tokens, *said], ends

    def _is_same(self, end: tuple[int, int], text: str, tokens: Sequence[int]) -> bool:
        characters, count = end
        return text.startswith(self._text[:characters]) and list(tokens[:count]) == self._tokens[:count]

    def _is_control(self, token: int, text: str) -> bool:
        return not self._model.piece(token) and text.startswith(self._model.special_text(token))
