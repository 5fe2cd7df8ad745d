from hypothesis import given
from hypothesis import strategies as st

from llamaspec.engine.scheduler import share_batch


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
