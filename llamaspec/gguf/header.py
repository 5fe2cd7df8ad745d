"""The header of a GGUF file, read as hostile input.

Layout (little-endian): magic, version, number of tensors, number of keys; the keys with their values;
the tensors' names, shapes, types and offsets; padding; the tensors' data.

Nothing is allocated from a length that the file claims: bytes are read up to a cap and up to the file's
own end, and only then believed. Arithmetic is on Python's unbounded integers. The tensors' data is never
read. What passes here satisfies what gguf.cpp asks of a file, and some more.
"""

import math
import stat
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llamaspec.errors import CorruptGGUFError, FileMissingError, ModelFileError, NotGGUFError
from llamaspec.gguf.types import TENSOR_TYPES, TensorType

MAX_HEADER_BYTES = 1 << 28
MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 17
MAX_ARRAY_LENGTH = 1 << 24
MAX_STRING_BYTES = 1 << 24
MAX_KEY_BYTES = (1 << 16) - 1
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ELEMENTS = (1 << 63) - 1
MIN_ALIGNMENT, DEFAULT_ALIGNMENT, MAX_ALIGNMENT = 8, 32, 1 << 16
VERSIONS = (2, 3)

_READ_BYTES = 1 << 20
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY, _U32 = 8, 9, 4
_LENGTH = struct.Struct("<Q")

_HINT = "Fetch the file again: it is damaged, incomplete, or was made to do harm."


def shown(text: str | bytes, limit: int = 64) -> str:
    """`text` quoted for a message: what can't be printed is escaped, what goes beyond `limit` is left out."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return repr(text[:limit]) + ("…" if len(text) > limit else "")


@dataclass(frozen=True, slots=True)
class Array:
    """An array value, decoded on demand. Extents were checked when it was read.

    `kind` is the element type's GGUF number, `raw` the elements as they are stored.
    """

    kind: int
    count: int
    raw: bytes = field(repr=False)

    @property
    def is_strings(self) -> bool:
        return self.kind == _STRING

    def strings(self) -> list[bytes]:
        """The elements of an array of strings; their text need not be valid UTF-8."""
        texts = []
        raw, position = self.raw, 0
        length_at = _LENGTH.unpack_from
        for _ in range(self.count):
            start = position + 8
            position = start + length_at(raw, position)[0]
            texts.append(raw[start:position])
        return texts

    def numbers(self) -> tuple[int | float | bool, ...]:
        """The elements of an array of numbers."""
        return tuple(value for (value,) in _SCALARS[self.kind].iter_unpack(self.raw))


Value = int | float | bool | str | Array


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: `shape` in ggml's order (the contiguous dimension first), `offset` in the data section."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.type.bytes_for(self.elements)


@dataclass(frozen=True)
class Header:
    """What a model file, or the shards of one, say about themselves.

    `path` is the (first) file, `paths` all of them, `file_bytes` their sizes together.
    """

    path: Path
    paths: tuple[Path, ...]
    version: int
    values: Mapping[str, Value] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)
    file_bytes: int

    def corrupt(self, sentence: str) -> CorruptGGUFError:
        return CorruptGGUFError(f"{self.path.name} {sentence}.", _HINT)

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        # C strings end at a zero byte: what follows one would be read here and not there.
        if value is not None and (not isinstance(value, str) or "\0" in value):
            raise self.corrupt(f"has no text in its key {shown(key)}")
        return value

    def integer(self, key: str) -> int | None:
        value = self.values.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.corrupt(f"has no integer in its key {shown(key)}")
        return value

    def real(self, key: str) -> float | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, float):
            raise self.corrupt(f"has no floating-point number in its key {shown(key)}")
        return value

    def flag(self, key: str) -> bool | None:
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.corrupt(f"has neither true nor false in its key {shown(key)}")
        return value

    def strings(self, key: str) -> list[bytes] | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Array) or not value.is_strings:
            raise self.corrupt(f"has no list of texts in its key {shown(key)}")
        return value.strings()


class _Reader:
    """A cursor over the start of a file; every failure names what was being read and where."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.position = 0
        self._file = file
        self._data = bytearray()

    def corrupt(self, sentence: str) -> CorruptGGUFError:
        return CorruptGGUFError(f"{self.path.name} is not a sound GGUF file: {sentence}.", _HINT)

    def _fill(self, end: int, what: str) -> None:
        """Have the bytes before `end`, which is believed only as far as the file goes."""
        if end > self.size:
            raise self.corrupt(f"{what} runs past the end of the file ({self.size} bytes)")
        if end > MAX_HEADER_BYTES:
            raise self.corrupt(f"{what} makes the header larger than {MAX_HEADER_BYTES} bytes")
        while len(self._data) < end:
            read = self._file.read(_READ_BYTES)
            if not read:
                raise self.corrupt(f"{what} runs past the end of the file")
            self._data += read

    def take(self, length: int, what: str) -> bytes:
        start, self.position = self.position, self.position + length
        if self.position > len(self._data):
            self._fill(self.position, what)
        return bytes(self._data[start : self.position])

    def number(self, kind: int, what: str) -> int | float | bool:
        layout = _SCALARS[kind]
        value: int | float | bool = layout.unpack(self.take(layout.size, what))[0]
        return value

    def count(self, kind: int, limit: int, what: str) -> int:
        at, value = self.position, int(self.number(kind, what))
        if value > limit:
            raise self.corrupt(f"{what} is {value} at byte {at}, above the limit of {limit}")
        return value

    def string(self, limit: int, what: str) -> bytes:
        return self.take(self.count(10, limit, f"the length of {what}"), what)

    def name(self, limit: int, what: str) -> str:
        at = self.position
        try:
            name = self.string(limit, what).decode("utf-8")
        except UnicodeDecodeError:
            raise self.corrupt(f"{what} at byte {at} is not UTF-8") from None
        if not name or "\0" in name:
            raise self.corrupt(f"{what} at byte {at} is empty or holds a zero byte")
        return name

    def array(self, what: str) -> Array:
        kind = self.count(4, 12, f"the element type of {what}")
        count = self.count(10, MAX_ARRAY_LENGTH, f"the length of {what}")
        if kind in _SCALARS:
            return Array(kind, count, self.take(_SCALARS[kind].size * count, what))
        if kind != _STRING:
            raise self.corrupt(f"{what} is an array of arrays, which no model needs")
        start = self.position
        self._skip_strings(count, what)
        return Array(kind, count, bytes(self._data[start : self.position]))

    def _skip_strings(self, count: int, what: str) -> None:
        # The one hot loop of a header: a vocabulary of 152 k tokens has as many merges.
        data, position, length_at = self._data, self.position, _LENGTH.unpack_from
        ready = len(data) - 8
        for _ in range(count):
            if position > ready:
                self._fill(position + 8, what)
                ready = len(data) - 8
            position += 8 + length_at(data, position)[0]
        self._fill(position, what)
        self.position = position

    def value(self, what: str) -> tuple[int, Value]:
        """The value's GGUF type and the value."""
        at, kind = self.position, int(self.number(_U32, f"the type of {what}"))
        if kind in _SCALARS:
            return kind, self.number(kind, what)
        if kind == _STRING:
            return kind, self.string(MAX_STRING_BYTES, what).decode("utf-8", "replace")
        if kind == _ARRAY:
            return kind, self.array(what)
        raise self.corrupt(f"{what} has the unknown type {kind} at byte {at}")


def read_header(path: str | Path) -> Header:
    """Read and check the header of one GGUF file.

    Errors: FileMissingError, NotGGUFError (a folder, an empty file, another format), CorruptGGUFError,
    and ModelFileError where the system refuses to read.
    """
    path = Path(path)
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise NotGGUFError(f"{path} is a folder.", "Name the .gguf file in it.")
        if not stat.S_ISREG(info.st_mode):
            raise NotGGUFError(f"{path} is not a regular file.")
        with path.open("rb") as file:
            return _parse(_Reader(file, path, info.st_size))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise FileMissingError(f"There is no file {path}.", "Check the path.") from None
    except OSError as error:
        raise ModelFileError(f"{path} can't be read: {error.strerror or error}.") from error


def _parse(reader: _Reader) -> Header:
    path = reader.path
    if reader.size < 4 or reader.take(4, "the magic") != b"GGUF":
        what = "is empty" if reader.size == 0 else "is not a GGUF file"
        raise NotGGUFError(f"{path.name} {what}.", "llama.cpp runs models in the GGUF format only.")
    version = int(reader.number(_U32, "the version"))
    if version & 0xFFFF == 0 and version:
        raise NotGGUFError(f"{path.name} is a big-endian GGUF file.", "Fetch the little-endian one.")
    if version not in VERSIONS:
        supported = " and ".join(map(str, VERSIONS))
        raise NotGGUFError(f"{path.name} is GGUF version {version}; supported are {supported}.")
    tensor_count = reader.count(10, MAX_TENSORS, "the number of tensors")
    key_count = reader.count(10, MAX_KEYS, "the number of keys")

    values: dict[str, Value] = {}
    alignment = DEFAULT_ALIGNMENT
    for number in range(key_count):
        at = reader.position
        key = reader.name(MAX_KEY_BYTES, f"the name of key {number}")
        if key in values:
            raise reader.corrupt(f"key {shown(key)} comes a second time at byte {at}")
        kind, values[key] = reader.value(f"key {shown(key)}")
        if key == "general.alignment":
            alignment = _alignment(reader, kind, values[key])
    tensors = tuple(_tensors(reader, tensor_count))
    _check_extents(reader, tensors, alignment)
    return Header(path, (path,), version, values, tensors, reader.size)


def _alignment(reader: _Reader, kind: int, value: Value) -> int:
    if kind != _U32 or not isinstance(value, int):
        raise reader.corrupt("'general.alignment' is not an unsigned 32-bit integer")
    if not MIN_ALIGNMENT <= value <= MAX_ALIGNMENT or value & (value - 1):
        bounds = f"{MIN_ALIGNMENT} to {MAX_ALIGNMENT}"
        raise reader.corrupt(f"'general.alignment' is {value}, not a power of two from {bounds}")
    return value


def _tensors(reader: _Reader, count: int) -> Iterator[Tensor]:
    seen = set()
    for number in range(count):
        at = reader.position
        name = reader.name(MAX_TENSOR_NAME_BYTES, f"the name of tensor {number}")
        if name in seen:
            raise reader.corrupt(f"tensor {shown(name)} comes a second time at byte {at}")
        seen.add(name)
        what = f"tensor {shown(name)} at byte {at}"
        dimensions = int(reader.number(_U32, what))
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise reader.corrupt(f"{what} has {dimensions} dimensions, not 1 to {MAX_DIMENSIONS}")
        shape = tuple(int(reader.number(10, what)) for _ in range(dimensions))
        if 0 in shape or math.prod(shape) > MAX_ELEMENTS:
            raise reader.corrupt(f"{what} has the impossible shape {list(shape)}")
        type_number = int(reader.number(_U32, what))
        kind = TENSOR_TYPES.get(type_number)
        if kind is None:
            raise reader.corrupt(f"{what} has the unknown type {type_number}")
        if shape[0] % kind.block:
            raise reader.corrupt(f"{what} has rows of {shape[0]}, not whole {kind.name} blocks")
        yield Tensor(name, shape, kind, int(reader.number(10, what)))


def _check_extents(reader: _Reader, tensors: tuple[Tensor, ...], alignment: int) -> None:
    """The tensors follow each other in order, each padded to the alignment, and end within the file.

    That is llama.cpp's own rule, and it leaves no room for overlaps.
    """
    start = -(-reader.position // alignment) * alignment
    expected = 0
    for tensor in tensors:
        what = f"tensor {shown(tensor.name)}"
        if tensor.offset != expected:
            raise reader.corrupt(f"{what} is at offset {tensor.offset}, not at {expected}")
        end = start + expected + tensor.bytes
        if end > reader.size:
            raise reader.corrupt(f"{what} ends at byte {end}, past the end of the file ({reader.size} bytes)")
        expected += -(-tensor.bytes // alignment) * alignment
