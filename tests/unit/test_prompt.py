"""Where a prompt comes from."""

import io
from pathlib import Path

import pytest

from llamaspec.cli.prompt import constraint, read_prompt
from llamaspec.errors import FileMissingError, UsageError


def piped(data: bytes) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(data))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_file_then_standard_input_then_argument(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("From the file.\n", encoding="utf-8")
    prompt = read_prompt("Summarise.", file, piped(b"From the pipe.\n"), raw=False)
    assert prompt == "From the file.\n\nFrom the pipe.\n\nSummarise."


def test_a_terminal_is_not_read() -> None:
    assert read_prompt("Hi", None, Terminal("typed later"), raw=False) == "Hi"


def test_raw_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("assistant\n", encoding="utf-8")
    assert read_prompt(None, file, piped(b""), raw=True) == "assistant\n"


def test_no_prompt_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no prompt"):
        read_prompt(None, None, piped(b"\n"), raw=False)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError):
        read_prompt(None, tmp_path / "missing", Terminal(), raw=False)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_prompt(None, binary, Terminal(), raw=False)


def test_one_constraint_at_most(tmp_path: Path) -> None:
    assert constraint(None, None, None) is None
    assert constraint('root ::= "a"', None, None) == 'root ::= "a"'
    with pytest.raises(UsageError, match="exclude"):
        constraint('root ::= "a"', None, "{}")


def test_standard_input_that_is_closed_or_not_text() -> None:
    assert read_prompt("Hi", None, None, raw=False) == "Hi"
    with pytest.raises(UsageError, match="Standard input is not UTF-8"):
        read_prompt(None, None, piped(b"\xff\x00"), raw=False)
