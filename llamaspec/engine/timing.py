"""What a pair costs on this machine: a main decode by batch width, a draft step, a smaller draft."""

import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from llamaspec.decode.ports import Backend, Feed
from llamaspec.engine.loader import load_pair
from llamaspec.errors import DiskFullError, OutOfMemoryError
from llamaspec.gguf.header import Header
from llamaspec.gguf.shards import read_model
from llamaspec.gguf.types import TYPES_BY_NAME
from llamaspec.native import devices
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.model import Model
from llamaspec.native.quantize import quantize
from llamaspec.settings import RuntimeSettings, SpeculationSettings

WIDTHS = (1, 2, 4, 8)
DEPTH = 100  # tokens, at the first measurement; each moves it on by one
SMALL_TYPE = "Q4_0"

_SECONDS = 3.0
_FEWEST_ROUNDS, _MOST_ROUNDS = 3, 15
_SMALL_TYPE_BITS = 6  # per weight of a whole file: some tensors stay larger than Q4_0's 4.5
# Text and not random ids: how many experts a batch takes depends on what it says.
_TEXT = (
    "The lighthouse keeper climbed the stairs every evening, counted the ships on the horizon, and wrote "
    "their number in a book. On clear nights there were ten or more; in autumn, when the storms came in from "
    "the west, there was often none. Nobody had asked for the book, but it was older than the keeper, and "
    "some pages were written in a hand that no one in the village could read. "
)


@dataclass(frozen=True, slots=True)
class PairTimes:
    """Seconds, each the median of several: a main decode by its width in tokens, and a draft step.

    `chosen` is what the automatic runtime settings stood for, as in `engine.loader.Loaded`.
    """

    main: Mapping[int, float]
    draft_step: float
    chosen: Mapping[str, Any]

    @property
    def main_prices(self) -> list[float]:
        """Seconds for every width from 1 to the largest; those between two that were measured on a line."""
        prices = [self.main[1]]
        for narrow, wide in pairwise(WIDTHS):
            slope = (self.main[wide] - self.main[narrow]) / (wide - narrow)
            prices += [self.main[narrow] + slope * more for more in range(1, wide - narrow + 1)]
        return prices


@dataclass(frozen=True, slots=True)
class DraftTimes:
    """Seconds of a step of a draft as it is and in `SMALL_TYPE`, measured in turns."""

    original: float
    smaller: float

    @property
    def speedup(self) -> float:
        return self.original / self.smaller


def time_pair(main: Path, draft: Path, runtime: RuntimeSettings) -> PairTimes:
    """Load a pair as `run` would and measure it for a few seconds. Errors: as `load_pair`."""
    longest = max(WIDTHS) - 1
    speculation = SpeculationSettings(mode="fixed", draft_max=longest)
    loaded = load_pair(main, draft, runtime, speculation)
    assert loaded.draft is not None
    with (
        loaded.engine,
        _context(loaded.main, runtime, loaded.chosen, longest) as main_context,
        _context(loaded.draft, runtime, loaded.chosen) as draft_context,
    ):
        verify = _Steps(main_context, loaded.main.tokenize(_TEXT))
        step = _Steps(draft_context, loaded.draft.tokenize(_TEXT))
        tasks = [*(partial(verify, width) for width in WIDTHS), partial(step, 1)]
        *main_seconds, draft_seconds = _medians(tasks)
    return PairTimes(dict(zip(WIDTHS, main_seconds, strict=True)), draft_seconds, loaded.chosen)


def could_be_smaller(draft: Path) -> bool:
    """Whether most weights of a model are in a type other than `SMALL_TYPE`, and not in a smaller one."""
    held: Counter[str] = Counter()
    for tensor in read_model(draft).tensors:
        held[tensor.type.name] += tensor.elements
    kind, small = TYPES_BY_NAME[held.most_common(1)[0][0]], TYPES_BY_NAME[SMALL_TYPE]
    return kind != small and kind.size * small.block >= small.size * kind.block


def time_smaller_draft(draft: Path, runtime: RuntimeSettings, chosen: Mapping[str, Any]) -> DraftTimes:
    """Requantise a draft to `SMALL_TYPE` in a temporary folder, and measure it beside the original.

    `chosen` says where layers and threads go (`PairTimes.chosen`). Raises DiskFullError or
    OutOfMemoryError where there is no room for both, and what `quantize` raises.
    """
    layers = chosen["gpu_layers_draft"]
    usable = devices.select(runtime.device, devices.list_devices()) if layers else []
    handles = [device.handle for device in usable]
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="llamaspec-")))
        _require_room(read_model(draft), folder)
        smaller = folder / "draft.gguf"
        quantize(draft, smaller, SMALL_TYPE)
        steps = []
        for path in (draft, smaller):
            model = opened.enter_context(Model(path, gpu_layers=layers, devices=handles))
            context = opened.enter_context(_context(model, runtime, chosen))
            steps.append(_Steps(context, model.tokenize(_TEXT)))
        return DraftTimes(*_medians([partial(step, 1) for step in steps]))


def _require_room(draft: Header, folder: Path) -> None:
    needed = sum(tensor.elements for tensor in draft.tensors) * _SMALL_TYPE_BITS // 8
    if shutil.disk_usage(folder).free < needed:
        raise DiskFullError(f"{needed / 1e9:.1f} GB are needed in {folder.parent}, and there is less.")
    if devices.available_memory() < draft.file_bytes + 2 * needed:  # the converter holds a part of it too
        raise OutOfMemoryError("There is no memory for the draft model and a copy of it.")


def _context(model: Model, runtime: RuntimeSettings, chosen: Mapping[str, Any], rollback: int = 0) -> Context:
    """A small context of its own: the one that generates is left alone, and its size costs nothing here."""
    most = DEPTH + len(WIDTHS) * (_MOST_ROUNDS + 1) + max(WIDTHS)
    options = ContextOptions(
        context_size=most,
        batch_size=DEPTH,
        max_rows=max(WIDTHS),
        rollback=rollback,
        threads=chosen["threads"],
        threads_batch=chosen["threads_batch"],
        flash_attn=runtime.flash_attn,
        cache_type_k=runtime.cache_type_k,
        cache_type_v=runtime.cache_type_v,
    )
    return Context(model, options)


class _Steps:
    """Decodes of a text behind its first `DEPTH` tokens, of which one is kept each time."""

    def __init__(self, backend: Backend, text: list[int]) -> None:
        self._backend = backend
        self._text = (text * (1 + backend.context_size // len(text)))[: backend.context_size]
        self._held = 0

    def __call__(self, width: int) -> float:
        """Seconds of a decode of `width` tokens with all their logits."""
        while self._held < DEPTH:  # at the beginning, and where the past could not be cut back
            self._decode(min(self._backend.batch_size, DEPTH - self._held), rows=1)
        before = self._held
        started = time.perf_counter()
        self._decode(width, rows=width)
        seconds = time.perf_counter() - started
        if width > 1:
            self._held = self._backend.truncate(0, before + 1)
        return seconds

    def _decode(self, count: int, rows: int) -> None:
        tokens = self._text[self._held : self._held + count]
        self._backend.decode([Feed(0, tokens, self._held, rows=rows, draft=rows - 1)])
        self._held += count


def _medians(tasks: Sequence[Callable[[], float]]) -> list[float]:
    """The median of what each task gives, all of them in turns: they see the same phases of the machine."""
    for task in tasks:
        task()
    rounds: list[list[float]] = []
    end = time.monotonic() + _SECONDS
    while len(rounds) < _FEWEST_ROUNDS or (len(rounds) < _MOST_ROUNDS and time.monotonic() < end):
        rounds.append([task() for task in tasks])
    return [median(times) for times in zip(*rounds, strict=True)]
