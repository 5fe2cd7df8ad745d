"""The shipped catalogue of model families with small members that can draft for the others."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, StringConstraints

from llamaspec.gguf.header import Header
from llamaspec.hub.sources import RepoId, Size
from llamaspec.settings import Line, Settings

_FILE = Path(__file__).with_name("families.yaml")


class KnownDraft(Settings):
    """A small model that can be had."""

    repo: RepoId
    quant: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]+$")]
    size: Size

    @property
    def reference(self) -> str:
        """As `llamaspec pull` takes it."""
        return f"{self.repo}:{self.quant}"


class Family(Settings):
    """Models of one vocabulary, told by what their headers say."""

    name: Line
    architectures: tuple[Line, ...] = Field(min_length=1, strict=False)
    tokenizer: Line
    drafts: tuple[KnownDraft, ...] = Field(min_length=1, strict=False)

    def has(self, header: Header) -> bool:
        told = (header.text("tokenizer.ggml.pre"), header.text("tokenizer.ggml.model"))
        return header.text("general.architecture") in self.architectures and self.tokenizer in told


class _Catalogue(Settings):
    families: tuple[Family, ...] = Field(strict=False)


def families() -> tuple[Family, ...]:
    return _Catalogue.model_validate(yaml.safe_load(_FILE.read_text(encoding="utf-8"))).families


def known_drafts(main: Header) -> tuple[KnownDraft, ...]:
    """What may draft for a model; empty where its family is not known."""
    return next((family.drafts for family in families() if family.has(main)), ())
