"""What a benchmark of a server found, as it is written to JSON and shown. Times are in seconds."""

from typing import Literal

from pydantic import Field

from llamaspec.bench.report import Count, Finding, Latency, Seconds
from llamaspec.bench.streaming import CountedBy
from llamaspec.figures import Figure, Ratio
from llamaspec.provenance import WorkRecord
from llamaspec.settings import Line, Settings


class Failure(Settings):
    """Requests that failed alike: how many, and the first few of the different messages."""

    kind: Line
    count: int = Field(ge=1)
    messages: tuple[Line, ...] = Field((), strict=False)


class RequestRecord(Settings):
    """One request. `sent` is since its round began; `times` are those of the pieces of text since `sent`.

    A piece may hold several tokens. What the server does not tell is null.
    """

    prompt: Line
    clients: int = Field(ge=1)
    round: Count
    sent: Seconds
    seconds: Seconds
    times: tuple[Seconds, ...] = Field((), strict=False)
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    tokens: Count = 0
    counted_by: CountedBy | None = None
    drafted: Count | None = None
    accepted: Count | None = None
    finish: Line | None = None
    failure: Line | None = Field(None, description="its kind, where the request failed")
    message: Line | None = Field(None, description="what is told of a failure")


class Level(Settings):
    """What so many clients at a time came to.

    `throughput` is tokens per second of all, from the first request of a round to the end of its last answer;
    `relative` is to the first level, by rounds. `stream_speed` is that of one answer behind its first piece.
    `first_token` is the time from the request to the first text, `gap` that between two pieces, `per_token`
    an answer's time behind its first piece by the tokens in it.
    """

    clients: int = Field(ge=1)
    requests: Count
    failures: tuple[Failure, ...] = Field((), strict=False)
    tokens: Count
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    throughput: Figure | None = None
    relative: Ratio | None = None
    stream_speed: Figure | None = None
    first_token: Latency | None = None
    gap: Latency | None = None
    per_token: Latency | None = None
    whole: Latency | None = None
    tokens_per_piece: float | None = Field(None, ge=0.0)
    drafted: Count | None = None
    accepted: Count | None = None
    acceptance_rate: float | None = Field(None, ge=0.0, le=1.0)

    @property
    def failed(self) -> int:
        return sum(failure.count for failure in self.failures)


class ServerReport(Settings):
    """A benchmark of a server, whole. `complete` is false where it was stopped before its end."""

    schema_version: Literal[1] = Field(1, alias="schema")
    subject: Literal["server"] = "server"
    made_by: Line
    started: Line = Field(description="ISO 8601, UTC")
    url: Line
    model: Line | None = None
    server: Line = Field("", description="as it calls itself")
    work: WorkRecord
    counted_by: tuple[CountedBy, ...] = Field((), strict=False, description="who counted the tokens")
    levels: tuple[Level, ...] = Field((), strict=False)
    notes: tuple[Line, ...] = Field((), strict=False, description="how it was asked")
    findings: tuple[Finding, ...] = Field((), strict=False)
    conclusive: bool = True
    complete: bool = True
    requests: tuple[RequestRecord, ...] = Field((), strict=False)
