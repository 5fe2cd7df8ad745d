"""A request and the state of its sequence: plain data that the engine moves along."""

from dataclasses import dataclass, field
from enum import Enum, auto

from llamaspec.decode.ports import Draft, Grammar
from llamaspec.decode.sampling import Sampler
from llamaspec.decode.text import TextStream
from llamaspec.events import FinishReason
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats


@dataclass(frozen=True, slots=True)
class Request:
    """What to generate: `prompt` as token ids, not empty. The grammar is advanced by the request."""

    prompt: tuple[int, ...]
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    speculation: SpeculationSettings = field(default_factory=SpeculationSettings)
    grammar: Grammar | None = None
    repeatable: bool = False
    """The same seed shall give the same text whatever is drafted: nothing is drafted by chance."""
    explain: bool = False
    """Tell of every round by an event."""


class Phase(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODING = auto()
    DONE = auto()


@dataclass(slots=True)
class Sequence:
    """One request on its way.

    Invariant after every step: the main KV cache of slot `slot` holds tokens[:held], and while
    decoding held <= len(tokens) - 1: the last token has been chosen but not evaluated. `owed` was
    drafted after exactly these tokens and has yet to be judged.
    """

    id: int
    request: Request
    sampler: Sampler
    tokens: list[int]
    text: TextStream
    submitted: float
    slot: int = -1
    held: int = 0
    owed: Draft = field(default_factory=Draft)
    drafter: str = ""
    phase: Phase = Phase.WAITING
    stats: Stats = field(default_factory=Stats)
    prompt_done: float = 0.0
    last_emitted: float = 0.0
    finish: FinishReason | None = None

    @property
    def predicted(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    def budget(self, context_size: int) -> int:
        """How many more tokens may be emitted."""
        room = context_size - len(self.tokens)
        limit = self.request.sampling.n_predict
        return room if limit < 0 else min(room, limit - self.predicted)
