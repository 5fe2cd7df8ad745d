"""What was measured of a pair on this machine, kept in the cache from one start to the next.

One JSON file for each combination of files, build and settings that prices depend on. It only ever
saves time: a file that is missing, damaged or of another version is as if nothing was known.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from typing import Any

from llamaspec.control.auto import Knowledge
from llamaspec.hub.cache import cache_root
from llamaspec.replacing import replacing

_VERSION = 1

log = logging.getLogger(__name__)


class Remembered:
    """The place of one pair's knowledge. `of` says what it depends on, as plain data."""

    def __init__(self, of: Mapping[str, Any]) -> None:
        text = json.dumps([_VERSION, of], sort_keys=True, default=str)
        self.path = cache_root() / "measured" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"

    def load(self) -> Knowledge:
        """What is known; nothing where there is no file, or none that can be read."""
        knowledge = Knowledge()
        try:
            knowledge.restore(json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return knowledge
        except Exception:  # whatever is wrong with a cache file, it is of no use
            log.info("What was measured before can't be read, and is measured again (%s).", self.path.name)
            return Knowledge()
        return knowledge

    def save(self, knowledge: Knowledge) -> None:
        """Best effort, and complete or not at all. Prices that no longer fit are left out."""
        data = knowledge.as_dict()
        if not knowledge.prices.fit:
            data["prices"] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as partial:
                partial.write_text(json.dumps(data), encoding="utf-8")
        except OSError as error:
            log.info("What was measured can't be kept: %s.", error)
