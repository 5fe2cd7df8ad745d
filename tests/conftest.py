"""What holds for all tests: where home is, and that Ctrl-C is heard."""

import os
import signal
import site
import sys
import tempfile
from pathlib import Path

import pytest

from llamaspec.hub.cache import cache_root


def pytest_configure(config: pytest.Config) -> None:
    """No test writes into the home of whoever runs it: here it is another folder. Caches are the real ones.

    Before a test's module is imported: some packages look for their folders just once.
    """
    # Whoever is started in the background is told to ignore it, and so would be the programs under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    real = Path.home()
    home = tempfile.TemporaryDirectory(prefix="llamaspec-home-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    pip_settings = (real / ".config" / "pip" / "pip.conf", real / ".pip" / "pip.conf")
    found = {
        "LLAMASPEC_CACHE": cache_root(),
        "HF_HOME": Path(os.environ.get("XDG_CACHE_HOME") or real / ".cache") / "huggingface",
        "PYTHONUSERBASE": site.getuserbase(),
        "PIP_CONFIG_FILE": next((path for path in pip_settings if path.is_file()), None),
        "XDG_CACHE_HOME": real / ".cache" if sys.platform == "linux" else None,
    }
    for name, place in found.items():
        if place is not None:
            os.environ.setdefault(name, str(place))
    for name in ("LLAMASPEC_CONFIG", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        os.environ.pop(name, None)
    os.environ["HOME"] = os.environ["USERPROFILE"] = home.name
