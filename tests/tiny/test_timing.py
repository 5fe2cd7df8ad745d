"""Timing over the real llama.cpp: what it holds to, whatever the figures."""

from collections.abc import Callable
from pathlib import Path

import pytest
from gguf_files import tiny_jamba, tiny_llama, tiny_mamba
from lfm2_file import tiny_lfm2

from llamaspec.engine import timing
from llamaspec.engine.timing import (
    WIDTHS,
    DraftTimes,
    PairTimes,
    could_be_smaller,
    time_pair,
    time_smaller_draft,
)
from llamaspec.errors import DiskFullError
from llamaspec.native.quantize import quantize
from llamaspec.settings import RuntimeSettings

RUNTIME = RuntimeSettings(device="cpu", threads=1, ctx_size=256)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_SECONDS", 0.0)


@pytest.mark.parametrize("write", [tiny_llama, tiny_mamba, tiny_jamba, tiny_lfm2])
def test_every_kind_of_model_can_be_measured(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """Also those whose past can't be cut back token by token."""
    main, draft = write(tmp_path / "main.gguf"), write(tmp_path / "draft.gguf")
    times = time_pair(main, draft, RUNTIME)
    assert tuple(times.main) == WIDTHS
    assert all(seconds > 0 for seconds in (*times.main.values(), times.draft_step))
    assert times.chosen["threads"] == 1
    smaller = time_smaller_draft(draft, RUNTIME, times.chosen)
    assert smaller.original > 0 and smaller.smaller > 0


def test_prices_between_measured_widths_lie_on_lines() -> None:
    times = PairTimes({1: 10.0, 2: 20.0, 4: 24.0, 8: 40.0}, 3.0, {})
    assert times.main_prices == [10.0, 20.0, 22.0, 24.0, 28.0, 32.0, 36.0, 40.0]
    assert DraftTimes(3.0, 2.0).speedup == 1.5


def test_what_is_small_already_is_left_alone(tmp_path: Path) -> None:
    model = tiny_llama(tmp_path / "model.gguf", embd=256)
    assert could_be_smaller(model)
    for type, could in (("Q8_0", True), ("Q4_K_M", True), ("Q4_0", False), ("Q3_K_M", False)):
        quantize(model, tmp_path / "other.gguf", type)
        assert could_be_smaller(tmp_path / "other.gguf") is could, type


def test_no_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = tiny_llama(tmp_path / "draft.gguf")
    times = time_pair(draft, draft, RUNTIME)
    monkeypatch.setattr(timing, "_SMALL_TYPE_BITS", 1 << 60)
    monkeypatch.setattr(timing, "quantize", lambda *_: pytest.fail("it began"))
    with pytest.raises(DiskFullError):
        time_smaller_draft(draft, RUNTIME, times.chosen)
