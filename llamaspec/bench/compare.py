"""Two reports, or several of one run, held against each other."""

from collections.abc import Iterator, Sequence
from statistics import geometric_mean, median

from llamaspec.bench.outcomes import by_prompt
from llamaspec.bench.report import Report
from llamaspec.bench.sentences import OWN, relative, text_kept
from llamaspec.bench.tables import NOTHING, TOO_NOISY, Table
from llamaspec.errors import UsageError
from llamaspec.figures import Ratio, ratio


def comparison(before: Report, after: Report) -> Table:
    """A row for each setting that both have.

    Raises UsageError where there is none, or no prompt that both have answered under it.
    """
    rows: list[tuple[str, ...]] = []
    verdicts: dict[int, str] = {}
    conclusive = before.conclusive and after.conclusive
    for outcome in after.outcomes:
        old = next((each for each in before.outcomes if each.setting == outcome.setting), None)
        if old is None or (speed := change(before, after, outcome.setting)) is None:
            continue
        verdicts[len(rows)] = speed.verdict if conclusive else TOO_NOISY
        rows.append(
            (
                outcome.setting,
                str(old.speed),
                str(outcome.speed),
                relative(speed),
                relative(old.relative),
                relative(outcome.relative),
            )
        )
    if not rows:
        raise UsageError(
            "The two reports have no setting with a prompt that both have measured.",
            "Measure both with the same --workload and --settings.",
        )
    header = ("setting", "tokens/s, A", "tokens/s, B", "B to A", "A to plain", "B to plain")
    return Table(header, rows, verdicts)


def change(before: Report, after: Report, setting: str) -> Ratio | None:
    """How many times as fast `setting` was in `after`, over the prompts that both have; None without any."""
    old, new = (by_prompt(report.trials, setting, None) for report in (before, after))
    return ratio({prompt: [median(new[prompt]) / median(old[prompt])] for prompt in new if prompt in old})


def caveats(before: Report, after: Report) -> Iterator[str]:
    """What else than the settings differs between two reports, and what weakens a comparison."""
    for name, old, new in (
        ("The machines", before.machine, after.machine),
        ("The main models", before.main, after.main),
        ("The draft models", before.draft, after.draft),
    ):
        if old != new:
            there = (old.model_dump() if old else {}, new.model_dump() if new else {})
            keys = [key for key in {**there[0], **there[1]} if there[0].get(key) != there[1].get(key)]
            told = (f"{key} {there[0].get(key, 'none')} and {there[1].get(key, 'none')}" for key in keys)
            yield f"{name} differ: {'; '.join(told)}."
    if before.work.n_predict != after.work.n_predict:
        yield f"Answers were of at most {before.work.n_predict} and {after.work.n_predict} tokens."
    if before.work.sha256 != after.work.sha256:
        yield "The prompts were not all the same: only those of the same name are compared."
    for name, report in (("A", before), ("B", after)):
        if not report.conclusive:
            yield f"{name} is too noisy to conclude from."
    yield (
        "The two were not measured in turns: what the machine did in between is in the difference too. "
        "Speeds relative to plain are free of that."
    )


def side_by_side(reports: Sequence[tuple[str, Report]]) -> Table:
    """A row for each named report and setting."""
    rows = [
        (name, outcome.setting, str(outcome.speed or NOTHING), relative(outcome.relative), text_kept(outcome))
        for name, report in reports
        for outcome in report.outcomes
    ]
    return Table(("profile", "setting", "tokens/s", "times plain", "text"), rows)


def best_fixed(report: Report, automatic: str) -> str | None:
    """A sentence on `automatic` against the fastest other setting of ours; None where there are not both."""
    means = {}
    for outcome in report.outcomes:
        if outcome.program == OWN and outcome.setting not in (automatic, report.baseline):
            ratios = by_prompt(report.trials, outcome.setting, report.baseline)
            if ratios:
                means[outcome.setting] = geometric_mean([geometric_mean(each) for each in ratios.values()])
    if not means or automatic not in {outcome.setting for outcome in report.outcomes}:
        return None
    best = max(means, key=lambda name: means[name])
    found = ratio(by_prompt(report.trials, automatic, best))
    if found is None:
        return None
    verdict = "too noisy to conclude from" if not report.conclusive else found.verdict
    return f"{automatic} is {relative(found)} {best}, the fastest of the others: {verdict}."
