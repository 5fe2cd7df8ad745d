"""Every heat of a search, kept in a file as soon as it is over: a search that is resumed replays them.

The search is a pure function of its heats and of the time that they took, so it comes to where it was, and to
the same verdict as if it had never stopped.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.race import Heat, Race, Sample
from llamaspec.bench.workload import Prompt
from llamaspec.hub.cache import cache_root
from llamaspec.replacing import replacing

_VERSION = 1

log = logging.getLogger(__name__)


class Journal:
    """A `Race` that asks another one only for what it has no record of. `of`: what the heats depend on."""

    def __init__(self, of: Mapping[str, Any], live: Callable[[], Race], *, resume: bool) -> None:
        text = json.dumps([_VERSION, of], sort_keys=True, default=str)
        self.path = cache_root() / "tuning" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        self.found = self.path.is_file()
        self.spent = 0.0
        self._live = live
        self._capacity: int | None = None
        self._opening = 0.0  # seconds that it took to find out
        self._records: list[dict[str, Any]] = []
        self._unread: dict[str, list[Heat]] = {}
        if resume and self.found:
            self._read()

    @property
    def heats(self) -> int:
        """How many there are on record."""
        return len(self._records)

    @property
    def capacity(self) -> int:
        if self._capacity is None:
            live = self._live()
            self._capacity, self._opening = live.capacity, live.spent
            self.spent += self._opening
        return self._capacity

    def __call__(self, field: Sequence[Candidate], prompt: Prompt, n_predict: int) -> Heat:
        name = json.dumps([sorted(one.key for one in field), prompt.name, n_predict])
        if waiting := self._unread.get(name):
            heat = waiting.pop(0)
        else:
            heat = self._live()(field, prompt, n_predict)
            self._records.append({"name": name, **asdict(heat)})
            self._write()
        self.spent += heat.seconds
        return heat

    def forget(self) -> None:
        """The search is over."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        """A record that can't be read is as if there was none."""
        try:
            data = json.loads(self.path.read_text(encoding="utf-8"))
            capacity, opening = int(data["capacity"]), float(data["opening"])
            unread: dict[str, list[Heat]] = {}
            for record in data["heats"]:
                samples = {key: Sample(**sample) for key, sample in record["samples"].items()}
                heat = Heat(samples, dict(record["failed"]), float(record["seconds"]))
                unread.setdefault(record["name"], []).append(heat)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            log.warning("What an earlier search left can't be read: it starts over.")
            return
        self._capacity, self._opening, self.spent = capacity, opening, opening
        self._records, self._unread = list(data["heats"]), unread

    def _write(self) -> None:
        """Best effort, and complete or not at all."""
        data = {"capacity": self.capacity, "opening": self._opening, "heats": self._records}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as partial:
                partial.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            log.warning("The search can't be kept for --resume: %s.", error.strerror or error)
