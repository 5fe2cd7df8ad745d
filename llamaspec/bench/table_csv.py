"""The trials of a report as a table: a row for each answer, for spreadsheets and data frames."""

import csv
from collections.abc import Iterator
from pathlib import Path

from llamaspec.bench.report import Report
from llamaspec.replacing import replacing

COLUMNS = (
    "trial",
    "prompt",
    "kind",
    "setting",
    "program",
    "tokens_per_second",
    "times_baseline",
    "predicted",
    "timed_tokens",
    "seconds",
    "prompt_tokens",
    "prompt_seconds",
    "rounds",
    "drafted",
    "accepted",
    "finish",
    "others_share",
)


def write_csv(report: Report, path: Path) -> None:
    """One row per trial and setting; what is not known is empty. Numbers are written in full.

    Whoever reads the file finds it whole. Raises OSError.
    """
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(report))


def _rows(report: Report) -> Iterator[tuple[object, ...]]:
    programs = {outcome.setting: outcome.program for outcome in report.outcomes}
    for number, trial in enumerate(report.trials, 1):
        baseline = trial.runs.get(report.baseline)
        base = baseline.speed if baseline else None
        for setting, run in trial.runs.items():
            yield (
                number,
                trial.prompt,
                trial.kind,
                setting,
                programs.get(setting),
                run.speed,
                run.speed / base if run.speed and base else None,
                run.predicted,
                run.timed_tokens,
                run.seconds,
                run.prompt_tokens,
                run.prompt_seconds,
                run.rounds,
                run.drafted,
                run.accepted,
                run.finish,
                trial.others_share,
            )
