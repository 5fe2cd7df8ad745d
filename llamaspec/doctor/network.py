"""Where models come from: the package index and the hub, each asked one short question."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping

from llamaspec.doctor.check import Finding, Visit, attention, broken, ok
from llamaspec.doctor.places import find_file, sources
from llamaspec.errors import ModelFetchError, NetworkError
from llamaspec.hub.sources import ModelSource, WheelMirror

INDEX, HUB = "The package index", "Hugging Face"

_SECONDS = 15.0  # names that don't resolve can take longer than any time-out that one may ask for
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_CHECK = "Check the network and its proxies."

Answers = Mapping[str, ModelFetchError | None]
"""By place: None for one that answers as it should."""


def run(visit: Visit) -> Iterator[Finding]:
    if visit.offline:
        yield ok("Not asked: --offline.")
        return
    wanted = sources(visit.profile)
    asked = next((source for source in wanted if isinstance(source, ModelSource)), None)
    if asked is None:
        yield ok("Not asked: the default profile names files of this machine.")
        return
    questions: dict[str, Callable[[], None]] = {}
    if package := _package(asked):
        questions[INDEX] = lambda: _ask_index(package)
    if _hub_is_switched_off():
        yield ok(f"{HUB} is not asked: HF_HUB_OFFLINE is set.")
    else:
        questions[HUB] = lambda: _ask_hub(asked)
    here = all(find_file(source) for source in wanted)
    yield from judge(ask_all(questions), pair_is_here=here, proxies=_proxies())


def judge(answers: Answers, *, pair_is_here: bool, proxies: tuple[str, ...] = ()) -> Iterator[Finding]:
    """`proxies`: the variables that set one; their values may have passwords in them."""
    details = [f"a proxy is set by {name}" for name in proxies]
    stuck = not pair_is_here and all(answers.values())
    for place, error in answers.items():
        if error is None:
            yield ok(f"{place} answers.", *details)
        elif stuck:
            yield broken(f"{error.message} The default pair is not here yet.", error.hint or _CHECK, *details)
        else:
            yield attention(error.message, _meanwhile(error, pair_is_here), *details)


def _meanwhile(error: ModelFetchError, pair_is_here: bool) -> str:
    hint = error.hint or _CHECK
    there = (
        "What is here already works without it." if pair_is_here else "The default pair has another source."
    )
    return f"{hint} {there}"


def ask_all(questions: Mapping[str, Callable[[], None]], seconds: float = _SECONDS) -> Answers:
    """Ask at the same time. Errors of another kind than ModelFetchError are raised here."""
    answers: dict[str, Exception | None] = {}

    def note(place: str, question: Callable[[], None]) -> None:
        try:
            question()
            answers[place] = None
        except Exception as error:
            answers[place] = error

    # Not waited for at the end of the program, whatever they are stuck in.
    threads = [threading.Thread(target=note, args=asked, daemon=True) for asked in questions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    taken: dict[str, ModelFetchError | None] = {}
    for place in questions:
        answer = answers.get(place, NetworkError(f"{place} gave no answer in time.", _CHECK))
        if answer is not None and not isinstance(answer, ModelFetchError):
            raise answer
        taken[place] = answer
    return taken


def _ask_index(package: str) -> None:
    from llamaspec.hub.pip import ask_index

    ask_index(package)


def _ask_hub(source: ModelSource) -> None:
    from llamaspec.hub.huggingface import list_names

    list_names(source.repo, source.revision)


def _package(source: ModelSource) -> str | None:
    return next((each.wheels[0].package for each in source.mirrors if isinstance(each, WheelMirror)), None)


def _hub_is_switched_off() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _proxies() -> tuple[str, ...]:
    return tuple(name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower()))
