"""From trials to what each setting came to: pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import geometric_mean
from typing import Any

from llamaspec.bench.latency import latency
from llamaspec.bench.paired import Run, Trial
from llamaspec.bench.report import Difference, Outcome, RunRecord, TrialRecord
from llamaspec.figures import figure, ratio


@dataclass(frozen=True, slots=True)
class Tried:
    """One trial, the share of the machine that went to others meanwhile, and what peers answered."""

    trial: Trial
    others_share: float
    peers: Mapping[str, RunRecord] = field(default_factory=dict)

    def record(self) -> TrialRecord:
        runs = {setting: run_record(run) for setting, run in self.trial.runs.items()}
        return TrialRecord(
            prompt=self.trial.prompt,
            kind=self.trial.kind,
            others_share=self.others_share,
            runs=runs | dict(self.peers),
        )


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a setting beside its runs; joules per token by prompt."""

    program: str = "llamaspec"
    memory: int | None = None
    chosen: Mapping[str, Any] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    joules: Mapping[str, Sequence[float]] = field(default_factory=dict)


def run_record(run: Run) -> RunRecord:
    return RunRecord(
        predicted=run.predicted,
        timed_tokens=run.timed_tokens,
        seconds=run.seconds,
        prompt_tokens=run.prompt_tokens,
        prompt_seconds=run.prompt_seconds,
        drafted=run.drafted,
        accepted=run.accepted,
        rounds=run.rounds,
        finish=run.finish,
        times=tuple(round(moment, 6) for moment in run.times),
    )


def outcome(setting: str, baseline: str, tried: Sequence[Tried], about: About) -> Outcome:
    """What `setting` came to. Prompts weigh the same, however often each was tried."""
    records = [one.record() for one in tried]
    runs = [record.runs[setting] for record in records if setting in record.runs]
    compared = setting != baseline
    speeds, ratios = by_prompt(records, setting, None), by_prompt(records, setting, baseline)
    kinds = {record.prompt: record.kind for record in records}
    gaps = [later - sooner for run in runs for sooner, later in pairwise(run.times)]
    first = _group((r.prompt, r.runs[setting].prompt_seconds) for r in records if setting in r.runs)
    counted = [run for run in runs if run.drafted is not None and run.accepted is not None]
    drafted = sum(run.drafted or 0 for run in counted)
    own = [one.trial.runs[setting] for one in tried if setting in one.trial.runs]
    widths = _summed(run.widths for run in own)
    accepted_at = _summed(dict(enumerate(run.accepted_at)) for run in own)
    means = {prompt: geometric_mean(several) for prompt, several in ratios.items()}
    return Outcome(
        setting=setting,
        program=about.program,
        speed=figure(speeds),
        relative=ratio(ratios) if compared else None,
        speed_by_kind={kind: figure(part) for kind, part in _by_kind(speeds, kinds).items()},
        relative_by_kind=(
            {kind: ratio(part) for kind, part in _by_kind(ratios, kinds).items()} if compared else {}
        ),
        worst=min(means.items(), key=lambda item: item[1]) if compared and means else None,
        time_to_first_token=figure(first),
        latency=latency(gaps),
        acceptance_rate=min(1.0, sum(run.accepted or 0 for run in counted) / drafted) if drafted else None,
        drafted_at=_positions(_summed(dict(enumerate(run.drafted_at)) for run in own)),
        accepted_at=_positions(accepted_at),
        accepted_lengths=_lengths(sum(widths.values()), _positions(accepted_at)),
        widths=dict(sorted(widths.items())),
        joules_per_token=figure(about.joules),
        peak_memory=about.memory,
        same_text=len({one.trial.prompt for one in tried} - {each.prompt for each in about.differences})
        if own and compared
        else 0,
        differences=about.differences,
        chosen=about.chosen,
    )


def by_prompt(records: Iterable[TrialRecord], setting: str, baseline: str | None) -> dict[str, list[float]]:
    """Speeds of `setting` by prompt, relative to `baseline` where one is named. Answers that ended at once
    have none."""

    def speed(record: TrialRecord, of: str) -> float | None:
        run = record.runs.get(of)
        return run.speed if run else None

    found = []
    for record in records:
        own, base = speed(record, setting), speed(record, baseline) if baseline else 1.0
        if own and base:
            found.append((record.prompt, own / base))
    return _group(found)


def joules_by_prompt(trials: Iterable[Trial], setting: str) -> dict[str, list[float]]:
    """Joules per token of generation."""
    runs = ((trial.prompt, trial.runs[setting]) for trial in trials)
    return _group(
        (prompt, run.joules / run.timed_tokens)
        for prompt, run in runs
        if run.joules is not None and run.timed_tokens
    )


def differing(trials: Iterable[Trial], setting: str, baseline: str) -> dict[str, Trial]:
    """For each prompt whose text was not the baseline's: the first trial where that was so."""
    found: dict[str, Trial] = {}
    for trial in trials:
        if trial.divergence(setting, baseline) is not None:
            found.setdefault(trial.prompt, trial)
    return found


def _group(samples: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    grouped: dict[str, list[float]] = {}
    for name, sample in samples:
        grouped.setdefault(name, []).append(sample)
    return grouped


def _by_kind(
    samples: Mapping[str, Sequence[float]], kinds: Mapping[str, str]
) -> dict[str, dict[str, Sequence[float]]]:
    parts: dict[str, dict[str, Sequence[float]]] = {kind: {} for kind in kinds.values()}
    for prompt, several in samples.items():
        parts[kinds[prompt]][prompt] = several
    return parts


def _summed(counts: Iterable[Mapping[int, int]]) -> Counter[int]:
    total = Counter[int]()
    for each in counts:
        total.update(each)
    return total


def _positions(counts: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(counts[place] for place in sorted(counts))


def _lengths(rounds: int, accepted_at: Sequence[int]) -> dict[int, int]:
    """Rounds by how many draft tokens were accepted: `accepted_at[i]` had more than i."""
    at_least = [rounds, *accepted_at, 0]
    return {length: most - more for length, (most, more) in enumerate(pairwise(at_least)) if most > more}
