"""How quiet the machine was during a measurement, and what to do where it was not."""

from collections.abc import Mapping, Sequence
from statistics import median

import psutil

from llamaspec.bench.report import BUSY, Finding
from llamaspec.figures import figure

MANY = 0.2
"""Share of such trials over which nothing is concluded."""
NOISY = 0.1
"""Relative spread of the baseline's repeats over which nothing is concluded."""


class OtherLoad:
    """What other programs, or a host that takes processors away, have used of the machine."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._last = self._seconds()

    def share(self) -> float:
        """Of all processor time since the last call: 0 on a machine of our own, at most 1."""
        before, self._last = self._last, self._seconds()
        others, whole = (now - then for now, then in zip(self._last, before, strict=True))
        return min(1.0, max(0.0, others / whole)) if whole > 0 else 0.0

    def _seconds(self) -> tuple[float, float]:
        """Of the others, and of all, idle or not."""
        times, own = psutil.cpu_times(), self._process.cpu_times()
        whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        return whole - idle - own.user - own.system, whole


def relative_spread(speeds: Mapping[str, Sequence[float]]) -> float | None:
    """Standard deviation of repeats by prompt, relative to each prompt's speed; None without repeats."""
    repeats = {
        prompt: [speed / median(several) for speed in several]
        for prompt, several in speeds.items()
        if len(several) > 1
    }
    found = figure(repeats)
    return found.spread if found else None


def noise_findings(shares: Sequence[float], spread: float | None) -> list[Finding]:
    """Why nothing can be concluded; empty where all is well. `shares` of others, one for each trial."""
    findings = []
    busy = [share for share in shares if share > BUSY]
    if len(busy) > MANY * len(shares):
        findings.append(
            Finding(
                problem=f"Other programs took {median(busy):.0%} of the machine in {len(busy)} of "
                f"{len(shares)} trials: too noisy to conclude from.",
                remedy="Close what else runs (a browser, a build, other virtual machines) and measure again.",
            )
        )
    if spread is not None and spread > NOISY:
        findings.append(
            Finding(
                problem=f"Repeats of plain decoding differ by {spread:.0%}: too noisy to conclude from.",
                remedy="Let the machine cool down, set it to full power, measure again with more --repeat.",
            )
        )
    return findings
