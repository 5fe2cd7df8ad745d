"""Headers built byte by byte: what is sound is read, what is not is refused with a sentence."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamaspec.errors import CorruptGGUFError, FileMissingError, LlamaspecError, NotGGUFError
from llamaspec.gguf.header import Array, Header, read_header, shown
from llamaspec.gguf.shards import read_model

Read = Callable[[bytes], Header]
U32, STRING, ARRAY, U64 = 4, 8, 9, 10


def string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def key(name: str, kind: int, value: bytes) -> bytes:
    return string(name) + struct.pack("<I", kind) + value


def number(name: str, value: int) -> bytes:
    return key(name, U32, struct.pack("<I", value))


def strings(name: str, texts: list[bytes], claimed: int | None = None) -> bytes:
    count = len(texts) if claimed is None else claimed
    return key(name, ARRAY, struct.pack("<IQ", STRING, count) + b"".join(string(text) for text in texts))


def tensor(name: str, shape: list[int], offset: int = 0, kind: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(keys: Sequence[bytes], tensors: Sequence[bytes] = (), data: int = 0, version: int = 3) -> bytes:
    counts = struct.pack("<IQQ", version, len(tensors), len(keys))
    head = b"GGUF" + counts + b"".join([*keys, *tensors])
    return head + bytes(-len(head) % 32) + bytes(data)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def write_and_read(data: bytes) -> Header:
        path = tmp_path / "model.gguf"
        path.write_bytes(data)
        return read_header(path)

    return write_and_read


def test_reads_values_of_every_kind(read: Read) -> None:
    header = read(
        gguf(
            [
                number("count", 7),
                key("name", STRING, string("Ünï")),
                key("half", 6, struct.pack("<f", 0.5)),
                key("wide", U64, struct.pack("<Q", 2**64 - 1)),
                key("small", 1, struct.pack("<b", -5)),
                key("yes", 7, b"\x01"),
                strings("tokens", [b"a", b"", b"\xff\xfe", b"long" * 9]),
                key("types", ARRAY, struct.pack("<IQ3i", 5, 3, -1, 0, 1)),
            ]
        )
    )
    assert header.integer("count") == 7
    assert header.text("name") == "Ünï"
    assert header.real("half") == 0.5
    assert header.integer("wide") == 2**64 - 1
    assert header.integer("small") == -5
    assert header.flag("yes") is True
    assert header.strings("tokens") == [b"a", b"", b"\xff\xfe", b"long" * 9]
    types = header.values["types"]
    assert isinstance(types, Array)
    assert types.numbers() == (-1, 0, 1)
    assert header.integer("absent") is None


def test_reads_tensors_in_order(read: Read) -> None:
    header = read(gguf([], [tensor("a", [3, 2]), tensor("b.weight", [64], 32, kind=8)], data=32 + 68))
    assert [(t.name, t.shape, t.type.name, t.bytes, t.offset) for t in header.tensors] == [
        ("a", (3, 2), "F32", 24, 0),
        ("b.weight", (64,), "Q8_0", 68, 32),
    ]


def test_an_array_longer_than_one_read_is_whole(read: Read) -> None:
    texts = [b"token %d" % number for number in range(150_000)]
    assert read(gguf([strings("tokens", texts), number("after", 1)])).strings("tokens") == texts


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"", NotGGUFError, "is empty"),
        (b"GG", NotGGUFError, "not a GGUF file"),
        (b"PK\x03\x04" + bytes(60), NotGGUFError, "not a GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), NotGGUFError, "big-endian"),
        (gguf([], version=1), NotGGUFError, "version 1"),
        (gguf([], version=4), NotGGUFError, "version 4"),
        (b"GGUF\x03", CorruptGGUFError, "the version runs past the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), CorruptGGUFError, "number of tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**64 - 1), CorruptGGUFError, "number of keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 3), CorruptGGUFError, "past the end"),
        (gguf([number("a", 1), number("a", 1)]), CorruptGGUFError, "'a' comes a second time"),
        (gguf([number("", 1)]), CorruptGGUFError, "is empty"),
        (gguf([key("a", 13, b"")]), CorruptGGUFError, "unknown type 13"),
        (gguf([struct.pack("<Q", 1 << 30) + b"k"]), CorruptGGUFError, "length of the name of key 0"),
        (gguf([string(b"\xff") + bytes(8)]), CorruptGGUFError, "not UTF-8"),
        (gguf([key("a", STRING, struct.pack("<Q", 1 << 30))]), CorruptGGUFError, "1073741824"),
        (gguf([key("a", STRING, struct.pack("<Q", 1 << 20))]), CorruptGGUFError, "past the end"),
        (gguf([key("a", ARRAY, struct.pack("<IQ", U32, 1 << 62))]), CorruptGGUFError, "length of key 'a'"),
        (gguf([key("a", ARRAY, struct.pack("<IQ", U32, 1 << 23))]), CorruptGGUFError, "past the end"),
        (gguf([key("a", ARRAY, struct.pack("<IQ", ARRAY, 1) + bytes(99))]), CorruptGGUFError, "arrays"),
        (gguf([strings("a", [b"x"], claimed=9)]), CorruptGGUFError, "past the end"),
        (gguf([number("general.alignment", 0)]), CorruptGGUFError, "power of two"),
        (gguf([number("general.alignment", 48)]), CorruptGGUFError, "power of two"),
        (gguf([number("general.alignment", 1 << 30)]), CorruptGGUFError, "power of two"),
        (gguf([key("general.alignment", U64, bytes(8))]), CorruptGGUFError, "32-bit"),
        (gguf([], [tensor("a", [])]), CorruptGGUFError, "0 dimensions"),
        (gguf([], [tensor("a", [1] * 5)]), CorruptGGUFError, "5 dimensions"),
        (gguf([], [tensor("a", [4, 0])]), CorruptGGUFError, "impossible shape"),
        (gguf([], [tensor("a", [2**32, 2**32])]), CorruptGGUFError, "impossible shape"),
        (gguf([], [tensor("a", [2**40])]), CorruptGGUFError, "past the end"),
        (gguf([], [tensor("a", [4], kind=99)]), CorruptGGUFError, "unknown type 99"),
        (gguf([], [tensor("a", [33], kind=8)], data=99), CorruptGGUFError, "whole Q8_0 blocks"),
        (gguf([], [tensor("a", [4], 32)], data=99), CorruptGGUFError, "offset 32, not at 0"),
        (gguf([], [tensor("a", [4]), tensor("b", [4], 16)], data=99), CorruptGGUFError, "not at 32"),
        (gguf([], [tensor("a", [4])] * 2, data=99), CorruptGGUFError, "a second time"),
        (gguf([], [tensor("a", [8])], data=31), CorruptGGUFError, "ends at byte"),
        (gguf([], [tensor("n" * 64, [8])], data=32), CorruptGGUFError, "limit of 63"),
    ],
)
def test_refuses(read: Read, data: bytes, error: type[LlamaspecError], said: str) -> None:
    with pytest.raises(error) as caught:
        read(data)
    assert type(caught.value) is error
    assert said in caught.value.message
    assert "model.gguf" in caught.value.message


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        read_header(tmp_path / "absent.gguf")
    with pytest.raises(FileMissingError):
        read_header("bad\0name")
    with pytest.raises(NotGGUFError, match="folder"):
        read_header(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(tail=st.binary(max_size=200), counts=st.tuples(st.integers(0, 3), st.integers(0, 3)))
def test_any_bytes_are_read_or_refused(tmp_path: Path, tail: bytes, counts: tuple[int, int]) -> None:
    path = tmp_path / "any.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, *counts) + tail)
    try:
        header = read_header(path)
    except LlamaspecError:
        return
    assert (len(header.tensors), len(header.values)) == counts


@pytest.mark.parametrize("method", ["text", "integer", "real", "flag", "strings"])
def test_a_value_of_another_type_is_refused(read: Read, method: str) -> None:
    value = number("a", 1) if method != "integer" else key("a", STRING, string("1"))
    with pytest.raises(CorruptGGUFError, match="'a'"):
        getattr(read(gguf([value])), method)("a")


def test_text_with_a_zero_byte_is_refused(read: Read) -> None:
    with pytest.raises(CorruptGGUFError):
        read(gguf([key("general.architecture", STRING, string("llama\0mpt"))])).text("general.architecture")


def test_quoting_escapes_and_cuts() -> None:
    assert shown("tab\t\u202e") == r"'tab\t\u202e'"
    assert shown(b"\xff\xc3\xa9") == r"'\\xffé'"
    assert shown("x" * 100, 5) == "'xxxxx'…"


def _shards(folder: Path, count: int = 3, **changes: int) -> list[Path]:
    paths = []
    for part in range(count):
        said = {"split.no": part, "split.count": count, "split.tensors.count": count, **changes}
        path = folder / f"big-{part + 1:05d}-of-{count:05d}.gguf"
        keys = [number(name, value) for name, value in said.items()]
        path.write_bytes(gguf([*keys, number("part", part)], [tensor(f"t{part}", [8])], data=32))
        paths.append(path)
    return paths


@pytest.mark.parametrize("named", [0, 1, 2])
def test_shards_are_one_model_whichever_is_named(tmp_path: Path, named: int) -> None:
    paths = _shards(tmp_path)
    header = read_model(paths[named])
    assert header.path == paths[0]
    assert header.paths == tuple(paths)
    assert [t.name for t in header.tensors] == ["t0", "t1", "t2"]
    assert header.integer("part") == 0
    assert header.file_bytes == sum(path.stat().st_size for path in paths)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    paths = _shards(tmp_path)
    paths[1].unlink()
    with pytest.raises(FileMissingError, match=r"big-00002-of-00003\.gguf"):
        read_model(paths[0])


def test_shards_that_contradict_are_refused(tmp_path: Path) -> None:
    first = _shards(tmp_path, **{"split.tensors.count": 9})[0]
    with pytest.raises(CorruptGGUFError, match="3 tensors"):
        read_model(first)
    first.rename(tmp_path / "other.gguf")
    with pytest.raises(CorruptGGUFError, match="00001-of-00003"):
        read_model(tmp_path / "other.gguf")
    paths = _shards(tmp_path)
    paths[2].write_bytes(paths[1].read_bytes())
    with pytest.raises(CorruptGGUFError, match="part 3 of 3"):
        read_model(paths[0])
