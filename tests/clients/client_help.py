"""What the tests of client libraries have in common: the server, and things to ask for."""

import importlib
import os
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field

PATIENCE = 300.0  # seconds, of clients: the machine may be busy
COUNTING = "Count from 1 to 10, with a comma and a space between the numbers. Say nothing else."
COUNTED = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"
FIBONACCI = "def fibonacci(n):\n    if n < 2:\n        return n\n    return"
ABOUT_ANNA = "Anna is 31 years old and lives in Oslo. Describe her as JSON."
TOOL_USER = (
    "You are a helpful assistant. Call a tool where you need one. "
    "Once you have its response, answer in one plain English sentence."
)
ABOUT_ZOG = "What is the capital of the planet Zog?"


@dataclass(frozen=True)
class Served:
    """Where the server is, and what it calls its model."""

    url: str
    model: str

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"


class Person(BaseModel):
    """A person and where they live."""

    name: str
    age: int = Field(ge=0, le=150)
    city: str


def check_anna(person: Person) -> None:
    assert (person.name, person.age, person.city) == ("Anna", 31, "Oslo")


def capital_of(planet: str) -> str:
    """Look up the capital of a planet."""
    assert planet == "Zog"
    return "The capital of Zog is Blimp."


def check_capital(answer: str) -> None:
    """The answer has what only the tool could have told."""
    assert "Blimp" in answer


def client_library(name: str) -> Any:
    """The module of that name; without it the tests are skipped, or fail where everything has to be there."""
    if os.environ.get("LLAMASPEC_REQUIRE_MODELS") == "1":
        return importlib.import_module(name)
    return pytest.importorskip(name)
