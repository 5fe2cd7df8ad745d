"""A race of real sessions: loaded when they are first needed, kept while there is room for them."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing

from llamaspec.bench.paired import WARM_UP, Run, compare, greedy
from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.race import Heat, Sample
from llamaspec.bench.workload import Prompt
from llamaspec.closing import Closing
from llamaspec.errors import LlamaspecError
from llamaspec.native import devices
from llamaspec.session import Session

MOST = 4
"""Side by side: more have each other's weights out of the processor's caches all the time."""

_PLANNED_WITH = 0.8  # of what memory is free
_NOTICEABLE = 64 << 20
_WARM_UP_TOKENS = 24  # in which mode auto tries what it has, too


class LiveRace(Closing):
    """`open_one` loads a candidate, `default` is the one that has to work, `most` may be side by side."""

    def __init__(
        self,
        open_one: Callable[[Candidate], Session],
        default: Candidate,
        free_memory: Callable[[], Mapping[str, int]] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        most: int = MOST,
    ) -> None:
        self._open_one = open_one
        self._default = default
        self._free_memory = free_memory or free_bytes
        self._should_stop = should_stop
        self._most = most
        self._sessions: dict[str, Session] = {}
        self._capacity: int | None = None
        self._heats = 0
        self.spent = 0.0

    @property
    def capacity(self) -> int:
        """Sessions that fit in memory side by side, judged by what the default takes.

        Raises what loading it does.
        """
        if self._capacity is None:
            started, before = time.monotonic(), self._free_memory()
            self._session(self._default, {self._default.key})
            after = self._free_memory()
            more = self._most
            for place, left in after.items():
                if (taken := before[place] - left) > _NOTICEABLE:
                    more = min(more, int(_PLANNED_WITH * left / taken))
            self._capacity = max(1, min(self._most, 1 + more))
            self.spent += time.monotonic() - started
        return self._capacity

    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        """Errors of the first of the field are raised, those of others told."""
        self._heats += 1
        started = time.monotonic()
        samples, failed = self._side_by_side(field, prompt, n_predict)
        seconds = time.monotonic() - started
        self.spent += seconds
        return Heat(samples, failed, seconds)

    def close(self) -> None:
        """Free what is loaded. A second call does nothing."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _side_by_side(
        self, field: Sequence[Candidate], prompt: Prompt, n_predict: int
    ) -> tuple[dict[str, Sample], dict[str, str]]:
        if len(field) > self.capacity:
            return self._one_by_one(field, prompt, n_predict)
        needed = {candidate.key for candidate in field}
        sessions: dict[str, Session] = {}
        failed: dict[str, str] = {}
        for candidate in field:
            try:
                sessions[candidate.key] = self._session(candidate, needed)
            except LlamaspecError as error:
                if candidate is field[0]:
                    raise
                failed[candidate.key] = error.message
        try:
            stop = self._should_stop
            trial = compare(sessions, prompt, n_predict, number=self._heats, should_stop=stop)
        except LlamaspecError:  # of whom, is not told
            return self._one_by_one(field, prompt, n_predict)
        return {key: _sample(run) for key, run in trial.runs.items()}, failed

    def _one_by_one(
        self, field: Sequence[Candidate], prompt: Prompt, n_predict: int
    ) -> tuple[dict[str, Sample], dict[str, str]]:
        """Where they don't fit together, or one of them fails; the machine's moods are not shared then.

        Who is still loaded begins: that spares loading, and nobody is always the first.
        """
        samples: dict[str, Sample] = {}
        failed: dict[str, str] = {}
        for candidate in sorted(field, key=lambda one: one.key not in self._sessions):
            try:
                session = self._session(candidate, {candidate.key})
                trial = compare({candidate.key: session}, prompt, n_predict, should_stop=self._should_stop)
                samples[candidate.key] = _sample(trial.runs[candidate.key])
            except LlamaspecError as error:
                if candidate is field[0]:
                    raise
                failed[candidate.key] = error.message
        return samples, failed

    def _session(self, candidate: Candidate, needed: set[str]) -> Session:
        """A warm session, for which others that are not `needed` make room."""
        key = candidate.key
        if key not in self._sessions:
            most = self._capacity or 1
            for idle in [other for other in self._sessions if other not in needed]:
                if len(self._sessions) >= most:
                    self._sessions.pop(idle).close()
            session = self._open_one(candidate)
            self._sessions[key] = session
            with closing(session.chat(WARM_UP, settings=greedy(_WARM_UP_TOKENS))) as events:
                for _ in events:
                    pass
        return self._sessions[key]


def free_bytes() -> dict[str, int]:
    """Of the host's memory and each GPU's, by name."""
    gpus = {gpu.name: gpu.free_bytes for gpu in devices.list_devices() if gpu.kind in ("gpu", "igpu")}
    return {"host": devices.available_memory(), **gpus}


def _sample(run: Run) -> Sample:
    reading = run.prompt_tokens / run.prompt_seconds if run.prompt_seconds else None
    return Sample(run.speed, reading)
