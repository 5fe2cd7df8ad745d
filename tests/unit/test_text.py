"""Text from token pieces: whatever the cuts, nothing is lost, split within a character or shown too early."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.decode.text import Piece, TextStream

stops = st.lists(st.text("ab€", min_size=1, max_size=4), max_size=3).map(tuple)


def push_all(stream: TextStream, pieces: Sequence[bytes], finish: bool = True) -> list[Piece]:
    out: list[Piece] = []
    for token, piece in enumerate(pieces):
        out += stream.push(piece, token, drafted=False)
        if stream.stopped:
            break
    return out + (stream.finish() if finish else [])


def joined(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the text is cut: at the beginning of the stop string that is complete first."""
    ends = [(text.index(s) + len(s), text.index(s)) for s in stop if s in text]
    if not ends:
        return None
    end = min(ends)[0]
    return min(text[:end].index(s) for s in stop if s in text[:end])


@given(st.lists(st.binary(max_size=3), max_size=12))
def test_any_bytes_come_out_as_decoded_at_once(pieces: list[bytes]) -> None:
    assert joined(push_all(TextStream(), pieces)) == b"".join(pieces).decode("utf-8", "replace")


@given(st.text("ab€", max_size=20), stops, st.data())
def test_text_is_cut_at_the_stop_string_that_is_first_complete(
    text: str, stop: tuple[str, ...], data: st.DataObject
) -> None:
    """One byte a token: a stop string is complete with a single character, so that the order is plain."""
    pieces = [bytes([byte]) for byte in text.encode()]
    at = first_stop(text, stop)
    stream = TextStream(stop)
    assert joined(push_all(stream, pieces)) == (text if at is None else text[:at])
    assert stream.stopped is (at is not None)


@given(st.lists(st.text("ab€", max_size=5), max_size=8), stops)
def test_with_any_tokens_no_stop_string_is_shown(texts: list[str], stop: tuple[str, ...]) -> None:
    stream = TextStream(stop)
    shown = joined(push_all(stream, [text.encode() for text in texts]))
    whole = "".join(texts)
    assert whole.startswith(shown)
    assert not any(s in shown for s in stop)
    assert stream.stopped is any(s in whole for s in stop)
    if not stream.stopped:
        assert shown == whole


@given(st.lists(st.binary(max_size=3), max_size=12), stops)
def test_every_token_is_told_once_and_in_order(pieces: list[bytes], stop: tuple[str, ...]) -> None:
    stream = TextStream(stop)
    told = [token for piece in push_all(stream, pieces) for token in piece.tokens]
    assert told == list(range(len(told)))
    if not stream.stopped:
        assert len(told) == len(pieces)


@given(st.lists(st.text("ab", max_size=3), max_size=10), stops)
def test_only_what_may_become_a_stop_string_is_held_back(texts: list[str], stop: tuple[str, ...]) -> None:
    stream = TextStream(stop)
    shown = joined(push_all(stream, [text.encode() for text in texts], finish=False))
    whole = "".join(texts)
    if not stream.stopped:
        held = whole[len(shown) :]
        assert not held or any(s.startswith(held[start:]) for s in stop for start in range(len(held)))
        assert not stop or len(held) < max(map(len, stop)) + 3


def test_a_stop_string_over_several_tokens_hides_their_common_rest() -> None:
    stream = TextStream(("END",))
    assert joined(stream.push(b"one E", 1, False)) == ""
    assert joined(stream.push(b"N", 2, False)) == ""
    assert [(piece.text, piece.tokens) for piece in stream.push(b"D two", 3, False)] == [("one ", (1,))]
    assert stream.stopped
    assert stream.finish() == []


def test_a_held_text_that_goes_on_otherwise_comes_out_with_its_own_marks() -> None:
    stream = TextStream(("abc",))
    assert stream.push(b"ab", 1, True) == []
    assert stream.push(b"x", 2, False) == [Piece("ab", (1,), True), Piece("x", (2,), False)]


def test_a_character_over_tokens_belongs_to_the_last_of_them() -> None:
    stream = TextStream()
    assert stream.push(b"\xe2\x82", 7, True) == []
    assert stream.push(b"\xac", 8, False) == [Piece("€", (7, 8), False)]


@pytest.mark.parametrize("half", [b"\xe2", b"\xe2\x82", b"\xf0\x9f\x98"])
def test_half_a_character_at_the_end_is_shown_as_such(half: bytes) -> None:
    stream = TextStream()
    assert stream.push(b"a" + half, 1, False) == [Piece("a", (1,), False)]
    assert joined(stream.finish()) == "\ufffd"


def test_a_token_without_text_is_told_at_once() -> None:
    stream = TextStream()
    assert stream.push(b"", 5, False) == [Piece("", (5,), False)]
