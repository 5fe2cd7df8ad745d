"""What the server has done: the latest requests, and figures over all of them for the web page."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from llamaspec.engine.worker import Ticket
from llamaspec.events import FinishEvent
from llamaspec.stats import DrafterStats, Stats, ratio

_REMEMBERED = 50
_LATELY = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Entry:
    """One request that has ended, at the time `at` (seconds since the epoch)."""

    id: int
    at: float
    kind: str
    mode: str
    stats: Stats
    finish_reason: str

    def as_dict(self) -> dict[str, Any]:
        stats = self.stats
        return {
            "id": self.id,
            "at": self.at,
            "kind": self.kind,
            "mode": self.mode,
            "prompt_tokens": stats.prompt_tokens,
            "cached_tokens": stats.cached_tokens,
            "predicted_tokens": stats.predicted_tokens,
            "time_to_first_token": stats.time_to_first_token,
            "tokens_per_second": stats.tokens_per_second,
            "draft_n": stats.draft_n,
            "draft_n_accepted": stats.draft_n_accepted,
            "estimated_speedup": stats.estimated_speedup,
            "finish_reason": self.finish_reason,
        }


class Activity:
    """Told of every request from several threads; `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._history: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._widths: Counter[int] = Counter()
        self._drafted_at: list[int] = []
        self._accepted_at: list[int] = []
        self._drafters: dict[str, DrafterStats] = {}

    def ended(self, ticket: Ticket, finish: FinishEvent) -> Entry:
        stats = ticket.stats
        with self._lock:
            mode = ticket.request.speculation.mode
            entry = Entry(ticket.id, self._clock(), ticket.kind, mode, stats, finish.reason.value)
            self._history.appendleft(entry)
            for total, counts in (
                (self._drafted_at, stats.drafted_at),
                (self._accepted_at, stats.accepted_at),
            ):
                total.extend([0] * (len(counts) - len(total)))
                for position, count in enumerate(counts):
                    total[position] += count
            self._widths.update(stats.widths)
            for name, counted in stats.drafters.items():
                self._drafters.setdefault(name, DrafterStats()).add(counted)
        return entry

    def as_dict(self, running: Iterable[Stats] = ()) -> dict[str, Any]:
        """Figures over everything, and the history, the latest first; `running` are still counting."""
        with self._lock:
            accepted = self._accepted_at + [0] * (len(self._drafted_at) - len(self._accepted_at))
            return {
                "speed": _speed([*self._lately(), *running]),
                "acceptance_rate": ratio(sum(accepted), sum(self._drafted_at)),
                "acceptance_per_position": [
                    kept / drafted for kept, drafted in zip(accepted, self._drafted_at, strict=True)
                ],
                "draft_lengths": {str(width): count for width, count in sorted(self._widths.items())},
                "drafters": {name: counted.as_dict() for name, counted in self._drafters.items()},
                "history": [entry.as_dict() for entry in self._history],
            }

    @property
    def estimated_speedup(self) -> float | None:
        """Of the last minute."""
        with self._lock:
            return _speed(self._lately())["estimated_speedup"]

    def _lately(self) -> list[Stats]:
        return [entry.stats for entry in self._history if self._clock() - entry.at < _LATELY]


def _speed(lately: Iterable[Stats]) -> dict[str, float | None]:
    """Speeds of single requests, not of all together: what one who waits for an answer sees."""
    known = [stats for stats in lately if stats.later_tokens]
    each = ratio(sum(stats.later_tokens for stats in known), sum(stats.predicted_seconds for stats in known))
    plain = ratio(sum(stats.plain_tokens for stats in known), sum(stats.plain_seconds for stats in known))
    speedup = each / plain if each and plain and any(stats.draft_n for stats in known) else None
    return {"tokens_per_second": each, "plain_tokens_per_second": plain, "estimated_speedup": speedup}
