"""A request and the state of its sequence: plain data that the engine moves along."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from llamaspec.decode.ports import Draft, Grammar
from llamaspec.decode.sampling import Sampler
from llamaspec.decode.text import TextStream
from llamaspec.events import FinishReason, TokenDetail
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
    special: bool = False
    """Write control tokens by their names: some models write tool calls with them."""
    details: bool = False
    """Tell of every token who drafted it."""
    logprobs: int | None = None
    """Tell of every token its probability, and those of so many alternatives."""
    post_sampling: bool = False
    """Those probabilities are the ones after all samplers: what the token was drawn by."""
    prompt_logprobs: int | None = None
    """The same of the prompt's tokens, by an event before the first text."""
    progress: bool = False
    """Tell how far the prompt is read, by events."""
    seat: int | None = None
    """Which of the engine's places to run in, and to wait for; None: any that is free."""
    cache_prompt: bool = False
    """Take over what is held of another text with the same beginning, and leave this one behind."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Added to the main model's logits; -inf bans a token."""

    @property
    def reuses(self) -> bool:
        """Whether it may take over what is held of another text: not where every row is wanted."""
        return self.cache_prompt and self.prompt_logprobs is None


class Phase(Enum):
    WAITING = auto()
    PREFILL = auto()
    DECODING = auto()
    DONE = auto()


@dataclass(slots=True)
class Sequence:
    """One request on its way. While it runs, `seat` is its place among those that may run at a time.

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
    seat: int = -1
    slot: int = -1
    held: int = 0
    owed: Draft = field(default_factory=Draft)
    drafter: str = ""
    phase: Phase = Phase.WAITING
    stats: Stats = field(default_factory=Stats)
    prompt_done: float = 0.0
    last_emitted: float = 0.0
    finish: FinishReason | None = None
    details: list[TokenDetail] = field(default_factory=list)
    """Of tokens whose text is not final yet."""
    prompt_details: list[TokenDetail] = field(default_factory=list)

    @property
    def predicted(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    def budget(self, context_size: int) -> int:
        """How many more tokens may be emitted."""
        room = context_size - len(self.tokens)
        limit = self.request.sampling.n_predict
        return room if limit < 0 else min(room, limit - self.predicted)
