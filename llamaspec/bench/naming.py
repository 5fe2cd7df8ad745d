"""Settings by name, as benchmarks compare them.

plain            no speculation: what the others are compared with
default          llama.cpp's defaults: drafts of 3 tokens, however improbable
fixed:MAX:PMIN   drafts of up to MAX tokens, ended where one is less probable than PMIN
auto             as llamaspec decides; auto:NAME+NAME with these drafters alone
profile          as the profile says
"""

import itertools
from collections.abc import Sequence

from llamaspec.errors import UsageError
from llamaspec.settings import SpeculationSettings

PLAIN, DEFAULT, FIXED, AUTO, OWN = "plain", "default", "fixed", "auto", "profile"
GRID = tuple(f"{FIXED}:{most}:{least}" for most, least in itertools.product((4, 8, 16), (0.5, 0.75, 0.9)))

_FORMS = "plain, default, fixed:MAX:PMIN, auto, auto:DRAFTER+DRAFTER and profile"


def speculation(setting: str) -> dict[str, object]:
    """The speculation settings that a name stands for. Raises UsageError for a name that means nothing."""
    try:
        values = _values(setting)
        SpeculationSettings.model_validate(values)
    except ValueError:
        raise UsageError(f"{setting!r} is no setting.", f"There are {_FORMS}.") from None
    return values


def named(settings: Sequence[str]) -> dict[str, dict[str, object]]:
    """Name → speculation settings; what is listed again gets a number: `plain`, `plain#2`."""
    chosen: dict[str, dict[str, object]] = {}
    for setting in settings:
        copies = sum(name.split("#")[0] == setting for name in chosen)
        chosen[f"{setting}#{copies + 1}" if copies else setting] = speculation(setting)
    return chosen


def _values(setting: str) -> dict[str, object]:
    match setting.split(":"):
        case ["plain"]:
            return {"mode": "off"}
        case ["default"]:
            return {"mode": "fixed", "draft_max": 3, "draft_min": 0, "p_min": 0.0}
        case ["fixed", most, least]:
            return {"mode": "fixed", "draft_max": int(most), "draft_min": 0, "p_min": float(least)}
        case ["auto"]:
            return {"mode": "auto"}
        case ["auto", drafters]:
            return {"mode": "auto", "drafters": drafters.split("+")}
        case ["profile"]:
            return {}
    raise ValueError(setting)
