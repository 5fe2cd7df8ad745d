import logging
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamaspec.decode.drafters.corpus import GUESSES, ORDERS, SEPARATOR, CorpusDrafter, CorpusIndex
from llamaspec.decode.drafters.lookup import MOST_VOTES, Match
from llamaspec.decode.ports import Drafter, Evidence, Lookup
from llamaspec.engine import corpus
from llamaspec.engine.corpus import load_corpus
from llamaspec.errors import FileMissingError, UsageError

# Few tokens and repeated stretches: short texts with matches of all lengths.
STRETCH = st.lists(st.integers(0, 3), min_size=1, max_size=8)
TEXT = st.lists(st.tuples(STRETCH, st.integers(1, 3)), max_size=4).map(
    lambda parts: [token for stretch, times in parts for token in stretch * times]
)


def index_of(*texts: Sequence[int]) -> CorpusIndex:
    return CorpusIndex.build(np.array([token for text in texts for token in (*text, SEPARATOR)], np.int32))


def scan(texts: Sequence[Sequence[int]], tail: Sequence[int]) -> tuple[int, list[int]]:
    """The longest order that matches, and all tokens that followed, the last in the corpus first."""
    for order in sorted(ORDERS, reverse=True):
        followers = [
            text[place]
            for text in texts
            for place in range(order, len(text))
            if list(text[place - order : place]) == list(tail[-order:])
        ]
        if followers:
            return order, followers[::-1]
    return 0, []


@given(st.lists(TEXT, max_size=4), TEXT)
@example([[1, 2, 3, 4]], [1, 2, 3])
@example([[0, 0, 0]], [0, 0, 0])
@example([[1] * 40], [1] * 20)
@example([list(range(30))] * 20, list(range(14)))
def test_the_index_says_what_a_scan_says(texts: list[list[int]], tail: list[int]) -> None:
    index = index_of(*texts)
    assert len(index) == sum(len(text) + 1 for text in texts)
    for end in range(len(tail) + 1):
        order, followers = scan(texts, tail[:end])
        match = index.follow(tail[:end])
        if match is None or not followers:
            assert match is None and not followers
            continue
        assert match.order == order
        if len(followers) <= MOST_VOTES:
            votes = Counter(followers)
            most = max(votes.values())
            latest = next(token for token in followers if votes[token] == most)
            assert match == Match(latest, order, most, len(followers))
        else:
            assert MOST_VOTES / 2 < match.occurrences <= MOST_VOTES
            assert match.votes <= Counter(followers)[match.token]


@given(st.lists(TEXT, max_size=3), TEXT)
def test_an_index_is_stored_and_read(texts: list[list[int]], tail: list[int]) -> None:
    index = index_of(*texts)
    again = CorpusIndex.from_arrays(index.arrays())
    assert len(again) == len(index)
    assert again.follow(tail) == index.follow(tail)


def test_no_match_spans_two_texts() -> None:
    index = index_of([1, 2], [3, 4], [5, 1, 2, 3], [9])
    assert index.follow([1, 2, 3]) is None, "nothing follows inside of its text"
    assert index.follow([2, 3, 4]) is None
    assert index.follow([5, 1, 2]) == Match(3, 3, 1, 1)


def test_ids_are_told_apart_by_all_their_bytes() -> None:
    texts = [[2**31 - 1, 2**16, 256, 1], [2**31 - 1, 2**16, 257, 2], [0, 0, 0, 3], [0, 0, 2**24, 4]]
    index = index_of(*texts)
    for text in texts:
        assert index.follow(text[:3]) == Match(text[3], 3, 1, 1)


def test_many_occurrences_are_asked_all_over_the_text() -> None:
    index = index_of(*([[1, 2, 3, 4]] * 300), *([[1, 2, 3, 5]] * 100))
    match = index.follow([1, 2, 3])
    assert match is not None and match.token == 4
    assert match.votes / match.occurrences == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize(
    ("backwards", "places"),
    [
        (np.zeros(4, np.uint32), np.array([4], np.uint32)),
        (np.zeros(4, np.uint32), np.array([0], np.uint32)),
        (np.zeros(4, np.int32), np.array([1], np.uint32)),
        (np.zeros(4, np.uint32), np.array([1], np.float32)),
        (np.zeros((2, 2), np.uint32), np.array([1], np.uint32)),
    ],
)
def test_arrays_that_are_no_index_are_refused(backwards: np.ndarray, places: np.ndarray) -> None:
    with pytest.raises(ValueError):
        CorpusIndex.from_arrays({"backwards": backwards, "places": places})
    with pytest.raises(KeyError):
        CorpusIndex.from_arrays({"backwards": backwards})


def test_the_drafter_serves_all_sequences_from_one_index() -> None:
    lookup: Lookup = CorpusDrafter(index_of([1, 2, 3, 4, 5, 6]))
    drafter: Drafter = CorpusDrafter(index_of([1, 2, 3, 4, 5, 6]))
    drafter.begin(0)
    drafter.settle(0, [9, 1, 2, 3])
    assert drafter.free and drafter.unread(0, 100) == 0
    for sequence in (0, 1):
        assert lookup.follow(sequence, [9, 1, 2, 3]) == (4, Evidence("corpus", GUESSES[3][0], 0))
        assert lookup.follow(sequence, [1, 2, 3, 4, 5]) == (6, Evidence("corpus", GUESSES[5][0], 4))
        assert lookup.follow(sequence, [2, 3]) is None
    drafter.end(0)


# --- files ---


class Tokenizer:
    """A token for each character; remembers the texts."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> list[int]:
        self.texts.append(text)
        return [ord(character) for character in text]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "corpus"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "sub").mkdir(parents=True)
    (folder / "b.py").write_text("import numpy\n", newline="\n")
    (folder / "a.txt").write_text("hello world\n", newline="\n")
    (folder / "sub" / "c.md").write_text("# Title\n", newline="\n")
    return folder


def texts_of(path: Path, cache: Path) -> list[str]:
    tokenizer = Tokenizer()
    load_corpus(path, tokenizer, cache, "v")
    return tokenizer.texts


def follows(index: CorpusIndex, text: str) -> str | None:
    match = index.follow([ord(character) for character in text])
    return None if match is None else chr(match.token)


def test_a_folder_is_read_in_the_order_of_names(folder: Path, cache: Path) -> None:
    tokenizer = Tokenizer()
    index = load_corpus(folder, tokenizer, cache, "v")
    assert tokenizer.texts == ["hello world\n", "import numpy\n", "# Title\n"]
    assert follows(index, "hello w") == "o"
    assert follows(index, "world\n") is None, "the next file is another text"


def test_a_single_file(folder: Path, cache: Path) -> None:
    index = load_corpus(folder / "b.py", Tokenizer(), cache, "v")
    assert follows(index, "import nu") == "m"


def test_only_text_is_read(folder: Path, cache: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("hidden")
    (folder / ".env").write_text("hidden")
    (folder / "image.bin").write_bytes(b"abc\0def")
    (folder / "empty.txt").touch()
    assert len(texts_of(folder, cache)) == 3


def test_texts_are_made_alike(folder: Path, cache: Path) -> None:
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\xff\n")
    assert texts_of(folder, cache)[0] == "one\ntwo\N{REPLACEMENT CHARACTER}\n"


def test_links_lead_nowhere(folder: Path, cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("secret")
    try:
        (folder / "link").symlink_to(outside, target_is_directory=True)
        (folder / "link.txt").symlink_to(outside / "secret.txt")
        (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)
    except OSError:
        pytest.skip("links can't be made here")
    assert len(texts_of(folder, cache)) == 3
    assert len(texts_of(folder / "sub" / "up", cache / "other")) == 3, "the corpus itself may be one"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_not_opened(folder: Path, cache: Path) -> None:
    os.mkfifo(folder / "pipe")
    assert len(texts_of(folder, cache)) == 3


def test_large_files_of_a_folder_are_left_out(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corpus, "_MAX_FILE", 12)
    assert texts_of(folder, cache) == ["hello world\n", "# Title\n"]
    assert "1 files over 2 MB" in caplog.text


def test_a_large_file_that_is_named_is_read_in_pieces(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpus, "_MAX_FILE", 12)
    (folder / "a.txt").write_text("one\ntwo\nthree\nfour\nfive\n", newline="\n")
    pieces = texts_of(folder / "a.txt", cache)
    assert len(pieces) > 1 and all(piece.endswith("\n") for piece in pieces)
    assert "".join(pieces) == "one\ntwo\nthree\nfour\nfive\n"


@pytest.mark.parametrize("limit", ["_MAX_TEXT", "_MAX_TOKENS"])
def test_too_much_text_is_cut_and_told(
    folder: Path, cache: Path, limit: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(corpus, limit, 15)
    assert texts_of(folder, cache) == ["hello world\n", "import numpy\n"]
    assert "everything from sub/c.md on" in caplog.text


def test_files_that_can_not_be_read_are_told(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = Path.open

    def refuse(path: Path, *args: str) -> object:
        if path.name == "b.py":
            raise PermissionError(path)
        return opened(path, *args)

    monkeypatch.setattr(Path, "open", refuse)
    assert texts_of(folder, cache) == ["hello world\n", "# Title\n"]
    assert "1 files that can't be read" in caplog.text


def test_what_is_not_there_or_has_no_text(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(FileMissingError, match="nowhere"):
        load_corpus(tmp_path / "nowhere", Tokenizer(), cache, "v")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match="no text"):
        load_corpus(empty, Tokenizer(), cache, "v")
    (empty / "data").write_bytes(b"\0")
    for path in (empty, empty / "data"):
        with pytest.raises(UsageError, match="no text"):
            load_corpus(path, Tokenizer(), cache, "v")
    assert not list(cache.glob("*"))


# --- the cache ---


def test_the_second_time_nothing_is_tokenised(folder: Path, cache: Path) -> None:
    first = load_corpus(folder, Tokenizer(), cache, "v")
    tokenizer = Tokenizer()
    second = load_corpus(folder, tokenizer, cache, "v")
    assert tokenizer.texts == []
    assert len(second) == len(first)
    assert follows(second, "hello w") == "o"


def test_changes_are_seen_and_the_old_index_goes(folder: Path, cache: Path) -> None:
    assert len(texts_of(folder, cache)) == 3
    [before] = cache.iterdir()

    file = folder / "a.txt"
    file.write_text("hello globe\n")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 10**9))  # as large as before
    assert "hello globe\n" in texts_of(folder, cache)
    [after] = cache.iterdir()
    assert after != before

    (folder / "new.txt").write_text("new\n")
    assert len(texts_of(folder, cache)) == 4
    (folder / "new.txt").rename(folder / "newer.txt")
    assert len(texts_of(folder, cache)) == 4
    (folder / "newer.txt").unlink()
    assert len(texts_of(folder, cache)) == 3
    assert len(list(cache.iterdir())) == 1


def test_every_vocabulary_and_corpus_has_an_index_of_its_own(
    folder: Path, cache: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for _ in range(2):
        tokenizer = Tokenizer()
        load_corpus(folder, tokenizer, cache, "v")
        load_corpus(folder, tokenizer, cache, "another")
        load_corpus(copy, tokenizer, cache, "v")
    assert tokenizer.texts == []
    assert len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "changed", "array", "other"])
def test_a_damaged_index_is_built_again(folder: Path, cache: Path, damage: str) -> None:
    load_corpus(folder, Tokenizer(), cache, "v")
    [stored] = cache.iterdir()
    data = stored.read_bytes()
    letter = data.index(np.array([ord("w"), ord(" ")], np.uint32).tobytes())
    if damage == "array":
        with stored.open("wb") as stream:
            np.save(stream, np.zeros(3))
    elif damage == "other":
        np.savez(stored, other=np.zeros(3))
    else:
        stored.write_bytes(
            {
                "empty": b"",
                "text": b"not an index",
                "cut": data[: len(data) // 2],
                "changed": data[:letter] + b"W" + data[letter + 1 :],
            }[damage]
        )
    assert len(texts_of(folder, cache)) == 3
    assert texts_of(folder, cache) == []


def test_an_index_that_can_not_be_stored_serves_all_the_same(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    with caplog.at_level(logging.WARNING):
        index = load_corpus(folder, Tokenizer(), blocked, "v")
    assert follows(index, "hello w") == "o"
    assert "could not be stored" in caplog.text
