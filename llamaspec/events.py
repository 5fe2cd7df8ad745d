"""What an engine says about a request. Plain frozen data; one terminal event per request, always."""

from dataclasses import dataclass
from enum import StrEnum


class FinishReason(StrEnum):
    STOP = "stop"  # an end-of-generation token, or a stop string
    LENGTH = "length"  # the budget or the context is used up
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class TextEvent:
    """Text that is final. `drafted`: its last token came out of an accepted draft.

    `tokens` are the ids whose text is complete with this event: usually one, more where a
    character or a possible stop string spans several tokens.
    """

    request: int
    text: str
    tokens: tuple[int, ...]
    drafted: bool


@dataclass(frozen=True, slots=True)
class FinishEvent:
    """The last event of a request. `error` is set when, and only when, `reason` is ERROR."""

    request: int
    reason: FinishReason
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class DraftedToken:
    """A draft token, who proposed it, and how sure they were that it is kept (0 to 1)."""

    token: int
    source: str
    guess: float


@dataclass(frozen=True, slots=True)
class RoundEvent:
    """One draft and one verification; comes after the text of the round, where it was asked for.

    Of `drafted` the first `width` went through the main model, which kept the first `accepted`. `emitted`
    are those and the main model's own token; `stopped` says why the draft was no wider.
    """

    request: int
    drafter: str
    drafted: tuple[DraftedToken, ...]
    width: int
    accepted: int
    emitted: tuple[int, ...]
    stopped: str | None


Event = TextEvent | RoundEvent | FinishEvent
