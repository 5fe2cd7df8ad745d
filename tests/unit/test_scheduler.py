from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.engine.scheduler import ReadingPace, share_batch


@given(
    st.integers(1, 100),
    st.lists(st.integers(1, 20), max_size=4),
    st.lists(st.integers(1, 50), max_size=5),
    st.integers(1, 80),
)
def test_a_batch_is_never_overfilled_and_never_idle(
    batch_size: int, widths: list[int], prompts: list[int], chunk: int
) -> None:
    shares = share_batch(batch_size, widths, prompts, chunk)
    room = max(0, batch_size - sum(widths))
    assert len(shares) == len(prompts)
    assert all(0 <= share <= prompt for share, prompt in zip(shares, prompts, strict=True))
    assert sum(shares) == min(room, chunk, sum(prompts))


def test_prompts_are_served_first_come_first() -> None:
    assert share_batch(20, [4], [10, 10, 10], 64) == [10, 6, 0]
    assert share_batch(20, [4], [10, 10, 10], 12) == [10, 2, 0]
    assert share_batch(4, [3, 2], [10], 64) == [0]


def rounds(pace: ReadingPace, count: int, plain: float, each: float) -> list[float]:
    """Seconds of rounds beside which a prompt is read, on a machine where a token of it takes `each`."""
    pace.learn(0, plain)
    taken = []
    for _ in range(count):
        tokens = pace.tokens(pace.usual)
        taken.append(plain + tokens * each)
        pace.learn(tokens, taken[-1])
    return taken


@pytest.mark.parametrize(("plain", "each"), [(0.04, 0.02), (0.1, 0.01), (0.02, 0.0001)])
def test_reading_stretches_a_round_as_far_as_it_may(plain: float, each: float) -> None:
    last = rounds(ReadingPace(512, stretch=1.0), 20, plain, each)[-1]
    most = plain + min(plain, 512 * each)
    assert most - each <= last <= most + 1e-9


def test_however_slow_it_is_a_prompt_gets_read() -> None:
    pace = ReadingPace(512, stretch=1.0)
    rounds(pace, 20, 0.01, 1.0)
    assert pace.tokens(pace.usual) == 1


def test_reading_speeds_up_step_by_step() -> None:
    pace = ReadingPace(512, stretch=1.0)
    pace.learn(0, 1.0)
    widths = []
    for _ in range(4):
        widths.append(pace.tokens(pace.usual))
        pace.learn(widths[-1], 1.0)
    assert all(later <= 2 * earlier for earlier, later in pairwise(widths))


def test_now_and_then_a_round_without_reading_is_due() -> None:
    pace = ReadingPace(512, stretch=1.0)
    pace.learn(0, 1.0)
    reading = 0
    while not pace.due:
        pace.learn(1, 2.0)
        reading += 1
    pace.learn(0, 5.0)  # others have come to use the machine
    assert reading > 1 and not pace.due
    assert 1.0 < pace.usual < 5.0
