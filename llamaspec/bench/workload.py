"""What is asked in a benchmark: a YAML file with a list of prompts, each of a kind.

description: what these prompts stand for
prompts:
  - name: csv-totals          # its own in the file
    kind: code
    prompt: Write a Python function that …
    n_predict: 200            # may be left out
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from llamaspec.errors import UsageError
from llamaspec.profiles.document import located, shown
from llamaspec.profiles.problems import dotted, find_problems
from llamaspec.settings import MAX_CONTEXT, Settings

DEFAULT_WORKLOAD = Path(__file__).parent / "workloads" / "default.yaml"

AND = " + "
"""Between the files in a workload's name."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 8
MAX_PROMPTS = 1000
MAX_PROMPT_LENGTH = 1 << 16

_SLUG = re.compile(r"^[a-z0-9]+(?:-[a-z0-9]+)*$")
Slug = Annotated[str, StringConstraints(pattern=_SLUG.pattern, max_length=64)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_PROMPT_LENGTH)]


class Prompt(Settings):
    """What a user says, before the chat template. `n_predict` bounds an answer that need not be long."""

    name: Slug
    kind: Slug
    prompt: Text
    n_predict: int | None = Field(None, ge=1, le=MAX_CONTEXT)

    def limit(self, n_predict: int) -> int:
        """The most tokens to predict in a run that asks for `n_predict`."""
        return n_predict if self.n_predict is None else min(n_predict, self.n_predict)


class Workload(Settings):
    """Prompts with names of their own, in the file's order."""

    description: str = ""
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=MAX_PROMPTS, strict=False)

    @model_validator(mode="after")
    def _names_differ(self) -> "Workload":
        twice = [name for name, count in Counter(p.name for p in self.prompts).items() if count > 1]
        if twice:
            raise ValueError(f"prompts of the same name: {', '.join(twice)}")
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the prompts, in order of their first."""
        return tuple(dict.fromkeys(prompt.kind for prompt in self.prompts))

    @property
    def sha256(self) -> str:
        """Of the prompts, whatever file they stood in."""
        text = json.dumps([prompt.model_dump() for prompt in self.prompts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def select(self, kinds: Collection[str] = (), per_kind: int | None = None) -> "Workload":
        """The prompts of `kinds` (none named: of all), of each kind the first `per_kind`.

        Raises UsageError for a kind that no prompt has, and for a `per_kind` under 1.
        """
        if unknown := [kind for kind in kinds if kind not in self.kinds]:
            raise UsageError(
                f"No prompt is of the kind {', '.join(unknown)}.", f"There are {', '.join(self.kinds)}."
            )
        if per_kind is not None and per_kind < 1:
            raise UsageError(f"At least one prompt of each kind is needed, not {per_kind}.")
        taken: Counter[str] = Counter()
        chosen = []
        for prompt in self.prompts:
            taken[prompt.kind] += 1
            if (not kinds or prompt.kind in kinds) and (per_kind is None or taken[prompt.kind] <= per_kind):
                chosen.append(prompt)
        return self.model_copy(update={"prompts": tuple(chosen)})


def load_workload(path: Path | None = None) -> Workload:
    """Read a workload; the shipped one where none is named.

    Raises UsageError: a line of its message for each thing wrong, with the file and the entry.
    """
    path = path or DEFAULT_WORKLOAD
    data = _read(path)
    try:
        return Workload.model_validate(data)
    except ValidationError as error:
        problems = (
            ": ".join(filter(None, (str(path), _place(key, data), text)))
            for key, text in find_problems(error, Workload, data, {})
        )
        raise UsageError("\n".join(problems)) from None


def choose_work(named: Sequence[str], per_kind: int | None = None) -> tuple[Workload, str]:
    """The prompts that files and kinds name, and a name for them.

    Kinds are of the files named beside them, else of the shipped workload. Of each kind the first
    `per_kind` prompts; where that is None one of the shipped ones, and all of a file's. Raises UsageError.
    """
    files = [Path(name) for name in named if _is_file(name)]
    kinds = [name for name in named if not _is_file(name)]
    works = [load_workload(path) for path in files] or [load_workload()]
    try:
        whole = Workload(prompts=tuple(prompt for work in works for prompt in work.prompts))
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UsageError(f"These workloads can't be measured together: {problem}.") from None
    chosen = whole.select(kinds, per_kind or (None if files else 1))
    name = AND.join(path.stem for path in files) or DEFAULT_WORKLOAD.stem
    return chosen, shown(name)


def _is_file(name: str) -> bool:
    """Kinds are slugs: whatever looks like a path is one, and so is what exists."""
    return not _SLUG.fullmatch(name) or Path(name).is_file()


def _read(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file that someone else may have written."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: can't be read: {error.strerror}.") from None
    if len(raw) > MAX_BYTES:
        raise UsageError(f"{path}: larger than {MAX_BYTES >> 10} KiB: not a workload.")
    try:
        text = raw.decode("utf-8-sig")
        _check_shape(text, path)
        data = yaml.safe_load(text)
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not UTF-8 text.", "Save the file as UTF-8.") from None
    except yaml.MarkedYAMLError as error:
        line, problem = located(error)
        raise UsageError(f"{path}:{line}: {problem}.") from None
    except yaml.YAMLError:  # its reader's
        raise UsageError(f"{path}: not valid YAML: it holds control characters.") from None
    except (ValueError, OverflowError):  # PyYAML's answer to numbers, dates and escapes out of range
        raise UsageError(f"{path}: not valid YAML: a value out of range.") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: a workload is a mapping with a list of prompts.")
    return data


def _check_shape(text: str, path: Path) -> None:
    """A few aliases can stand for more values than fit in memory, and deep nesting takes PyYAML for ever."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{path}: aliases (*) are not allowed in a workload.")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UsageError(f"{path}: nested too deeply for a workload.")


def _place(key: tuple[str | int, ...], data: dict[str, Any]) -> str:
    """`key` as it is said, with the name of the prompt it lies in: `prompts[3].kind (csv-totals)`."""
    name = None
    if len(key) > 1 and isinstance(key[1], int) and isinstance(entry := data["prompts"][key[1]], dict):
        name = entry.get("name")
    return dotted(key) + (f" ({shown(name)})" if isinstance(name, str) and key[-1] != "name" else "")
