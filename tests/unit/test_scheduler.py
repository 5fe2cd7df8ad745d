import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.engine.scheduler import PromptPacer, share_batch


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


def test_the_first_chunk_is_small_and_later_ones_take_half_a_second() -> None:
    pacer = PromptPacer()
    first = pacer.chunk
    assert first == 64
    pacer.measured(64, 0.064)  # 1000 tokens a second: grows by at most four
    assert pacer.chunk == 256
    pacer.measured(256, 0.256)
    assert pacer.chunk == 500
    pacer.measured(500, 2.0)
    assert pacer.chunk == 125


@pytest.mark.parametrize(("tokens", "seconds"), [(10, 1.0), (0, 1.0), (100, 0.0)])
def test_remainders_and_broken_clocks_are_ignored(tokens: int, seconds: float) -> None:
    pacer = PromptPacer(256)
    pacer.measured(tokens, seconds)
    assert pacer.chunk == 256


@given(st.lists(st.tuples(st.integers(64, 4096), st.floats(1e-6, 1e3)), max_size=20))
def test_a_chunk_is_never_smaller_than_the_first(measured: list[tuple[int, float]]) -> None:
    pacer = PromptPacer()
    for tokens, seconds in measured:
        pacer.measured(tokens, seconds)
        assert pacer.chunk >= 64
