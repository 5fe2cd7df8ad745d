"""Which draft suits a main model: what there is, whether it fits, and which is worth taking."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import geometric_mean
from typing import Any, Literal

from llamaspec.bench.families import known_drafts
from llamaspec.bench.tuning.candidates import Candidate
from llamaspec.bench.tuning.race import Pace, Race, State, Tally
from llamaspec.bench.workload import Prompt
from llamaspec.engine.loader import memory_needed
from llamaspec.errors import LlamaspecError
from llamaspec.figures import Ratio, ratio
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.header import Header
from llamaspec.gguf.pair import check_pair
from llamaspec.gguf.shards import read_model
from llamaspec.hub.inventory import list_models
from llamaspec.hub.names import quantisation, whole_models
from llamaspec.settings import RuntimeSettings

_GIB = 1 << 30
_SMALLER = 0.6  # of the main model's file: a known draft that is larger would hardly be quicker
_TAKES = 1.1  # times its file's size, a model of which no more is known

MEASURING = "measuring"

Drafting = Literal["none", "ngram", "model"]


@dataclass(frozen=True, slots=True)
class Option:
    """A way to draft, or not to. `size` in bytes.

    `path` is the model's file where it is here; `reference` names it on a command line. `problem` says why it
    can't be used, `fit` what memory it takes with the main model, `fits` whether there is as much. `speedup`
    is over no draft at all; `failed` says why there is none.
    """

    kind: Drafting
    name: str
    path: Path | None = None
    reference: str = ""
    size: int = 0
    problem: str = ""
    fits: bool = True
    fit: str = ""
    speedup: Ratio | None = None
    failed: str = ""

    @property
    def here(self) -> bool:
        return self.kind != "model" or self.path is not None

    @property
    def usable(self) -> bool:
        """Whether it can be measured here and now."""
        return self.here and self.fits and not self.problem

    @property
    def undecided(self) -> bool:
        """Whether too little was measured of it to say what it earns."""
        there_is_more = self.kind != "none" and self.usable and not self.failed
        return there_is_more and (self.speedup is None or self.speedup.verdict == "too few")

    @property
    def candidate(self) -> Candidate:
        """What races for it."""
        if self.kind == "none":
            return Candidate(self.name, {"speculation": {"mode": "off"}})
        drafters: dict[str, object] = {"drafters": ["ngram"]} if self.kind == "ngram" else {}
        return Candidate(self.name, {"speculation": {"mode": "auto", **drafters}}, str(self.path or ""))


NO_DRAFT = Option("none", "no draft at all")
NGRAMS = Option("ngram", "n-grams alone")


def find_options(main: Path, named: Sequence[Path], runtime: RuntimeSettings, available: int) -> list[Option]:
    """What could draft for `main`: nothing, n-grams, models that are `named`, in the caches or beside it, and
    known ones that are not here.

    `available` bytes of memory are free. Errors of the main model are raised, those of others told.
    """
    header = read_model(main)
    check_model(header)
    own = {path.resolve() for path in header.paths}
    local: dict[Path, Option] = {}
    for path, reference in _places(main, named):
        if (place := path.resolve()) not in own and place not in local:
            local[place] = _local_option(header, path, reference, runtime, available)
    used = sum(memory_needed(main, None, runtime).values())
    known = [
        Option("model", one.reference, reference=one.reference, size=one.size, **_memory(takes, available))
        for one in known_drafts(header)
        if one.size < _SMALLER * header.file_bytes
        and not any(_is_from(option.reference, one.repo, one.quant) for option in local.values())
        for takes in [used + int(_TAKES * one.size)]
    ]
    return [NO_DRAFT, NGRAMS, *local.values(), *known]


def measure(
    options: Sequence[Option],
    race: Race,
    prompts: Sequence[Prompt],
    seconds: float,
    n_predict: int,
    on_state: Callable[[State], None] = lambda state: None,
) -> Tally:
    """Every option that is usable against no draft at all, as many side by side as there is room for.

    It takes `seconds` at most, but for the first heat: without it nothing is known. `on_state` is told before
    every heat.
    """
    base = NO_DRAFT.candidate
    tally, pace = Tally(base), Pace(race)
    racing = [one.candidate for one in options if one.usable and one.kind != "none"]
    size, begun = max(1, race.capacity - 1), False
    groups = [racing[start : start + size] for start in range(0, len(racing), size)]
    for number, group in enumerate(groups):
        until = race.spent + (seconds - race.spent) / (len(groups) - number)
        for prompt in prompts:
            field = [one for one in group if one.key not in tally.failed]
            if not field or (begun and not pace.allows(1 + len(field), until)):
                break
            begun = True
            on_state(State(MEASURING, ", ".join(one.name for one in field), race.spent, seconds))
            tally.add(prompt, pace.heat((base, *field), prompt, n_predict))
    return tally


def ranked(options: Sequence[Option], tally: Tally | None = None) -> list[Option]:
    """The options with what was measured of them: the fastest first, then those of which too little is known,
    from the smallest on, then those to be had, then those that can't be used."""
    if tally is not None:
        options = [
            replace(one, speedup=tally.ratio(one.candidate), failed=tally.failed.get(one.candidate.key, ""))
            for one in options
        ]

    def order(one: Option) -> tuple[int, float]:
        speedup = 1.0 if one.kind == "none" and tally is not None else one.speedup and one.speedup.value
        if speedup and not one.undecided:
            return 0, -speedup
        return (3 if one.problem or not one.fits else 1 if one.here else 2), one.size

    return sorted(options, key=order)


def best(options: Sequence[Option], tally: Tally) -> Option:
    """The one to use: the simplest, unless another is faster beyond the noise."""
    kinds: tuple[Drafting, ...] = ("none", "ngram", "model")
    chosen, *others = sorted(options, key=lambda one: (kinds.index(one.kind), one.size))
    for other in others:
        against = _relative(tally, other, chosen)
        if against is not None and against.verdict == "faster":
            chosen = other
    return chosen


def _relative(tally: Tally, one: Option, other: Option) -> Ratio | None:
    """How many times as fast as another one, both having raced no draft at all on the same prompts."""
    ours = tally.writing.get(one.candidate.key, {})
    if other.kind == "none":
        return ratio(ours)
    theirs = tally.writing.get(other.candidate.key, {})
    return ratio(
        {
            prompt: [geometric_mean(ours[prompt]) / geometric_mean(theirs[prompt])]
            for prompt in ours.keys() & theirs.keys()
        }
    )


def _places(main: Path, named: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Files that are here, each with what names it on a command line."""
    for path in named:
        yield path, str(path)
    for model in list_models():
        files = [path for path in model.paths if path.name == model.file] if model.complete else []
        for path in files[:1]:  # of several revisions
            yield path, model.name if model.repo else str(path)
    for name in whole_models(path.name for path in main.parent.iterdir() if path.is_file()):
        yield main.parent / name, str(main.parent / name)


def _local_option(
    main: Header, path: Path, reference: str, runtime: RuntimeSettings, available: int
) -> Option:
    option = Option("model", reference.replace("\\", "/").rpartition("/")[2], path, reference)
    try:
        draft = read_model(path)
        option = replace(option, size=draft.file_bytes)
        check_model(draft)
        if draft.file_bytes >= main.file_bytes:
            return replace(option, problem="It is not smaller than the main model.")
        check_pair(main, draft)
        takes = sum(memory_needed(main.path, path, runtime).values())
    except LlamaspecError as error:
        return replace(option, problem=error.message)
    return replace(option, **_memory(takes, available))


def _memory(takes: int, available: int) -> Mapping[str, Any]:
    fits = takes <= available
    told = f"{takes / _GIB:.1f} GiB" + ("" if fits else f", and {available / _GIB:.1f} GiB are free")
    return {"fits": fits, "fit": told}


def _is_from(reference: str, repo: str, quant: str) -> bool:
    return reference.startswith(f"{repo}/") and quantisation(reference) == quant.upper()
