"""Where a prompt and its grammar come from."""

from pathlib import Path
from typing import TextIO

from llamaspec.errors import FileMissingError, UsageError

_MAX_BYTES = 1 << 24


def read_prompt(argument: str | None, file: Path | None, standard_input: TextIO | None, *, raw: bool) -> str:
    """File, standard input and argument, whichever there are, in this order.

    An empty line goes between them, and a line end at the last one's end is dropped; `raw` does neither.
    """
    parts = []
    if file is not None:
        parts.append(read_text(file))
    if standard_input is not None and not standard_input.isatty():
        parts.append(_decoded(standard_input.buffer.read(_MAX_BYTES + 1), "Standard input"))
    if argument is not None:
        parts.append(argument)
    prompt = "".join(parts) if raw else "\n\n".join(part.rstrip("\n") for part in parts if part.strip())
    if not prompt:
        raise UsageError("There is no prompt.", 'Give one: llamaspec run "Write a quick sort in Python"')
    return prompt


def constraint(grammar: str | None, grammar_file: Path | None, json_schema: str | None) -> str | None:
    """The GBNF that one of the three options names, if any."""
    given = [option for option in (grammar, grammar_file, json_schema) if option is not None]
    if len(given) > 1:
        raise UsageError(
            "--grammar, --grammar-file and --json-schema exclude each other.", "Give one of them."
        )
    if json_schema is not None:
        from llamaspec.native.grammar import schema_to_grammar

        return schema_to_grammar(json_schema)
    return read_text(grammar_file) if grammar_file is not None else grammar


def read_text(path: Path) -> str:
    """A text file of the user's, UTF-8."""
    try:
        with path.open("rb") as file:
            return _decoded(file.read(_MAX_BYTES + 1), str(path))
    except FileNotFoundError:
        raise FileMissingError(f"There is no file {path}.") from None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}.") from error


def _decoded(data: bytes, name: str) -> str:
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{name} is larger than {_MAX_BYTES >> 20} MiB.")
    try:
        # Line ends as in a text file, whatever system wrote it.
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text.") from None
