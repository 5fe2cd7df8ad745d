"""What a search tries: changes of settings, in stages, each over what has won before."""

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal

from llamaspec.bench.naming import speculation as named_speculation
from llamaspec.bench.paired import Overrides
from llamaspec.profiles import Profile, overlay

DEFAULT = "default"

_LARGE = 8  # cores, of which some may be slow ones

Goal = Literal["writing", "reading"]
"""What a stage is about: tokens generated, or tokens of the prompt read, per second."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Settings over a profile's. `draft` names another draft model, as whoever opens it knows it."""

    name: str = DEFAULT
    overrides: Overrides = field(default_factory=dict)
    draft: str = ""

    @property
    def key(self) -> str:
        """The same for the same settings, whatever led to them."""
        return json.dumps([self.overrides, self.draft], sort_keys=True)

    def changed(self, change: "Candidate") -> "Candidate":
        """This one with `change` over it."""
        sections = self.overrides.keys() | change.overrides.keys()
        overrides = {
            section: {**self.overrides.get(section, {}), **change.overrides.get(section, {})}
            for section in sorted(sections)
        }
        name = change.name if self.name == DEFAULT else f"{self.name}, {change.name}"
        return Candidate(name, overrides, change.draft or self.draft)


@dataclass(frozen=True, slots=True)
class Stage:
    """Changes that exclude each other."""

    name: str
    changes: tuple[Candidate, ...]
    goal: Goal = "writing"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a search knows of a machine and a pair, and what it may change.

    `cores` are what `threads: auto` stands for, `processors` those that the system counts. `offloaded`: the
    models are wholly on a GPU. `smaller_draft` is the type in which the draft would be smaller, if there is
    one. `lossy_kv` allows changes of the KV cache's type, which change what the main model says. `kept` are
    settings that the person has chosen.
    """

    cores: int
    processors: int
    has_gpu: bool = False
    offloaded: bool = False
    has_draft: bool = False
    smaller_draft: str | None = None
    lossy_kv: bool = False
    kept: Set[str] = frozenset()

    def effective(self, profile: Profile, candidate: Candidate) -> tuple[Any, ...]:
        """What tells two candidates apart that are written differently and mean the same."""
        settings = overlay(profile, candidate.overrides)
        runtime = settings.runtime
        threads = self.cores if runtime.threads == "auto" else runtime.threads
        threads_batch = threads if runtime.threads_batch == "auto" else runtime.threads_batch
        spelt = runtime.model_copy(update={"threads": threads, "threads_batch": threads_batch})
        speculation = settings.speculation
        drafting = (
            (speculation.mode, speculation.drafters, speculation.ceiling, speculation.corpus),
            (speculation.draft_min, speculation.p_min) if speculation.mode == "fixed" else (),
        )
        draft = candidate.draft if speculation.needs_draft_model else ""
        return spelt, drafting if speculation.ceiling else (), draft


def stages(profile: Profile, scope: Scope) -> list[Stage]:
    """What to try of a profile, what may matter most first; nothing that is it."""
    default = scope.effective(profile, Candidate())
    kept = []
    for stage in _all_stages(scope, named_threads=profile.runtime.threads):
        changes = tuple(
            change
            for change in stage.changes
            if not _keys(change) & scope.kept and scope.effective(profile, change) != default
        )
        if changes:
            kept.append(Stage(stage.name, changes, stage.goal))
    return kept


def _all_stages(scope: Scope, named_threads: int | str) -> list[Stage]:
    threads = scope.cores if isinstance(named_threads, str) else named_threads
    # A prompt is read by the threads for batches: those stay, whatever single tokens are generated with.
    of_one = [_runtime(f"threads {n}", threads=n, threads_batch=threads) for n in _thread_counts(scope)]
    of_many = [_runtime(f"batch threads {n}", threads_batch=n) for n in _batch_thread_counts(scope)]
    placed = [
        _runtime("draft on the CPU", gpu_layers_draft=0),
        _runtime("main model on the CPU", gpu_layers=0),
        _runtime("all on the CPU", device="cpu", gpu_layers=0, gpu_layers_draft=0),
    ]
    flash = [_runtime(f"flash attention {state}", flash_attn=state) for state in ("on", "off")]
    caches = [
        _runtime("KV cache q8_0", cache_type_k="q8_0", cache_type_v="q8_0", flash_attn="on"),
        _runtime("K cache q8_0", cache_type_k="q8_0"),
    ]
    # Without a GPU a prompt is read in pieces of 128 tokens, however large a batch may be.
    sizes = (256, 1024, 2048) if scope.has_gpu else (64,)
    batches = [_runtime(f"batches of {n}", ubatch_size=n, batch_size=max(n, 2048)) for n in sizes]
    smaller = [Candidate(f"draft as {kind}", draft=kind) for kind in (scope.smaller_draft,) if kind]
    return [
        Stage("placement", tuple(placed if scope.has_gpu else ())),
        Stage("speculation", tuple(_speculations(scope.has_draft))),
        Stage("draft", tuple(smaller)),
        Stage("threads", tuple(() if scope.offloaded else of_one)),
        Stage("flash attention", tuple(flash)),
        Stage("KV cache", tuple(caches if scope.lossy_kv else ())),
        Stage("batch threads", tuple(() if scope.offloaded else of_many), "reading"),
        Stage("batch size", tuple(batches), "reading"),
    ]


def _thread_counts(scope: Scope) -> list[int]:
    fewer = (scope.cores // 2, scope.cores * 3 // 4, scope.cores - 1)
    return sorted({count for count in (*fewer, scope.cores, scope.processors) if count >= 1})


def _batch_thread_counts(scope: Scope) -> list[int]:
    """Batches are arithmetic: more threads than cores may pay, far fewer don't."""
    large = scope.cores >= _LARGE
    return sorted({scope.cores, scope.processors, *([scope.cores * 3 // 4] if large else [])})


def _speculations(has_draft: bool) -> list[Candidate]:
    plain = _speculation("no speculation", named_speculation("plain"))
    ngram = _speculation("n-grams alone", named_speculation("auto:ngram"))
    if not has_draft:
        fixed = {"mode": "fixed", "drafters": ["ngram"], "draft_max": 8}
        return [
            plain,
            _speculation("n-grams, fixed 8", fixed),
            _speculation("auto", named_speculation("auto")),
        ]
    return [
        plain,
        ngram,
        _speculation("auto", named_speculation("auto")),
        _speculation("auto without cascade", named_speculation("auto:model+ngram")),
        _speculation("auto up to 8", {"mode": "auto", "draft_max": 8}),
        _speculation("fixed 4", named_speculation("fixed:4:0.75")),
        _speculation("fixed 16", named_speculation("fixed:16:0.75")),
    ]


def _runtime(name: str, **values: object) -> Candidate:
    return Candidate(name, {"runtime": values})


def _speculation(name: str, values: Mapping[str, object]) -> Candidate:
    return Candidate(name, {"speculation": values})


def _keys(change: Candidate) -> set[str]:
    return {key for values in change.overrides.values() for key in values}
