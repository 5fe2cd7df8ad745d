"""From token pieces to text: characters that span tokens, and stop strings that span anything."""

import codecs
from dataclasses import dataclass, field


@dataclass(slots=True)
class Piece:
    """Text that became final together, and the tokens it is from. `drafted` is that of the last one."""

    text: str
    tokens: tuple[int, ...]
    drafted: bool


@dataclass(slots=True)
class TextStream:
    """Text of one sequence. What may yet become a stop string is held back; a stop string is never shown."""

    stop: tuple[str, ...] = ()
    stopped_by: str = ""
    """The stop string that has ended the text."""
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _tokens: list[int] = field(default_factory=list)
    _held: list[Piece] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return bool(self.stopped_by)

    def push(self, piece: bytes, token: int, drafted: bool) -> list[Piece]:
        """Add a token; what is final now. Nothing more may be pushed once `stopped` is true."""
        self._tokens.append(token)
        text = self._decoder.decode(piece)
        if not text and piece:
            return []
        self._held.append(Piece(text, tuple(self._tokens), drafted))
        self._tokens.clear()
        return self._release()

    def finish(self) -> list[Piece]:
        """The text has ended: all that is still held, half a character shown as U+FFFD."""
        text = self._decoder.decode(b"", final=True)
        if text or self._tokens:
            self._held.append(Piece(text, tuple(self._tokens), drafted=False))
            self._tokens.clear()
        held, self._held = self._held, []
        return [] if self.stopped else held

    def _release(self) -> list[Piece]:
        if not self.stop:
            held, self._held = self._held, []
            return held
        text = "".join(piece.text for piece in self._held)
        found = min(((at, stop) for stop in self.stop if (at := text.find(stop)) >= 0), default=None)
        if found is not None:
            at, self.stopped_by = found
            return self._take(at, split=True)
        return self._take(len(text) - _possible_stop(text, self.stop), split=False)

    def _take(self, length: int, *, split: bool) -> list[Piece]:
        """Whole pieces within the first `length` characters; with `split` also a part of the next."""
        taken: list[Piece] = []
        while self._held and len(self._held[0].text) <= length:
            piece = self._held.pop(0)
            length -= len(piece.text)
            taken.append(piece)
        if split and length and self._held:
            piece = self._held.pop(0)
            taken.append(Piece(piece.text[:length], piece.tokens, piece.drafted))
        return taken


def _possible_stop(text: str, stops: tuple[str, ...]) -> int:
    """Length of the longest end of `text` that begins one of `stops`."""
    longest = min(len(text), max(map(len, stops)) - 1)
    for length in range(longest, 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            return length
    return 0
