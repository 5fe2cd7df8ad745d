"""A benchmark, whole: sessions are loaded side by side, warmed up, tried in turns, and reported on."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import PurePath
from statistics import fmean
from typing import Any, Protocol

import llamaspec
from llamaspec.bench import energy, memory, noise
from llamaspec.bench.bandwidth import read_bandwidth
from llamaspec.bench.energy import Meter, open_meter
from llamaspec.bench.naming import AUTO, PLAIN
from llamaspec.bench.outcomes import About, Tried, by_prompt, differing, joules_by_prompt, outcome
from llamaspec.bench.paired import WARM_UP, Overrides, Trial, compare, open_sessions
from llamaspec.bench.report import Difference, Finding, Prices, Report, Roofline, RunRecord, TrialRecord
from llamaspec.bench.roofline import bytes_per_token, roofline
from llamaspec.bench.workload import Prompt, Workload
from llamaspec.errors import ContextError, LlamaspecError
from llamaspec.gguf.shards import read_model
from llamaspec.machine import describe_machine
from llamaspec.native.devices import list_devices
from llamaspec.provenance import ModelRecord, WorkRecord
from llamaspec.session import Session

_WARM_TOKENS = 16

log = logging.getLogger(__name__)

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured: speculation settings by name, of which `plain` is the baseline, and on what."""

    settings: Mapping[str, Mapping[str, object]]
    work: Workload
    name: str
    n_predict: int
    repeat: int = 1

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All trials in order: the work is gone through `repeat` times."""
        return self.work.prompts * self.repeat

    def record(self) -> WorkRecord:
        return WorkRecord(
            name=self.name,
            sha256=self.work.sha256,
            prompts=len(self.work.prompts),
            kinds=self.work.kinds,
            n_predict=self.n_predict,
            repeat=self.repeat,
        )


class Peer(Protocol):
    """Another program that answers the same prompts, a whole answer at a time."""

    def answer(self, prompt_text: str, n_predict: int) -> RunRecord: ...


OpenPeer = Callable[[Session], AbstractContextManager[Peer]]
"""Starts a peer with the files of a session that has the whole pair."""


class Watcher(Protocol):
    """Who is told how a measurement goes. Seconds left are an estimate."""

    def loading(self, what: str) -> None: ...

    def noticed(self, finding: Finding) -> None: ...

    def begins(self, trials: int, seconds: float) -> None: ...

    def tried(self, trial: TrialRecord, number: int, seconds_left: float) -> None: ...

    def finishing(self, what: str) -> None: ...


def measure(
    task: Task,
    open_one: Callable[[Overrides], Session],
    watch: Watcher,
    *,
    peers: Mapping[str, OpenPeer] | None = None,
    interrupt: Callable[[], AbstractContextManager[Stop]] = lambda: nullcontext(lambda: False),
) -> Report:
    """Measure all settings of `task` against plain decoding.

    `open_one` loads a session with some settings. While trials run, `interrupt` is entered, and what it
    gives is asked whether to stop: then the report is of the trials that are done; KeyboardInterrupt where
    none is. Raises what `open_one` does, ContextError for a prompt without room, OutOfMemoryError.
    """
    started, machine = datetime.now(UTC).isoformat(timespec="seconds"), describe_machine()
    levels: list[int] = []

    def open_next(overrides: Overrides) -> Session:
        levels.append(memory.taken())
        watch.loading(list(task.settings)[len(levels) - 1])
        return open_one(overrides)

    overrides = {name: {"speculation": values} for name, values in task.settings.items()}
    with ExitStack() as stack:
        sessions = stack.enter_context(open_sessions(overrides, open_next))
        levels.append(memory.taken())
        pair = next((each for each in sessions.values() if each.loaded.draft), sessions[PLAIN])
        before = _before(pair)
        for finding in before:
            watch.noticed(finding)
        bandwidth = _bandwidth(pair)
        others: dict[str, Peer] = {}
        for name, open_peer in (peers or {}).items():
            watch.loading(name)
            others[name] = stack.enter_context(open_peer(pair))
        meter = open_meter(gpu=bool(pair.loaded.chosen["devices"]))
        if meter is not None:
            stack.enter_context(meter)
        bench = _Bench(task, sessions, others, meter, watch)
        with interrupt() as should_stop:
            whole = bench.run(should_stop)
            after = bench.paging_findings()
            bandwidth = max(filter(None, (bandwidth, _bandwidth(pair))), default=None)
            differences = bench.differences(should_stop)
            joules = bench.joules(should_stop)
        abouts = {
            name: About(
                memory=max(0, later - sooner),
                chosen=_chosen(session),
                differences=differences[name],
                joules=joules[name],
            )
            for (name, session), (sooner, later) in zip(sessions.items(), pairwise(levels), strict=True)
        }
        abouts |= {name: About(program=name) for name in others}
        outcomes = tuple(outcome(name, PLAIN, bench.done, about) for name, about in abouts.items())
        records = tuple(tried.record() for tried in bench.done)
        spread = noise.relative_spread(by_prompt(records, PLAIN, None))
        restless = noise.noise_findings([record.others_share for record in records], spread)
        models = {role: ModelRecord(**said) for role, said in pair.models().items()}
        speeds = {each.setting: each.speed.value for each in outcomes if each.speed}
        return Report(
            schema=1,
            made_by=f"llamaspec {llamaspec.__version__}",
            started=started,
            machine=machine,
            main=models["main"],
            draft=models.get("draft"),
            work=task.record(),
            baseline=PLAIN,
            outcomes=outcomes,
            findings=(
                *(*before, *bench.lost, *after, *restless),
                *([] if whole else [_cut_short(len(records), task)]),
            ),
            noise=spread,
            conclusive=not restless,
            prices=_prices(sessions),
            roofline=_roofline(bandwidth, pair, bench.done, speeds),
            trials=records,
        )


class _Bench:
    """The trials, and what is asked of the sessions once these are done."""

    def __init__(
        self,
        task: Task,
        sessions: Mapping[str, Session],
        peers: Mapping[str, Peer],
        meter: Meter | None,
        watch: Watcher,
    ) -> None:
        self.done: list[Tried] = []
        self.lost: list[Finding] = []
        self._task = task
        self._sessions = sessions
        self._peers = dict(peers)
        self._meter = meter
        self._fine = meter if meter is not None and meter.step <= energy.FINE else None
        self._watch = watch
        plain = sessions[PLAIN]
        self._texts = {prompt.name: plain.render(prompt.prompt) for prompt in task.work.prompts}
        self._tokens = {name: plain.loaded.main.tokenize(text) for name, text in self._texts.items()}
        for name, tokens in self._tokens.items():
            if len(tokens) >= (context := plain.loaded.chosen["ctx_size"]):
                raise ContextError(
                    f"The prompt {name} has {len(tokens)} tokens and the context {context}.",
                    "Raise the context size (-c), or leave the prompt out.",
                )
        self._paging = memory.Paging.now()

    def run(self, should_stop: Stop) -> bool:
        """Whether all trials were made; KeyboardInterrupt where not one was."""
        warm_up = Prompt(name="warm-up", kind="warm-up", prompt=WARM_UP)
        warm = compare(self._sessions, warm_up, _WARM_TOKENS, should_stop=should_stop)
        pace = _Pace(warm, len(self._peers))
        self._paging = memory.Paging.now()
        prompts = self._task.prompts
        expected = [
            pace.seconds(len(self._tokens[prompt.name]), prompt.limit(self._task.n_predict))
            for prompt in prompts
        ]
        self._watch.begins(len(prompts), sum(expected))
        began = datetime.now(UTC)
        try:
            for number, prompt in enumerate(prompts, 1):
                self.done.append(self._try(prompt, number, should_stop))
                taken = (datetime.now(UTC) - began).total_seconds()
                left = taken * sum(expected[number:]) / sum(expected[:number])
                self._watch.tried(self.done[-1].record(), number, left)
        except KeyboardInterrupt:
            if not self.done:
                raise
        return len(self.done) == len(prompts)

    def _try(self, prompt: Prompt, number: int, should_stop: Stop) -> Tried:
        """Everyone begins in turn, and peers answer before and after: what drifts hits all alike."""
        answers = self._ask_peers(prompt, should_stop) if number % 2 else {}
        load = noise.OtherLoad()
        trial = compare(
            self._sessions,
            prompt,
            self._task.n_predict,
            number=number,
            energy=self._fine,
            should_stop=should_stop,
        )
        share = load.share()
        return Tried(trial, share, answers if number % 2 else self._ask_peers(prompt, should_stop))

    def _ask_peers(self, prompt: Prompt, should_stop: Stop) -> dict[str, RunRecord]:
        """One that fails at its first prompt ends everything; one that fails later is asked no more."""
        answers = {}
        for name, peer in list(self._peers.items()):
            try:
                answers[name] = peer.answer(self._texts[prompt.name], prompt.limit(self._task.n_predict))
            except LlamaspecError as error:
                if should_stop():  # Ctrl-C has ended the peer as well
                    raise KeyboardInterrupt from None
                if not self.done:
                    raise
                log.warning("%s", error.message)
                del self._peers[name]
                self.lost.append(_lost(name, len(self.done)))
                self._watch.noticed(self.lost[-1])
        return answers

    def paging_findings(self) -> list[Finding]:
        return memory.Paging.now().findings(self._paging)

    def differences(self, should_stop: Stop) -> dict[str, tuple[Difference, ...]]:
        """By setting: where answers part from plain decoding's, and by how little."""
        self._watch.finishing("comparing texts")
        trials = [tried.trial for tried in self.done]
        return {
            name: tuple(
                self._difference(name, trial, should_stop)
                for trial in (differing(trials, name, PLAIN) if name != PLAIN else {}).values()
            )
            for name in self._sessions
        }

    def _difference(self, setting: str, trial: Trial, should_stop: Stop) -> Difference:
        """Without the gap, which takes a pass over the text, where it is to stop."""
        position = trial.divergence(setting, PLAIN) or 0
        if should_stop():
            return Difference(prompt=trial.prompt, position=position)
        parted = self._sessions[setting].first_divergence(
            self._tokens[trial.prompt], trial.runs[setting].tokens, trial.runs[PLAIN].tokens
        )
        return Difference(
            prompt=trial.prompt, position=position, logit_gap=parted.logit_gap if parted else None
        )

    def joules(self, should_stop: Stop) -> dict[str, dict[str, list[float]]]:
        """By setting and prompt, per token. A counter that moves too seldom for single rounds is read over
        whole answers, which each setting gives alone."""
        if self._meter is None or self._fine is not None:
            return {
                name: joules_by_prompt((tried.trial for tried in self.done), name) for name in self._sessions
            }
        self._watch.finishing("measuring energy")
        found: dict[str, dict[str, list[float]]] = {name: {} for name in self._sessions}
        first = self._task.work.prompts[0]
        for name, session in self._sessions.items():
            if should_stop():
                break
            alone = compare({name: session}, first, self._task.n_predict, energy=self._meter)
            found[name] = joules_by_prompt([alone], name)
        return found


class _Pace:
    """How long a trial takes, from what a warm-up took. A peer is thought to be as fast as the slowest."""

    def __init__(self, warm_up: Trial, peers: int) -> None:
        runs = list(warm_up.runs.values())
        reading = [run.prompt_seconds / run.prompt_tokens for run in runs if run.prompt_tokens]
        writing = [run.seconds / run.timed_tokens for run in runs if run.timed_tokens]
        self._reading = sum(reading) + peers * max(reading, default=0.0)
        self._writing = sum(writing) + peers * max(writing, default=0.0)

    def seconds(self, prompt_tokens: int, tokens: int) -> float:
        return prompt_tokens * self._reading + tokens * self._writing


def _before(pair: Session) -> list[Finding]:
    """What can be seen of the machine before anything is measured."""
    loaded, runtime = pair.loaded, pair.profile.runtime
    findings = [*memory.scarcity(), *memory.on_battery()]
    for name, facts, asked, layers in (
        ("main", loaded.main_facts, runtime.gpu_layers, loaded.chosen["gpu_layers"]),
        ("draft", loaded.draft_facts, runtime.gpu_layers_draft, loaded.chosen["gpu_layers_draft"]),
    ):
        has_gpu = runtime.device != "cpu" and any(each.kind == "gpu" for each in list_devices())
        if facts is not None and has_gpu and isinstance(asked, str):
            findings += memory.spilled(name, layers, facts.layers + 1)
    return findings


def _bandwidth(pair: Session) -> float | None:
    """None where a GPU computes, or a part of it: its memory can't be read from here."""
    return None if pair.loaded.chosen["devices"] else read_bandwidth(pair.loaded.chosen["threads"])


def _roofline(
    bandwidth: float | None, pair: Session, done: Sequence[Tried], speeds: Mapping[str, float]
) -> Roofline | None:
    if bandwidth is None:
        return None
    runs = [tried.trial.runs[PLAIN] for tried in done]
    depth = round(fmean(run.prompt_tokens + run.predicted / 2 for run in runs))
    loaded, runtime = pair.loaded, pair.profile.runtime
    header = read_model(pair.files[0].path)
    touched = bytes_per_token(header, loaded.main_facts, depth, runtime.cache_type_k, runtime.cache_type_v)
    return roofline(bandwidth, touched, speeds)


def _prices(sessions: Mapping[str, Session]) -> Prices | None:
    """What mode `auto` goes by; where it was not measured, what the other settings' rounds have shown."""
    ordered = sorted(sessions, key=lambda name: not name.startswith(AUTO))
    for name in ordered:
        loaded, stats = sessions[name].loaded, sessions[name].stats
        main, draft = loaded.knowledge.prices.main, loaded.knowledge.prices.draft
        depth = stats.prompt_tokens + stats.predicted_tokens
        widths = range(1, sessions[name].profile.speculation.ceiling + 2)
        seconds = {width: main.seconds(width, depth) for width in widths if main.measured(width)}
        if len(seconds) > 1:
            step = draft.seconds(1, depth) if loaded.draft and draft.known else None
            return Prices(depth=depth, main_seconds=seconds, draft_step_seconds=step)
    return None


def _chosen(session: Session) -> dict[str, Any]:
    """Settings as they took effect, without what is private: prompts, and where files are."""
    chosen = session.settings()
    speculation = dict(chosen["speculation"])
    if speculation.get("corpus"):
        speculation["corpus"] = PurePath(speculation["corpus"]).name
    return {"profile": chosen["profile"], "speculation": speculation, "runtime": chosen["runtime"]}


def _lost(peer: str, done: int) -> Finding:
    return Finding(
        problem=f"{peer} failed after {done} trials: its figures are of these alone.",
        remedy="Read what it said last, in the warning, and measure again.",
    )


def _cut_short(done: int, task: Task) -> Finding:
    return Finding(
        problem=f"Stopped after {done} of {len(task.prompts)} trials.",
        remedy="For a quicker run take fewer settings or prompts, or a smaller -n.",
    )
