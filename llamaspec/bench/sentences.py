"""A report in words: its figures, what they show and what they don't."""

import shlex
from collections import Counter
from statistics import median

from llamaspec.bench.naming import AUTO, PLAIN
from llamaspec.bench.report import Outcome, Report, Roofline
from llamaspec.bench.series import compared
from llamaspec.bench.workload import AND, DEFAULT_WORKLOAD, load_workload
from llamaspec.figures import Ratio, counted

OWN = "llamaspec"
"""The program whose settings are measured; others are peers."""


def headline(report: Report) -> str:
    """What the whole comes to: of `auto` where it was measured, else of the fastest setting."""
    subject = _subject(report)
    if subject is None or (ratio := subject.relative) is None:
        return _speed_alone(report)
    name, baseline = _brief(subject.setting), _brief(report.baseline)
    how_fast = f"{ratio.value:.2f}× as fast as {baseline}"
    if ratio.interval is None:
        return f"{name} was {how_fast} in {counted(ratio.count, 'run')}: too few to conclude from"
    interval = "({:.2f} to {:.2f})".format(*ratio.interval)
    if not report.conclusive:
        return f"Too noisy to conclude from: {name} was {how_fast} {interval}"
    if ratio.verdict == "within noise":
        return f"No difference between {name} and {baseline} shows here: {ratio}"
    text = text_kept(subject)
    return f"{name} is {how_fast} here {interval}" + (f", {text}" if text else "")


def key_setting(report: Report) -> str:
    """The setting that the headline is about."""
    subject = _subject(report)
    return subject.setting if subject else report.outcomes[0].setting


def _subject(report: Report) -> Outcome | None:
    ours = [outcome for outcome in compared(report) if outcome.program == OWN] or compared(report)
    automatic = [outcome for outcome in ours if outcome.setting == AUTO]
    return max(automatic or ours, key=lambda outcome: _value(outcome.relative), default=None)


def _brief(name: str) -> str:
    """For a headline."""
    return name if len(name) <= 60 else name[:59] + "…"


def _value(ratio: Ratio | None) -> float:
    return ratio.value if ratio else 0.0


def _speed_alone(report: Report) -> str:
    first = report.outcomes[0]
    if first.speed is None:
        return "Nothing could be timed"
    return f"{_brief(first.setting)} writes {first.speed} tokens per second here"


def text_kept(outcome: Outcome) -> str:
    """Whether the answers are the baseline's; empty where nobody compared them."""
    checked = outcome.same_text + len(outcome.differences)
    if not checked:
        return ""
    if not outcome.differences:
        return "text unchanged"
    return f"same text for {outcome.same_text} of {checked} prompts"


def percent(share: float, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def relative(ratio: Ratio | None) -> str:
    """With its interval, where there are runs enough for one."""
    return "–" if ratio is None else str(ratio)


def roofline(roofline: Roofline) -> str:
    """What the limit is, and how much of it each setting reaches."""
    text = (
        f"Plain decoding reads {roofline.bytes_per_token / 1e9:.2f} GB of weights and cache for each token, "
        f"and the memory here gives {roofline.bandwidth / 1e9:.1f} GB/s: that allows {roofline.limit:.1f} "
        "tokens per second"
    )
    reached = [f"{name} reaches {percent(share)}" for name, share in roofline.fractions.items()]
    if not reached:
        return f"{text}."
    above = [name for name, share in roofline.fractions.items() if share > 1.0]
    why = ""
    if PLAIN in above:
        why = " (plain decoding beyond it: caches hold a part, or memory was slower when it was measured)"
    elif above:
        why = " (more than 100 %, as one reading yields several tokens)"
    return f"{text}, of which {', '.join(reached)}{why}."


def method(report: Report) -> str:
    """How it was measured."""
    work = report.work
    at_most = "up to " if len(report.trials) < work.prompts * work.repeat else ""
    times = "" if work.repeat == 1 else f", each answered {at_most}{work.repeat} times"
    sentences = [
        f"Greedy answers of at most {work.n_predict} tokens to {counted(work.prompts, 'prompt')}{times}.",
        "All settings answer the same prompt at the same time, in turns of one round, and only its own turns "
        "count for each: what else the machine does meets all alike.",
    ]
    if peers := [outcome.setting for outcome in report.outcomes if outcome.program != OWN]:
        does = "answers" if len(peers) == 1 else "answer"
        sentences.append(
            f"{', '.join(peers)} {does} the same prompts in between, one whole answer at a time."
        )
    sentences.append(
        "Intervals are 95 % ones, for new measurements of the same prompts."
        if work.repeat > 1
        else "Intervals are 95 % ones, for other prompts of the same sort."
    )
    return " ".join(sentences)


def quiet(report: Report) -> str:
    """How steady the machine was; empty where nobody looked."""
    parts = []
    if report.noise is not None:
        parts.append(f"Repeats of {report.baseline} differ by {percent(report.noise, 1)}.")
    if report.trials:
        shares = [trial.others_share for trial in report.trials]
        middle, most = percent(median(shares), 1), percent(max(shares), 1)
        parts.append(f"Other programs took {middle} of the machine, at most {most}.")
    return " ".join(parts)


def command(report: Report) -> str:
    """What measures this again, for a shell; the files are named without their folders."""
    ours = [outcome.setting.partition("#")[0] for outcome in report.outcomes if outcome.program == OWN]
    words = ["llamaspec", "bench", "-m", report.main.file]
    if report.draft:
        words += ["-md", report.draft.file]
    if report.work.name != DEFAULT_WORKLOAD.stem:
        words += [word for name in report.work.name.split(AND) for word in ("--workload", f"{name}.yaml")]
    if set(report.work.kinds) != set(load_workload().kinds):
        words += [word for kind in report.work.kinds for word in ("--workload", kind)]
    words += ["--settings", ",".join(ours)]
    if report.trials:
        per_kind = Counter({trial.prompt: trial.kind for trial in report.trials}.values())
        words += ["--prompts", str(max(per_kind.values()))]
    words += ["--repeat", str(report.work.repeat), "-n", str(report.work.n_predict)]
    return shlex.join(words)
