"""Statistics as a person reads them: every figure with its unit, every ratio with what it is of."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llamaspec.events import FinishReason
from llamaspec.stats import Stats, ratio


def print_stats(stats: Stats, reason: FinishReason, comparison: Mapping[str, Any] | None = None) -> None:
    """A few lines on standard error."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in _lines(stats, reason, comparison):
        table.add_row(label, Text(text))
    console = Console(stderr=True, highlight=False)
    console.print()
    console.print(table)


def _lines(stats: Stats, reason: FinishReason, comparison: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    ended = {FinishReason.LENGTH: ", ended by the token limit or the context"}.get(reason, "")
    lines = [
        ("prompt", _rate(stats.prompt_tokens, stats.prompt_seconds)),
        (
            "predicted",
            f"{_rate(stats.predicted_tokens, stats.predicted_seconds)}, {stats.rounds} rounds{ended}",
        ),
    ]
    if stats.draft_n:
        mean = stats.mean_accepted_length or 0.0
        lines += [
            (
                "drafted",
                f"{stats.draft_n} tokens, {stats.draft_n_accepted} accepted "
                f"({_percent(stats.acceptance_rate)}), {mean:.2f} per draft",
            ),
            ("by position", " ".join(_percent(rate) for rate in stats.acceptance_per_position)),
            (
                "time",
                f"draft {stats.draft_seconds:.2f} s, verify {stats.verify_seconds:.2f} s, "
                f"rest {stats.overhead_seconds:.2f} s",
            ),
        ]
    if (latency := stats.token_latency) and stats.time_to_first_token is not None:
        percentiles = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in latency.items())
        lines.append(("latency", f"first token {stats.time_to_first_token:.2f} s; per token {percentiles}"))
    if comparison is not None:
        lines.append(("verified", _verdict(stats, comparison)))
    return lines


def _verdict(stats: Stats, comparison: Mapping[str, Any]) -> str:
    plain = comparison["plain"]["predicted_per_second"]
    ours = ratio(stats.predicted_tokens, stats.predicted_seconds)
    speedup = f"; {ours / plain:.2f}× plain in this run" if ours and plain else ""
    if comparison["same"]:
        return f"the same text as plain decoding{speedup}"
    parted = comparison["first_divergence"]
    if parted is None:
        return f"the same text, one of them longer{speedup}"
    return (
        f"differs from plain at token {parted['position']}: {parted['speculative']!r} for "
        f"{parted['plain']!r}, {parted['logit_gap']:.4f} apart in logits{speedup}"
    )


def _rate(tokens: int, seconds: float) -> str:
    speed = ratio(tokens, seconds)
    return f"{tokens} tokens, {seconds:.2f} s" + (f", {speed:.1f} tokens/s" if speed else "")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
