"""Whether what has won is taken: fresh heats against the default, on prompts tuned on and on others."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.race import Heat, Tally
from llamaspec.bench.workload import Prompt
from llamaspec.figures import FEWEST, Figure, Ratio, figure

PLAIN = Candidate("plain decoding", {"speculation": {"mode": "off"}})

_CLEAR_AFTER = 4  # heats on either side
_UNHARMED = 0.99  # writing, by what only reads faster


@dataclass(slots=True)
class Proof:
    """The heats of a `contender` against the `default` and against plain decoding under its own runtime.

    `is_plain`: the contender is plain decoding itself, and races itself.
    """

    default: Candidate
    contender: Candidate
    is_plain: bool = False
    prompts: dict[str, Prompt] = field(default_factory=dict)
    _held_in: Tally = field(init=False)
    _held_out: Tally = field(init=False)
    _all: Tally = field(init=False)
    _to_plain: Tally = field(init=False)
    _speeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._held_in, self._held_out, self._all = (Tally(self.default) for _ in range(3))
        self._to_plain = Tally(self._plain)

    @property
    def _plain(self) -> Candidate:
        return self.contender if self.is_plain else self.contender.changed(PLAIN)

    @property
    def field(self) -> tuple[Candidate, ...]:
        """Who races."""
        return tuple({one.key: one for one in (self.default, self.contender, self._plain)}.values())

    def add(self, prompt: Prompt, heat: Heat, *, held_in: bool) -> None:
        self.prompts[prompt.name] = prompt
        for tally in (self._held_in if held_in else self._held_out, self._all, self._to_plain):
            tally.add(prompt, heat)
        for key, sample in heat.samples.items():
            if sample.writing:
                self._speeds.setdefault(key, {}).setdefault(prompt.name, []).append(sample.writing)

    @property
    def held_in(self) -> Ratio | None:
        """Of the contender's writing to the default's, on prompts that were tuned on."""
        return self._held_in.ratio(self.contender)

    @property
    def held_out(self) -> Ratio | None:
        """The same on others."""
        return self._held_out.ratio(self.contender)

    @property
    def reading(self) -> Ratio | None:
        return self._all.ratio(self.contender, "reading")

    @property
    def plain(self) -> Figure | None:
        return figure(self._speeds.get(self._plain.key, {}))

    @property
    def speculative(self) -> Figure | None:
        return figure(self._speeds.get(self.contender.key, {}))

    @property
    def speedup(self) -> Ratio | None:
        """Of the contender to plain decoding."""
        if self.is_plain:
            return Ratio(value=1.0, low=1.0, high=1.0, count=max(1, len(self.prompts)))
        return self._to_plain.ratio(self.contender)

    @property
    def clear(self) -> bool:
        """Whether more heats would hardly change the verdict."""
        both = (self.held_in, self.held_out)
        if self.contender.key in self._all.failed:
            return True
        if any(one and one.verdict == "slower" and one.value < _UNHARMED for one in both):
            return True
        return all(one and one.verdict == "faster" and one.count >= _CLEAR_AFTER for one in both)

    def decide(self) -> tuple[bool, str]:
        """Whether the contender takes the default's place, and why."""
        name, held_in, held_out, reading = self.contender.name, self.held_in, self.held_out, self.reading
        if reason := self._all.failed.get(self.contender.key):
            return False, f"{name} failed in the end: {reason}"
        if held_in is None or held_out is None or min(held_in.count, held_out.count) < FEWEST:
            return False, f"There was no time to prove {name}."
        told = f"{held_in} the default's speed on prompts tuned on, {held_out} on others"
        if held_in.verdict == "faster" and held_out.value >= 1.0:
            return True, f"{name}: {told}."
        unharmed = min(held_in.value, held_out.value) >= _UNHARMED
        if reading is not None and reading.verdict == "faster" and unharmed:
            return (
                True,
                f"{name}: prompts are read {reading} as fast as by default, and nothing is written slower.",
            )
        return False, f"{name} is not faster beyond the noise: {told}."


def pairs(held_in: Iterable[Prompt], held_out: Iterable[Prompt]) -> list[tuple[Prompt, bool]]:
    """The order of the heats: prompts tuned on and others in turns, each with whether it was tuned on.

    As many of either; where there are fewer than a verdict needs, they come again.
    """
    tuned_on, others = list(held_in), list(held_out)
    count = max(FEWEST, min(len(tuned_on), len(others)))
    order = []
    for place in range(count):
        order += [(tuned_on[place % len(tuned_on)], True), (others[place % len(others)], False)]
    return order
