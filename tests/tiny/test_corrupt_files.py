"""No file that the checks let through may take the process with it when llama.cpp loads it."""

import random
import struct
from pathlib import Path

import pytest
from gguf_files import load_in_child, tiny_jamba, tiny_llama, tiny_mamba

from llamaspec.errors import CorruptGGUFError, LlamaspecError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.shards import read_model

VARIANTS = 300
ABSURD = (0, 1, 3, 255, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sound")
    return [
        tiny_llama(folder / "llama.gguf"),
        tiny_llama(folder / "qwen2.gguf", arch="qwen2"),
        tiny_mamba(folder / "mamba.gguf"),
        tiny_jamba(folder / "jamba.gguf"),
    ]


def damaged(data: bytes, header_bytes: int, seed: int) -> bytes:
    """One of several kinds of damage, mostly to the header and there mostly to the hyperparameters."""
    choose = random.Random(seed)
    damage = bytearray(data)
    reach = choose.choice([700, 700, header_bytes, len(data)])
    at = choose.randrange(reach - 8)
    kind = seed % 5
    if kind in (0, 1):
        for _ in range(choose.choice([1, 1, 4])):
            damage[choose.randrange(reach)] ^= 1 << choose.randrange(8)
    elif kind == 2:
        layout = choose.choice(["<I", "<Q"])
        struct.pack_into(layout, damage, at, choose.choice(ABSURD) % (1 << 8 * struct.calcsize(layout)))
    elif kind == 3:
        struct.pack_into("<f", damage, at, choose.choice([0.0, -1.0, float("nan"), float("inf")]))
    elif choose.random() < 0.5:
        del damage[choose.randrange(len(data)) :]
    else:
        del damage[at : at + choose.randrange(1, 9)]
    return bytes(damage)


def test_the_sound_files_load(sound: list[Path]) -> None:
    for path in sound:
        check_model(read_model(path))
    assert [loaded.outcome for loaded in load_in_child(sound)] == ["decoded"] * len(sound)


def test_what_would_crash_is_seen_in_the_child_and_refused_before(tmp_path: Path, sound: list[Path]) -> None:
    one_byte = struct.pack("<Q", 1)
    hostile = tmp_path / "hostile.gguf"
    hostile.write_bytes(sound[0].read_bytes().replace(one_byte + b"a", one_byte + b"b", 1))
    assert [loaded.outcome for loaded in load_in_child([hostile, sound[0]])] == ["crashed", "decoded"]
    with pytest.raises(CorruptGGUFError, match="'b' more than once"):
        check_model(read_model(hostile))


def test_damaged_files_are_refused_or_harmless(tmp_path: Path, sound: list[Path]) -> None:
    passed, refused = [], 0
    for seed in range(VARIANTS):
        source = sound[seed % len(sound)]
        data = source.read_bytes()
        header_bytes = len(data) - sum(tensor.bytes for tensor in read_model(source).tensors)
        path = tmp_path / f"{source.stem}-{seed}.gguf"
        path.write_bytes(damaged(data, header_bytes, seed))
        try:
            check_model(read_model(path))
        except LlamaspecError as error:
            assert error.message.endswith("."), error.message
            refused += 1
        else:
            passed.append(path)
    assert refused > VARIANTS // 3
    assert passed
    assert [loaded for loaded in load_in_child(passed) if loaded.outcome == "crashed"] == []
