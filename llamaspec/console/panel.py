"""Statistics as a person reads them: every figure with its unit, every ratio with what it is of."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llamaspec.events import FinishReason
from llamaspec.stats import DrafterStats, Stats, ratio

Line = tuple[str, str]


def print_stats(
    stats: Stats,
    reason: FinishReason,
    prices: Mapping[str, Any] | None = None,
    verify: Mapping[str, Any] | None = None,
    compare: Mapping[str, Any] | None = None,
) -> None:
    """A few lines on standard error; nothing that isn't known.

    `prices` are a session's, `verify` and `compare` what `--json` shows under these names.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in stats_lines(stats, reason, prices, verify, compare):
        table.add_row(label, Text(text))
    console = Console(stderr=True, highlight=False)
    console.print()
    console.print(table)


def stats_lines(
    stats: Stats,
    reason: FinishReason,
    prices: Mapping[str, Any] | None = None,
    verify: Mapping[str, Any] | None = None,
    compare: Mapping[str, Any] | None = None,
) -> Iterator[Line]:
    """Labels, and what there is to say under each."""
    ended = {FinishReason.LENGTH: ", ended by the token limit or the context"}.get(reason, "")
    known = f"; {stats.cached_tokens} of them known from before" if stats.cached_tokens else ""
    read = stats.prompt_tokens - stats.cached_tokens
    yield "prompt", _rate(stats.prompt_tokens, stats.prompt_seconds, read) + known
    predicted = _rate(stats.predicted_tokens, stats.predicted_seconds, stats.later_tokens)
    yield "predicted", f"{predicted}, {stats.rounds} rounds{ended}"
    if stats.draft_n:
        yield from _drafting(stats)
    elif prices is not None and stats.rounds:
        yield "not drafted", _why_not(stats, prices)
    if prices is not None:
        yield "price", _price(prices)
    if compare is not None and compare["speedup"]:
        plain = compare["plain"]["per_second"]
        noise = "" if stats.draft_n else "; nothing was drafted, so what differs is noise"
        yield "speed", f"{compare['speedup']:.2f}× plain ({plain:.1f} tokens/s), measured in turns{noise}"
    elif stats.draft_n and stats.estimated_speedup:
        estimate = f"≈ {stats.estimated_speedup:.1f}× plain"
        yield "speed", f"{estimate} (an estimate: by the price of plain rounds here)"
    if (latency := stats.token_latency) and stats.time_to_first_token is not None:
        percentiles = ", ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in latency.items())
        yield "latency", f"first token {stats.time_to_first_token:.2f} s; per token {percentiles}"
    if verify is not None:
        yield "verified", _verdict(stats, verify)


def _drafting(stats: Stats) -> Iterator[Line]:
    mean = stats.mean_accepted_length or 0.0
    yield (
        "drafted",
        f"{stats.draft_n} tokens, {stats.draft_n_accepted} accepted "
        f"({_percent(stats.acceptance_rate)}), {mean:.2f} per draft",
    )
    if stats.drafters:
        told = "; ".join(_of_drafter(name, counted) for name, counted in stats.drafters.items())
        if stats.sources.keys() - stats.drafters.keys():  # a cascade's parts
            parts = (
                f"{name} {counted.drafted} ({_percent(ratio(counted.accepted, counted.drafted))})"
                for name, counted in stats.sources.items()
            )
            told += f"; tokens from {', '.join(parts)}"
        yield "by drafter", told
    if ends := [f"{why} {count}" for why, count in stats.stops.most_common()]:
        if undrafted := sum(stats.undrafted.values()):
            ends.append(f"rounds without a draft {undrafted}")
        yield "ended by", ", ".join(ends)
    yield (
        "time",
        f"draft {stats.draft_seconds:.2f} s, verify {stats.verify_seconds:.2f} s, "
        f"rest {stats.overhead_seconds:.2f} s",
    )


def _of_drafter(name: str, counted: DrafterStats) -> str:
    told = f"{name} {counted.drafted} tokens"
    if counted.drafted:
        share = _percent(ratio(counted.accepted, counted.drafted))
        told += f", {share} accepted, {1000 * counted.seconds / counted.drafted:.1f} ms each"
    return told


def _price(prices: Mapping[str, Any]) -> str:
    widths = ", ".join(str(width) for width in prices["main_seconds"])
    times = ", ".join(f"{1000 * seconds:.0f}" for seconds in prices["main_seconds"].values())
    told = f"main model {times} ms for {widths} tokens at once"
    if prices["draft_step_seconds"]:
        told += f", draft model {1000 * prices['draft_step_seconds']:.1f} ms a token"
    return f"{told}; {_pays(prices)}"


def _pays(prices: Mapping[str, Any]) -> str:
    names = {"model": "a draft model", "lookup": "looking up"}
    told = []
    for kind, name in names.items():
        if (verdict := prices["break_even"].get(kind)) is not None:
            told.append(f"{name} {_from(verdict['acceptance'])}")
    return ", ".join(told)


def _from(acceptance: float | None) -> str:
    if acceptance is None:
        return "never pays"
    return f"pays from {_percent(acceptance)} accepted" if acceptance >= 0.005 else "costs nothing"


def _why_not(stats: Stats, prices: Mapping[str, Any]) -> str:
    """Why mode `auto` left all as it was."""
    told = []
    if (model := prices["break_even"].get("model")) is not None:
        told.append(
            f"at these prices a draft model can't pay: {model['most']:.2f}× plain if it were always right"
            if model["acceptance"] is None
            else "the draft model didn't promise enough"
        )
    if nothing := stats.undrafted["no match"]:
        told.append(f"nothing that could be looked up in {nothing} of {stats.rounds} rounds")
    if declined := stats.undrafted["expected gain"]:
        told.append(f"in {declined} rounds what was offered was worth less than its check")
    return "; ".join(told)


def _verdict(stats: Stats, verified: Mapping[str, Any]) -> str:
    plain = verified["plain"]["predicted_per_second"] if verified["plain"] else None
    ours = stats.tokens_per_second
    speedup = f"; {ours / plain:.2f}× plain, one after the other" if ours and plain else ""
    if verified["same"]:
        return f"the same text as plain decoding{speedup}"
    parted = verified["first_divergence"]
    if parted is None:
        return f"the same text, one of them longer{speedup}"
    return (
        f"differs from plain at token {parted['position']}: {parted['speculative']!r} for "
        f"{parted['plain']!r}, {parted['logit_gap']:.4f} apart in logits{speedup}"
    )


def _rate(tokens: int, seconds: float, in_them: int) -> str:
    """`in_them`: the tokens that took those seconds."""
    speed = ratio(in_them, seconds)
    return f"{tokens} tokens, {seconds:.2f} s" + (f", {speed:.1f} tokens/s" if speed else "")


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
