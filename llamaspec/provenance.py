"""Where measured figures come from: the machine, the models, the work and the method.

A profile that was tuned carries it, and so does a report. It holds no path, host name or user name.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from llamaspec.figures import Figure, Ratio
from llamaspec.settings import MAX_CONTEXT, KVType, Line, Settings

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Day = Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
Bytes = Annotated[int, Field(ge=0, le=1 << 60)]


class Machine(Settings):
    """What decoding runs on. `backends` are those of the build, `gpus` what it can use."""

    os: Line
    cpu: Line
    cores: int = Field(ge=1, le=1 << 16, description="physical ones")
    memory_bytes: Bytes
    gpus: tuple[Line, ...] = Field((), max_length=64, strict=False)
    backends: tuple[Line, ...] = Field((), max_length=16, strict=False)
    binding: Line = Field(description="version of llama-cpp-python")


class ModelRecord(Settings):
    """A file that was measured: its name alone, never where it was."""

    file: Line
    size: Bytes
    sha256: Sha256 | None = None
    quantisation: Line = ""


class WorkRecord(Settings):
    """What was asked, and how often."""

    name: Line
    sha256: Sha256 | None = None
    prompts: int = Field(ge=1)
    kinds: tuple[Line, ...] = Field((), max_length=64, strict=False)
    n_predict: int = Field(ge=1, le=MAX_CONTEXT)
    repeat: int = Field(1, ge=1)


class Provenance(Settings):
    """How a profile's settings were found. Speeds in tokens per second."""

    made_by: Line = Field(description="program and version")
    date: Day
    machine: Machine
    main: ModelRecord
    draft: ModelRecord | None = None
    context: int = Field(ge=1, le=MAX_CONTEXT)
    cache_type_k: KVType = "f16"
    cache_type_v: KVType = "f16"
    work: WorkRecord
    method: Line
    memory_free_before: Bytes
    memory_free_after: Bytes
    plain: Figure
    speculative: Figure
    speedup: Ratio
