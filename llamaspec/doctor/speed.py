"""Ten seconds of decoding with a model that is here, against what this machine's memory would allow.

A token of plain decoding reads every weight once, so that bandwidth over bytes is a limit for the processor.
How near one comes depends on the model and the machine; far below it something is wrong. A GPU has a memory
of its own, mostly a faster one: not to come near the processor's limit is wrong there, too.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from llamaspec.doctor.binding import missed_features, read_processor
from llamaspec.doctor.build import Build, BuildTrouble
from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.doctor.child import Died, ask
from llamaspec.doctor.places import find_file, sources
from llamaspec.native.devices import available_memory
from llamaspec.profiles import find_profile

_SMALL_PROFILE = "smollm2-135m"
_SECONDS = 120.0  # to read the model from a slow disk takes what it takes
_ROOM = 1.3  # a model of one byte takes so many

# Shares of the limit that are no worry. In a small model what is no reading weighs more.
_EXPECTED, _EXPECTED_OF_SMALL, _SMALL_BYTES = 0.25, 0.1, 300_000_000
_MUCH = 0.15  # of the processor, taken by others


@dataclass(frozen=True, slots=True)
class Speed:
    """In tokens per second; `limit` is what reading the weights alone would allow."""

    speed: float
    limit: float
    token_bytes: int
    gpu_layers: int
    others: float

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> "Speed":
        """From what `speed_child.py` prints."""
        limit = answer["bandwidth"] / answer["token_bytes"]
        return cls(answer["speed"], limit, answer["token_bytes"], answer["gpu_layers"], answer["others"])

    @property
    def is_low(self) -> bool:
        expected = _EXPECTED if self.token_bytes >= _SMALL_BYTES else _EXPECTED_OF_SMALL
        return self.speed < expected * self.limit


def run(visit: Visit) -> Iterator[Finding]:
    if isinstance(visit.build, BuildTrouble):
        yield attention(
            "Not measured: the binding does not work.",
            "Repair the binding first: `llamaspec doctor binding` says how.",
        )
        return
    model = _choose(visit)
    if model is None:
        yield attention(
            "Not measured: there is no model here to measure with.",
            f"Fetch one, of 98 MB:\nllamaspec pull {_SMALL_PROFILE}",
        )
        return
    answer = ask("llamaspec.doctor.speed_child", str(model), seconds=_SECONDS)
    if isinstance(answer, Died):
        yield broken(
            f"{model.name} can't be run: {answer.reason}.",
            "Try it with `llamaspec run -v`, and see what `llamaspec doctor binding` says.",
            *answer.log,
        )
    elif "error" in answer:
        yield broken(answer["error"], answer["hint"] or "See what `llamaspec doctor binding` says.")
    else:
        yield judge(model.name, answer, visit.build)


def judge(name: str, answer: Mapping[str, Any], build: Build) -> Finding:
    speed = Speed.of(answer)
    where = f"{speed.gpu_layers} layers on the GPU" if speed.gpu_layers else f"{answer['threads']} threads"
    told = (
        f"{speed.speed:.3g} tokens/s with {name}: {speed.speed / speed.limit:.0%} of what the reading of "
        "memory allows the processor"
    )
    details = (
        f"plain decoding, {where}",
        f"{answer['bandwidth'] / 1e9:.0f} GB/s by {answer['threads']} threads, and "
        f"{speed.token_bytes / 1e9:.2f} GB for a token: {speed.limit:.3g} tokens/s at most",
        f"other programs took {speed.others:.0%} of the processor before",
    )
    if speed.is_low:
        return attention(f"{told}, which is little.", _remedy(speed, build), *details)
    return ok(f"{told}.", *details)


def _remedy(speed: Speed, build: Build) -> str:
    """The likeliest first."""
    if speed.others > _MUCH:
        return (
            f"Other programs took {speed.others:.0%} of the processor: close them and measure again:\n"
            "llamaspec doctor speed"
        )
    if missed := missed_features(read_processor().flags, build.features):
        return f"The binding does not use {', '.join(missed)}: `llamaspec doctor binding` has the command."
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is not None and not battery.power_plugged:
        return "The machine runs on its battery, which slows it down: plug it in."
    return "Look for better settings, above all the number of threads:\nllamaspec tune"


def _choose(visit: Visit) -> Path | None:
    """The default pair's draft, which is soon loaded and still near to the limit; else what is here."""
    wanted = [*reversed(sources(visit.profile)), *sources(find_profile(_SMALL_PROFILE))]
    files = (file for file in map(find_file, wanted) if file is not None)
    return next((file for file in files if _ROOM * file.stat().st_size < available_memory()), None)
