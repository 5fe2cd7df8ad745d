#!/usr/bin/env python3
"""Everything that has to hold before a change goes in, but the tests: lint, format, types.

Usage: scripts/check.py [--fix]
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    fix = "--fix" in sys.argv[1:]
    checks = (
        ["ruff", "check", *(["--fix"] if fix else []), "."],
        ["ruff", "format", *([] if fix else ["--check"]), "."],
        ["mypy"],
    )
    failed = 0
    for check in checks:
        print(f"$ {' '.join(check)}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *check], cwd=ROOT, check=False).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
