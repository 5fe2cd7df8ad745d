"""Settings by name."""

import pytest

from llamaspec.bench.naming import named, speculation
from llamaspec.errors import UsageError
from llamaspec.settings import SpeculationSettings


def test_names_stand_for_settings() -> None:
    settings = named(["plain", "plain", "default", "fixed:16:0.75", "auto:ngram+model", "profile"])
    assert settings == {
        "plain": {"mode": "off"},
        "plain#2": {"mode": "off"},
        "default": {"mode": "fixed", "draft_max": 3, "draft_min": 0, "p_min": 0.0},
        "fixed:16:0.75": {"mode": "fixed", "draft_max": 16, "draft_min": 0, "p_min": 0.75},
        "auto:ngram+model": {"mode": "auto", "drafters": ["ngram", "model"]},
        "profile": {},
    }
    for values in settings.values():
        SpeculationSettings.model_validate(values)


@pytest.mark.parametrize(
    "name", ["", "fast", "fixed", "fixed:a:b", "fixed:16", "fixed:999:0.5", "fixed:8:2", "auto:x", "plain:1"]
)
def test_other_names_mean_nothing(name: str) -> None:
    with pytest.raises(UsageError, match="is no setting"):
        speculation(name)
