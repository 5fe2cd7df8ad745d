#!/usr/bin/env python3
"""What speculation earns under different settings, on a workload of prompts, greedy.

    plain            no speculation: what the others are compared with
    default          llama.cpp's defaults: drafts of 3 tokens, however improbable
    fixed:MAX:PMIN   drafts of up to MAX tokens, ended where one is less probable than PMIN
    auto             as llamaspec decides; auto:NAME+NAME with these drafters alone

All settings answer each prompt at the same time, in turns (`llamaspec.bench.paired`). A setting that is
named twice is measured twice: the difference is the noise of the machine. Speeds are generation alone.
Each setting starts without anything learnt in earlier runs or from the others, and learns as it goes.

Usage: scripts/bench_speculation.py --set A -n 128
       scripts/bench_speculation.py --set C --kinds edit json --prompts 1 --grid --json result.json
       scripts/bench_speculation.py -m MAIN.gguf -md DRAFT.gguf --settings plain,default,fixed:16:0.75
"""

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
from reference_sets import SETS, Pair, reference_set
from rich.console import Console
from rich.table import Table

from llamaspec.bench.paired import (
    Overrides,
    Result,
    Trial,
    best_setting,
    compare,
    open_sessions,
    result,
)
from llamaspec.bench.workload import Workload, load_workload
from llamaspec.errors import LlamaspecError
from llamaspec.hub.fetch import fetch
from llamaspec.native.api import binding_version
from llamaspec.profiles import find_profile
from llamaspec.session import Session, load

PLAIN, DEFAULT, FIXED, AUTO = "plain", "default", "fixed", "auto"
SMALL = "smollm2"
SMALL_PROFILE = "smollm2-135m"
SETTINGS = "plain,default,fixed:16:0.75,auto"
SETTINGS_WITHOUT_DRAFT = "plain,auto"
BUSY = 0.05
GRID = tuple(f"{FIXED}:{most}:{least}" for most, least in itertools.product((4, 8, 16), (0.5, 0.75, 0.9)))


def speculation(setting: str) -> dict[str, object]:
    """The speculation settings that a name stands for. Raises ValueError for a name that means nothing."""
    match setting.split(":"):
        case ["plain"]:
            return {"mode": "off"}
        case ["default"]:
            return {"mode": "fixed", "draft_max": 3, "draft_min": 0, "p_min": 0.0}
        case ["fixed", most, least]:
            return {"mode": "fixed", "draft_max": int(most), "draft_min": 0, "p_min": float(least)}
        case ["auto"]:
            return {"mode": "auto"}
        case ["auto", drafters]:
            return {"mode": "auto", "drafters": drafters.split("+")}
    raise ValueError(f"{setting!r} is none of plain, default, fixed:MAX:PMIN, auto and auto:DRAFTERS")


def named(settings: Sequence[str]) -> dict[str, dict[str, object]]:
    """Name → speculation settings; what is listed again gets a number: `plain`, `plain#2`."""
    chosen: dict[str, dict[str, object]] = {}
    for setting in settings:
        copies = sum(name.split("#")[0] == setting for name in chosen)
        chosen[f"{setting}#{copies + 1}" if copies else setting] = speculation(setting)
    return chosen


def model_files(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Main and, unless there is none, draft; fetched or derived where they are not here yet."""
    if options.model:
        return options.model, options.model_draft
    if options.set == SMALL:
        return fetch(find_profile(SMALL_PROFILE).main).path, None
    published = Pair(*options.published) if options.published else None
    return reference_set(options.set or "A", options.sets_dir, published)


@contextmanager
def cache_at(folder: Path | None) -> Iterator[None]:
    """What is loaded meanwhile keeps what it learns in `folder`; None: where it always does."""
    before = os.environ.get("LLAMASPEC_CACHE")
    if folder is not None:
        os.environ["LLAMASPEC_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is not None:
            os.environ["LLAMASPEC_CACHE"] = before
        else:
            os.environ.pop("LLAMASPEC_CACHE", None)


def runtime(options: argparse.Namespace) -> dict[str, object]:
    layers = {"gpu_layers": options.gpu_layers} if options.gpu_layers is not None else {}
    threads = {"threads": options.threads} if options.threads else {}
    return {"ctx_size": options.ctx_size, **threads, **layers}


def measure(
    options: argparse.Namespace, settings: Mapping[str, Mapping[str, object]], workload: Workload
) -> list[Trial]:
    """All trials; a line for each is printed, and the JSON file written, as soon as it is done."""
    main, draft = model_files(options)
    common = runtime(options)
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as learnt:

        def open_one(overrides: Overrides) -> Session:
            with cache_at(None if options.remember else Path(tempfile.mkdtemp(dir=learnt))):
                return load(main=str(main), draft=str(draft) if draft else None, settings=overrides)

        overrides = {name: {"speculation": values, "runtime": common} for name, values in settings.items()}
        with open_sessions(overrides, open_one) as sessions:
            about = {
                "binding": binding_version(),
                "n_predict": options.n_predict,
                "settings": {name: s.settings() | {"models": s.models()} for name, s in sessions.items()},
            }
            prompts = workload.prompts * options.repeat
            load_of_others, shares = OtherLoad(), list[float]()
            for number, prompt in enumerate(prompts, 1):
                trials.append(compare(sessions, prompt, options.n_predict))
                shares.append(load_of_others.share())
                print(f"{number:3}/{len(prompts)}  {line(trials[-1], shares[-1])}", flush=True)
                if options.json:
                    write_json(options.json, about | {"others_share": shares}, trials)
    return trials


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


def line(trial: Trial, busy: float = 0.0) -> str:
    """Plain's speed, and for the others how many times that; `≠57`: the text differs from token 57 on.

    `busy` is what other programs used of the machine: llama.cpp's threads wait for one another, so that one
    that has lost its processor slows all down, and by chance.
    """
    speed = trial.runs[PLAIN].speed
    parts = [f"{trial.prompt:26}{PLAIN} {'-' if speed is None else f'{speed:.2f}'} tokens/s"]
    for name in trial.runs:
        if name != PLAIN:
            place = trial.divergence(name, PLAIN)
            parts.append(
                f"{name} {shown(trial.ratio(name, PLAIN))}" + (f" ≠{place}" if place is not None else "")
            )
    if busy > BUSY:
        parts.append(f"(not to be relied on: others used {busy:.0%} of the machine)")
    return "  ".join(parts)


def shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}×"


def write_json(path: Path, about: Mapping[str, Any], trials: Sequence[Trial]) -> None:
    """The trials so far and their summary; whoever reads the file finds it whole."""
    results = {name: asdict(result(trials, name, PLAIN)) for name in trials[0].runs}
    record = {**about, "relative_to_plain": results, "trials": [asdict(trial) for trial in trials]}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(record, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.replace(path)


def print_summary(trials: Sequence[Trial]) -> None:
    results = {name: result(trials, name, PLAIN) for name in trials[0].runs if name != PLAIN}
    table = Table(title="times as fast as plain, geometric means over the prompts")
    table.add_column("kind")
    for name in results:
        table.add_column(name, justify="right")
    for kind in dict.fromkeys(trial.kind for trial in trials):
        table.add_row(kind, *(shown(one.by_kind[kind]) for one in results.values()))
    table.add_section()
    table.add_row("all", *(shown(one.overall) for one in results.values()))
    worst = [one.worst or ("", None) for one in results.values()]
    table.add_row("worst prompt", *(f"{shown(ratio)}\n{name}" for name, ratio in worst))
    console = Console()
    if not console.is_terminal:
        console.width = 20 + 28 * len(results)
    console.print(table)
    for sentence in conclusions(trials, results):
        print(sentence)


def conclusions(trials: Sequence[Trial], results: Mapping[str, Result]) -> list[str]:
    """The fixed setting that is the best over all prompts, and auto against it and against the defaults."""
    fixed = [name for name in results if name.startswith((DEFAULT, FIXED))]
    best = best_setting(trials, fixed, PLAIN)
    sentences = []
    if best is not None:
        sentences.append(f"Best fixed setting: {best}, {shown(results[best].overall)} plain.")
    if AUTO in results:
        for other in sorted({name for name in fixed if name in (best, DEFAULT)}):
            sentences.append(f"auto: {shown(result(trials, AUTO, other).overall)} {other}.")
    return sentences


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare speculation settings on a workload of prompts.")
    parser.add_argument(
        "--set", choices=[*SETS, SMALL], help="reference set (default: A, where -m is not given)"
    )
    parser.add_argument("--sets-dir", type=Path, help="where the reference sets are kept")
    parser.add_argument(
        "--published", nargs=2, type=Path, metavar=("MAIN", "DRAFT"), help="derive the set from these"
    )
    parser.add_argument("-m", "--model", type=Path, help="main model, in place of a set")
    parser.add_argument("-md", "--model-draft", type=Path, help="draft model")
    parser.add_argument("--workload", type=Path, help="YAML file of prompts (default: the shipped ones)")
    parser.add_argument("--kinds", nargs="+", default=[], metavar="KIND", help="default: all of the workload")
    parser.add_argument("--prompts", type=int, metavar="N", help="the first N of each kind (default: all)")
    parser.add_argument("-n", "--n-predict", type=int, default=128)
    parser.add_argument("--settings", help=f"default: {SETTINGS}; without a draft {SETTINGS_WITHOUT_DRAFT}")
    parser.add_argument("--grid", action="store_true", help="and a grid of fixed settings")
    parser.add_argument("--repeat", type=int, default=1, help="times that the workload is gone through")
    parser.add_argument("-c", "--ctx-size", type=int, default=2048)
    parser.add_argument("-t", "--threads", type=int, help="default: the physical cores")
    parser.add_argument("-ngl", "--gpu-layers", type=int, metavar="N", help="default: as many as fit")
    parser.add_argument("--remember", action="store_true", help="use and keep what is learnt, as `run` does")
    parser.add_argument("--json", type=Path, help="write settings, runs and summary here, after every prompt")
    options = parser.parse_args(arguments)
    if options.model and options.set:
        parser.error("give --set, or -m with -md")
    if options.model_draft and not options.model:
        parser.error("-md needs -m")
    if options.repeat < 1 or options.n_predict < 2:
        parser.error("at least one repeat and two tokens are needed")
    without_draft = options.set == SMALL or (options.model and not options.model_draft)
    listed = (options.settings or (SETTINGS_WITHOUT_DRAFT if without_draft else SETTINGS)).split(",")
    if options.grid:
        listed += [setting for setting in GRID if setting not in listed]
    try:
        options.settings = named(listed)
    except ValueError as error:
        parser.error(f"--settings: {error}")
    if PLAIN not in options.settings or len(options.settings) < 2:
        parser.error("--settings: plain is needed, and others to compare with it")
    return options


def main() -> int:
    options = parse_arguments()
    try:
        workload = load_workload(options.workload).select(options.kinds, options.prompts)
        trials = measure(options, options.settings, workload)
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_summary(trials)
    return 0


if __name__ == "__main__":
    sys.exit(main())
