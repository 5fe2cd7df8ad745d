"""What a benchmark found, as it is written to JSON, shown, plotted and compared.

Times are in seconds, speeds in tokens per second of generation, sizes in bytes. Everything that is derived
(medians, ratios, histograms) is in the file beside the trials it came from.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from llamaspec.errors import UsageError
from llamaspec.figures import Figure, Ratio
from llamaspec.provenance import Machine, ModelRecord, WorkRecord
from llamaspec.replacing import replacing
from llamaspec.settings import Line, Settings

MAX_BYTES = 64 << 20
BUSY = 0.05
"""Share of the machine in other hands from which on a trial is not to be relied on: llama.cpp's threads wait
for one another, so that one that has lost its processor slows all down, and by chance."""

Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class Finding(Settings):
    """Something that makes figures less sure, and what can be done about it."""

    problem: Line
    remedy: Line


class Latency(Settings):
    """Time from one token to the next: percentiles, and the five numbers of a box plot."""

    p50: Seconds
    p95: Seconds
    p99: Seconds
    low: Seconds
    first_quartile: Seconds
    third_quartile: Seconds
    high: Seconds


class Difference(Settings):
    """Where an answer parts from plain decoding's: a place in tokens, the gap of the two in logits."""

    prompt: Line
    position: Count
    logit_gap: float | None = Field(None, allow_inf_nan=False)


class RunRecord(Settings):
    """One answer under one setting. `seconds` leave the prompt out; `times` are those at which the tokens
    came, from the first one on, in seconds of the setting's own time."""

    predicted: Count
    timed_tokens: Count
    seconds: Seconds
    prompt_tokens: Count
    prompt_seconds: Seconds
    drafted: Count | None = Field(0, description="null where the program does not say")
    accepted: Count | None = 0
    rounds: Count = 0
    finish: Line | None = None
    times: tuple[Seconds, ...] = Field((), strict=False)

    @property
    def speed(self) -> float | None:
        return self.timed_tokens / self.seconds if self.timed_tokens and self.seconds else None


class TrialRecord(Settings):
    """One prompt, answered once under every setting. `others_share` of the machine went to other programs."""

    prompt: Line
    kind: Line
    others_share: float = Field(0.0, ge=0.0, le=1.0)
    runs: Mapping[str, RunRecord]


class Outcome(Settings):
    """What one setting came to over the whole work. Ratios are to the baseline; the baseline has none."""

    setting: Line
    program: Line = "llamaspec"
    speed: Figure | None = None
    relative: Ratio | None = None
    speed_by_kind: Mapping[str, Figure | None] = Field(default_factory=dict)
    relative_by_kind: Mapping[str, Ratio | None] = Field(default_factory=dict)
    worst: tuple[Line, float] | None = Field(None, strict=False, description="prompt, ratio")
    time_to_first_token: Figure | None = None
    latency: Latency | None = None
    acceptance_rate: float | None = Field(None, ge=0.0, le=1.0)
    drafted_at: tuple[Count, ...] = Field((), strict=False, description="drafts with a token at position i")
    accepted_at: tuple[Count, ...] = Field((), strict=False, description="of those, kept")
    accepted_lengths: Mapping[int, Count] = Field(
        default_factory=dict, description="rounds by how many draft tokens were accepted in them"
    )
    widths: Mapping[int, Count] = Field(default_factory=dict, description="rounds by tokens drafted")
    joules_per_token: Figure | None = None
    peak_memory: Count | None = Field(
        None, description="bytes that loading and warming it up added, weights and GPU memory included"
    )
    same_text: Count = Field(0, description="prompts that were answered as the baseline answered them")
    differences: tuple[Difference, ...] = Field((), strict=False)
    chosen: Mapping[str, Any] = Field(default_factory=dict, description="settings as they took effect")


class Roofline(Settings):
    """How near decoding is to what the memory allows: reading every weight and the KV cache once a round.

    `limit` is tokens per second of plain decoding if that were all (Williams et al. 2009, "Roofline").
    `fractions` are speeds over that limit by setting; speculation can be above 1.
    """

    bandwidth: float = Field(gt=0.0, description="bytes per second, measured here")
    bytes_per_token: Count
    limit: float = Field(gt=0.0)
    fractions: Mapping[str, float] = Field(default_factory=dict)


class Prices(Settings):
    """Seconds of a decode of the main model by width in tokens, and of a draft step, at a depth."""

    depth: Count
    main_seconds: Mapping[int, Seconds]
    draft_step_seconds: Seconds | None = None


class Report(Settings):
    """A benchmark, whole."""

    schema_version: Literal[1] = Field(1, alias="schema")
    made_by: Line
    started: Line = Field(description="ISO 8601, UTC")
    machine: Machine
    main: ModelRecord
    draft: ModelRecord | None = None
    work: WorkRecord
    baseline: Line
    outcomes: tuple[Outcome, ...] = Field(min_length=1, strict=False)
    findings: tuple[Finding, ...] = Field((), strict=False)
    noise: float | None = Field(None, ge=0.0, description="relative spread of the baseline's repeats")
    conclusive: bool = True
    prices: Prices | None = None
    roofline: Roofline | None = None
    trials: tuple[TrialRecord, ...] = Field((), strict=False)

    def outcome(self, setting: str) -> Outcome:
        """Raises KeyError."""
        for outcome in self.outcomes:
            if outcome.setting == setting:
                return outcome
        raise KeyError(setting)


def write_report(report: Settings, path: Path) -> None:
    """As JSON; whoever reads the file finds it whole. Raises OSError."""
    with replacing(path) as partial:
        partial.write_text(report.model_dump_json(indent=1, by_alias=True), encoding="utf-8")


def read_report(path: Path) -> Report:
    """Raises UsageError for what is no report."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}.") from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES >> 20} MiB: no report of `llamaspec bench`.")
    try:
        return Report.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise UsageError(f"{path}: no report of `llamaspec bench --json`: {place}: {first['msg']}.") from None
