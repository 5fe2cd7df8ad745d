"""What flags and environment say about speculation."""

from typing import Any

import pytest
import typer
from pydantic import ValidationError
from typer.testing import CliRunner

from llamaspec.cli import options as o
from llamaspec.errors import UsageError
from llamaspec.settings import SpeculationSettings, with_mode

RUNNER = CliRunner()


def said(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The speculation settings that a command with these options gets."""
    app, found = typer.Typer(), {}

    @app.command()
    def command(
        context: typer.Context,
        mode: o.Spec = None,
        no_spec: o.NoSpec = False,
        drafters: o.Drafters = None,
        corpus: o.Corpus = None,
        draft_max: o.DraftMax = None,
        draft_min: o.DraftMin = None,
        p_min: o.PMin = None,
    ) -> None:
        found.update(o.speculation(context.params, o.given(context)))

    result = RUNNER.invoke(app, arguments, env=env, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return found


@pytest.mark.parametrize(
    ("arguments", "env", "expected"),
    [
        ("", {}, {}),
        ("--spec auto --draft-max 9", {}, {"mode": "auto", "draft_max": 9}),
        ("--draft-max 9", {}, {"draft_max": 9}),
        ("--no-spec", {}, {"mode": "off"}),
        ("--no-spec --spec off", {}, {"mode": "off"}),
        ("--no-spec", {"LLAMASPEC_SPEC": "auto"}, {"mode": "off"}),
        ("", {"LLAMASPEC_SPEC": "fixed"}, {"mode": "fixed"}),
        ("--draft-p-min 0.5", {"LLAMASPEC_SPEC": "auto"}, {"p_min": 0.5}),
        ("--spec auto", {"LLAMASPEC_DRAFT_MAX": "3"}, {"mode": "auto", "draft_max": 3}),
        ("--drafters ngram,model", {}, {"drafters": ("ngram", "model")}),
        ("--drafters ngram", {"LLAMASPEC_DRAFTERS": "model"}, {"drafters": ("ngram",)}),
        ("", {"LLAMASPEC_DRAFTERS": "model, ngram"}, {"drafters": ("model", "ngram")}),
        ("", {"LLAMASPEC_CORPUS": "here"}, {"corpus": "here"}),
    ],
)
def test_a_flag_wins_over_the_environment(
    arguments: str, env: dict[str, str], expected: dict[str, Any]
) -> None:
    assert said(*arguments.split(), env=env) == expected


@pytest.mark.parametrize("mode", ["auto", "fixed"])
def test_a_contradiction_is_refused(mode: str) -> None:
    with pytest.raises(UsageError, match="contradict"):
        said("--no-spec", "--spec", mode)


@pytest.mark.parametrize(
    ("given", "mode", "ceiling"),
    [
        ({}, "auto", 32),
        ({"draft_max": 8}, "fixed", 8),
        ({"p_min": 0.75}, "fixed", 8),
        ({"draft_min": 0}, "fixed", 8),
        ({"draft_max": None}, "auto", 32),
        ({"draft_max": 8, "mode": "auto"}, "auto", 8),
        ({"draft_max": 8, "mode": "off"}, "off", 0),
        ({"drafters": ("ngram",)}, "auto", 32),
    ],
)
def test_naming_what_llama_cpp_has_means_fixed(given: dict[str, Any], mode: str, ceiling: int) -> None:
    settings = SpeculationSettings(**given)
    assert (settings.mode, settings.ceiling) == (mode, ceiling)
    assert with_mode(given).get("mode", "auto") == mode


def test_settings_that_cannot_be_met_are_refused() -> None:
    for wrong in (
        {"drafters": ("corpus",)},
        {"drafters": ("model", "model")},
        {"drafters": ("other",)},
        {"mode": "fixed", "draft_min": 9},
    ):
        with pytest.raises(ValidationError):
            SpeculationSettings(**wrong)
    assert SpeculationSettings(mode="auto", draft_min=40).ceiling == 32
