"""Reports as `bench` writes them, made up: a fixed seed, figures as seen on two cores with a BF16 model."""

import random
from collections import Counter
from collections.abc import Mapping
from statistics import quantiles
from typing import Any

from llamaspec.bench.report import (
    Difference,
    Finding,
    Latency,
    Outcome,
    Prices,
    Report,
    Roofline,
    RunRecord,
    TrialRecord,
)
from llamaspec.figures import figure, ratio
from llamaspec.provenance import Machine, ModelRecord, WorkRecord

# How often a draft token is accepted, and how wide drafts are: by kind and by setting.
KINDS = {
    "code": 0.92,
    "edit": 0.96,
    "chat": 0.66,
    "summary": 0.78,
    "json": 0.94,
    "maths": 0.76,
    "translation": 0.7,
    "story": 0.55,
}
SETTINGS = {"plain": 0, "fixed:16:0.75": 16, "auto": 10, "llama-server": 16}
PROGRAMS = {"llama-server": "llama-server"}
MAIN_SECONDS = {1: 0.098, 2: 0.121, 4: 0.152, 6: 0.16, 8: 0.175, 12: 0.21, 16: 0.247, 32: 0.44}
DRAFT_SECONDS = 0.0155


class _Answers:
    """Answers of one setting, with all their rounds counted."""

    def __init__(self, setting: str) -> None:
        self.setting = setting
        self.jitter = random.Random(setting)
        self.drafted_at = Counter[int]()
        self.accepted_at = Counter[int]()
        self.lengths = Counter[int]()
        self.widths = Counter[int]()
        self.latencies: list[float] = []

    def run(self, prompt: str, kind: str, n_predict: int) -> RunRecord:
        """A greedy answer: when it is repeated, only its times differ."""
        chance = random.Random(prompt)
        likely, longest = KINDS[kind], SETTINGS[self.setting]
        slow = (1.07 if self.setting in PROGRAMS else 1.0) * self.jitter.uniform(0.95, 1.05)
        times, seconds, drafted, accepted, rounds = [0.0], 0.0, 0, 0, 0
        while len(times) < n_predict:
            unsure = next((i for i in range(longest) if chance.random() > likely**0.5), longest)
            width = 0 if self.setting == "auto" and likely < 0.6 and unsure < 3 else unsure
            kept = next((i for i in range(width) if chance.random() > likely**0.5), width)
            step = (_price(width + 1) + width * DRAFT_SECONDS) * slow * self.jitter.uniform(0.96, 1.05)
            seconds += step
            self.latencies += [step, *[0.0] * kept]
            times += [seconds] * (kept + 1)
            self.drafted_at.update(range(width))
            self.accepted_at.update(range(kept))
            self.lengths[kept] += 1
            self.widths[width] += 1
            drafted, accepted, rounds = drafted + width, accepted + kept, rounds + 1
        return RunRecord(
            predicted=len(times),
            timed_tokens=len(times) - 1,
            seconds=seconds,
            prompt_tokens=86,
            prompt_seconds=0.55 * self.jitter.uniform(0.95, 1.05),
            drafted=drafted,
            accepted=accepted,
            rounds=rounds,
            finish="length",
            times=tuple(times),
        )

    def latency(self) -> Latency:
        cuts = quantiles(self.latencies, n=100, method="inclusive")
        return Latency(
            p50=cuts[49],
            p95=cuts[94],
            p99=cuts[98],
            low=min(self.latencies),
            first_quartile=cuts[24],
            third_quartile=cuts[74],
            high=max(self.latencies),
        )


def _price(width: int) -> float:
    return MAIN_SECONDS[min(known for known in MAIN_SECONDS if known >= width)]


def _samples(
    trials: tuple[TrialRecord, ...], setting: str, *, baseline: str | None = None, kind: str | None = None
) -> Mapping[str, list[float]]:
    samples: dict[str, list[float]] = {}
    for trial in trials:
        speed = trial.runs[setting].speed
        assert speed is not None
        base = trial.runs[baseline].speed if baseline else 1.0
        if kind in (None, trial.kind):
            samples.setdefault(trial.prompt, []).append(speed / (base or 1.0))
    return samples


def _outcome(trials: tuple[TrialRecord, ...], answers: _Answers) -> Outcome:
    setting, plain, peer = answers.setting, answers.setting == "plain", answers.setting in PROGRAMS
    relative = _samples(trials, setting, baseline="plain")
    drafted = [answers.drafted_at[i] for i in range(len(answers.drafted_at))]
    return Outcome(
        setting=setting,
        program=PROGRAMS.get(setting, "llamaspec"),
        speed=figure(_samples(trials, setting)),
        relative=None if plain else ratio(relative),
        speed_by_kind={kind: figure(_samples(trials, setting, kind=kind)) for kind in KINDS},
        relative_by_kind={}
        if plain
        else {kind: ratio(_samples(trials, setting, baseline="plain", kind=kind)) for kind in KINDS},
        worst=None if plain else min(((name, min(v)) for name, v in relative.items()), key=lambda w: w[1]),
        time_to_first_token=figure({t.prompt: [t.runs[setting].prompt_seconds] for t in trials}),
        latency=answers.latency(),
        acceptance_rate=sum(answers.accepted_at.values()) / sum(drafted) if drafted else None,
        drafted_at=() if peer else tuple(drafted),
        accepted_at=() if peer else tuple(answers.accepted_at[i] for i in range(len(drafted))),
        accepted_lengths={} if peer else dict(answers.lengths),
        widths={} if peer else dict(answers.widths),
        peak_memory=None if peer else 3_700_000_000 + 420_000_000 * (not plain),
        same_text=0 if plain or peer else 2 * len(KINDS) - (setting == "auto"),
        differences=(Difference(prompt="story-2", position=19, logit_gap=0.0031),)
        if setting == "auto"
        else (),
        chosen={
            "speculation": {"mode": "off" if plain else "auto", "corpus": "/home/someone/code"},
            "runtime": {"threads": 2, "ctx_size": 2048, "gpu_layers": 0, "flash_attn": "auto"},
        },
    )


def report(**changes: Any) -> Report:
    """Two prompts of each kind, each answered twice under four settings; `changes` are other fields."""
    jitter = random.Random(7)
    answers = {setting: _Answers(setting) for setting in SETTINGS}
    trials = tuple(
        TrialRecord(
            prompt=f"{kind}-{number}",
            kind=kind,
            others_share=round(jitter.uniform(0.01, 0.04), 4),
            runs={
                setting: of_setting.run(f"{kind}-{number}", kind, 96)
                for setting, of_setting in answers.items()
            },
        )
        for _ in range(2)
        for kind in KINDS
        for number in (1, 2)
    )
    outcomes = tuple(_outcome(trials, of_setting) for of_setting in answers.values())
    bytes_per_token = 3_107_000_000
    fields: dict[str, Any] = {
        "made_by": "llamaspec 0.1.0",
        "started": "2026-11-21T12:25:07Z",
        "machine": Machine(
            os="Linux 6.1.0 x86_64",
            cpu="Intel(R) Xeon(R) Processor @ 2.60GHz",
            cores=2,
            memory_bytes=24 << 30,
            backends=("CPU",),
            binding="0.3.36",
        ),
        "main": ModelRecord(
            file="qwen2.5-coder-1.5b-instruct.BF16.gguf",
            size=3_093_665_728,
            sha256="a" * 64,
            quantisation="BF16",
        ),
        "draft": ModelRecord(
            file="qwen2.5-coder-0.5b-instruct.Q4_0.gguf",
            size=352_969_344,
            sha256="b" * 64,
            quantisation="Q4_0",
        ),
        "work": WorkRecord(
            name="default", sha256="c" * 64, prompts=16, kinds=tuple(KINDS), n_predict=96, repeat=2
        ),
        "baseline": "plain",
        "outcomes": outcomes,
        "noise": 0.021,
        "prices": Prices(depth=256, main_seconds=MAIN_SECONDS, draft_step_seconds=DRAFT_SECONDS),
        "roofline": Roofline(
            bandwidth=38.4e9,
            bytes_per_token=bytes_per_token,
            limit=38.4e9 / bytes_per_token,
            fractions={
                outcome.setting: outcome.speed.value * bytes_per_token / 38.4e9
                for outcome in outcomes
                if outcome.speed and outcome.program == "llamaspec"
            },
        ),
        "trials": trials,
    }
    return Report.model_validate({**fields, **changes})


def noisy_report() -> Report:
    """The same, of which nothing can be concluded."""
    return report(
        conclusive=False,
        noise=0.31,
        findings=(
            Finding(
                problem="Other programs took more than 5 % of the machine in 11 of 32 trials.",
                remedy="Close them, or measure again when the machine has nothing else to do.",
            ),
            Finding(
                problem="The baseline's own repeats differ by 31 %.",
                remedy="Repeat more often: --repeat 5.",
            ),
        ),
    )
