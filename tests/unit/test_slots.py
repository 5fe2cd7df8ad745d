"""Which slot a text gets, and what it takes over."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.engine.slots import Place, Slots, common_prefix


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_a_common_prefix_is_the_longest_there_is(first: list[int], second: list[int]) -> None:
    length = common_prefix(first, second)
    assert first[:length] == second[:length]
    assert length == min(len(first), len(second)) or first[length] != second[length]


def test_an_unknown_text_gets_an_empty_slot() -> None:
    assert Slots(2).place([1, 2], {}, reuse=True) == Place(0, 0, -1)


def test_a_text_that_goes_on_is_taken_over_where_it_is() -> None:
    slots = Slots(2)
    slots.keep(slots.place([1, 2], {}, reuse=True).slot, [1, 2, 3, 4])
    assert slots.place([1, 2, 3, 4, 5], {}, reuse=True) == Place(0, 4, 0, whole=True)
    assert slots.kept_tokens == 0


def test_the_last_token_of_a_prompt_is_never_taken_over() -> None:
    slots = Slots(1)
    slots.keep(slots.place([1, 2, 3], {}, reuse=True).slot, [1, 2, 3])
    assert slots.place([1, 2, 3], {}, reuse=True).common == 2


def test_a_text_that_only_begins_alike_is_copied_and_kept() -> None:
    slots = Slots(2)
    slots.keep(slots.place([1], {}, reuse=True).slot, [1, 2, 3, 4, 5, 6])
    assert slots.place([1, 2, 9, 9], {}, reuse=True) == Place(1, 2, 0)
    assert slots.kept_tokens == 6


def test_what_runs_in_another_slot_is_copied() -> None:
    slots = Slots(2)
    running = slots.place([1, 2, 3], {}, reuse=True).slot
    assert slots.place([1, 2, 9], {running: [1, 2, 3]}, reuse=True) == Place(1, 2, running)


def test_the_least_recently_used_text_makes_place() -> None:
    slots = Slots(2)
    for text in ([1, 1], [2, 2]):
        slots.keep(slots.place(text, {}, reuse=True).slot, text)
    again = slots.place([1, 1, 1], {}, reuse=True)
    slots.keep(again.slot, [1, 1, 1])
    assert slots.place([3, 3], {}, reuse=True) == Place(1, 0, -1, given_up=True)
    assert slots.give_up() == 0
    assert slots.give_up() is None


def test_the_only_text_that_is_left_is_used_in_place() -> None:
    slots = Slots(1)
    slots.keep(slots.place([1], {}, reuse=True).slot, [1, 2, 3, 4, 5, 6])
    assert slots.place([1, 2, 9], {}, reuse=True) == Place(0, 2, 0)


@pytest.mark.parametrize("reuse", [True, False])
def test_nothing_is_taken_over_unless_it_is_wanted(reuse: bool) -> None:
    slots = Slots(2)
    slots.keep(slots.place([1, 2], {}, reuse=True).slot, [1, 2, 3])
    assert (slots.place([1, 2, 3], {}, reuse=reuse).common > 0) is reuse


def test_what_others_begin_with_is_kept_for_longest() -> None:
    slots = Slots(3)
    slots.keep(slots.place([1], {}, reuse=True).slot, [1, 2, 3, 4, 5, 6])
    slots.keep(slots.place([7], {}, reuse=True).slot, [7, 7])
    assert slots.place([1, 2, 9], {}, reuse=True).source == 0
    assert slots.give_up() == 1
