"""One answer of `llamaspec run`: printed as it comes, measured against plain decoding, and reported."""

import json
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any

from llamaspec.bench.paired import Lane, next_lane
from llamaspec.cli.interrupt import Interrupt
from llamaspec.console.answer import AnswerPrinter
from llamaspec.console.explain import RoundPrinter
from llamaspec.console.panel import print_stats
from llamaspec.decode.sequence import Request
from llamaspec.events import FinishReason, RoundEvent, TextEvent
from llamaspec.session import Session
from llamaspec.settings import SpeculationSettings
from llamaspec.stats import Stats

ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to do with an answer beside printing it, and how to print it. `color` None: as the terminal is."""

    verify: bool
    compare: bool
    explain: bool
    color: bool | None
    quiet: bool
    as_json: bool


def answer(llm: Session, prompt: str, gbnf: str | None, wanted: Wanted) -> bool:
    """Answer a prompt as it stands; False where Ctrl-C ended it."""
    request = llm.request(prompt, grammar=gbnf, explain=wanted.explain)
    plainly = replace(
        request,
        speculation=SpeculationSettings(mode="off"),
        grammar=request.grammar.copy() if request.grammar is not None else None,
        explain=False,
    )
    output = _Output(llm, wanted)
    report: dict[str, Any] = {}
    with Interrupt() as interrupt:
        if wanted.compare:
            plain_tokens, report["compare"] = _side_by_side(llm, request, plainly, output, interrupt)
        else:
            plain_tokens = None
            with closing(llm.generate(request, interrupt, output.rounds.append)) as events:
                for event in events:
                    output.take(event)
        output.end()
        stats, reason, prices = llm.stats, llm.finish_reason or FinishReason.CANCELLED, llm.prices()
        if wanted.verify and not interrupt():
            replayed = None
            if plain_tokens is None:
                plain_tokens = [token for event in llm.generate(plainly, interrupt) for token in event.tokens]
                replayed = llm.stats.as_dict()
            if not interrupt():
                same = _verified(llm, request.prompt, output.tokens, plain_tokens)
                report["verify"] = {**same, "plain": replayed}
        if interrupt():
            report.clear()  # one of the two texts is not complete
    if wanted.as_json:
        told = _as_json(llm, output, reason, stats, prices)
        print(json.dumps({**told, **report}, ensure_ascii=False))
    elif not wanted.quiet:
        print_stats(stats, reason, prices, **report)
    return not interrupt()


class _Output:
    """Where events go: to the terminal at once, unless all is wanted as JSON."""

    def __init__(self, llm: Session, wanted: Wanted) -> None:
        self.rounds: list[RoundEvent] = []
        self.text = ""
        self.tokens: list[int] = []
        self._spell = llm.loaded.main.special_text
        self._explain, self._as_json = wanted.explain, wanted.as_json
        self._answer = AnswerPrinter(wanted.color)
        self._explained = RoundPrinter(self._spell, wanted.color)
        self._shown = 0

    def take(self, event: TextEvent) -> None:
        self.text += event.text
        self.tokens += event.tokens
        if not self._as_json and not self._explain:
            self._answer.write(event)
        self._show_rounds()

    def end(self) -> None:
        """Rounds show the text as it is made; the answer as such is printed after them."""
        if self._as_json:
            return
        self._show_rounds()
        if self._explain:
            self._explained.end()
            self._answer.write(TextEvent(0, self.text, (), drafted=False))
        self._answer.end()

    def rounds_as_json(self) -> list[dict[str, Any]] | None:
        if not self._explain:
            return None
        return [
            {
                "drafter": event.drafter or None,
                "drafted": [{**asdict(one), "text": self._spell(one.token)} for one in event.drafted],
                "checked": event.width,
                "accepted": event.accepted,
                "emitted": [self._spell(token) for token in event.emitted],
                "stopped": event.stopped,
            }
            for event in self.rounds
        ]

    def _show_rounds(self) -> None:
        if self._explain and not self._as_json:
            for event in self.rounds[self._shown :]:
                self._explained.write(event)
            self._shown = len(self.rounds)


def _side_by_side(
    llm: Session, request: Request, plainly: Request, output: _Output, should_stop: ShouldStop
) -> tuple[list[int], dict[str, Any]]:
    """Answer with drafts and plainly, a round of each in turns; tokens of the plain one, and both speeds."""
    events: list[TextEvent] = []
    with llm.plain() as other:
        drafting = _noted(llm.generate(request, should_stop, output.rounds.append), events)
        with closing(drafting), closing(other.generate(plainly, should_stop)) as alone:
            ours, plain = Lane(drafting, llm), Lane(alone, other)
            number = 0
            while (lane := next_lane((ours, plain))) is not None:
                number += 1
                lane.advance(number, time.perf_counter)
                while events:  # printed outside of what is timed
                    output.take(events.pop(0))
    runs = {"speculative": ours.run(), "plain": plain.run()}
    # By the clock the plain turns have gone by too: what counts is the time of its own ones.
    llm.stats.predicted_seconds = ours.seconds
    llm.stats.latencies.clear()
    speeds = [run.speed for run in runs.values()]
    report: dict[str, Any] = {
        "speedup": speeds[0] / speeds[1] if speeds[0] and speeds[1] else None,
        "same_text": ours.tokens == plain.tokens,
    }
    for name, run in runs.items():
        report[name] = {"tokens": run.timed_tokens, "seconds": run.seconds, "per_second": run.speed}
    return plain.tokens, report


def _noted(events: Generator[TextEvent], notes: list[TextEvent]) -> Generator[TextEvent]:
    with closing(events):
        for event in events:
            notes.append(event)
            yield event


def _verified(
    llm: Session, prompt: Sequence[int], tokens: Sequence[int], plain: Sequence[int]
) -> dict[str, Any]:
    """Whether the texts are the same and, if not, where and how nearly they part."""
    divergence = llm.first_divergence(prompt, tokens, plain)
    return {
        "same": list(tokens) == list(plain),
        "first_divergence": asdict(divergence) if divergence else None,
    }


def _as_json(
    llm: Session, output: _Output, reason: str, stats: Stats, prices: dict[str, Any] | None
) -> dict[str, Any]:
    told = {
        "text": output.text,
        "finish_reason": reason,
        "usage": {"prompt_tokens": stats.prompt_tokens, "completion_tokens": stats.predicted_tokens},
        "settings": llm.settings(),
        "models": llm.models(),
        "stats": stats.as_dict(),
        "prices": prices,
    }
    rounds = output.rounds_as_json()
    return told if rounds is None else {**told, "rounds": rounds}
