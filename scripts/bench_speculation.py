#!/usr/bin/env python3
"""`llamaspec bench` on a reference set, or on the shipped model that has no draft.

What is not named here goes on to `llamaspec bench`.

Usage: scripts/bench_speculation.py --set A --settings default,fixed:16:0.75,auto -n 128 --prompts 4
       scripts/bench_speculation.py --set C --workload edit --workload json --json result.json
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_sets import SETS, Pair, reference_set

from llamaspec.cli import main as llamaspec
from llamaspec.errors import LlamaspecError
from llamaspec.hub.fetch import fetch
from llamaspec.profiles import find_profile

SMALL = "smollm2"
SMALL_PROFILE = "smollm2-135m"


def model_files(options: argparse.Namespace) -> tuple[Path, Path | None]:
    """Main and, unless there is none, draft; fetched or derived where they are not here yet."""
    if options.model:
        return options.model, options.model_draft
    if options.set == SMALL:
        return fetch(find_profile(SMALL_PROFILE).main).path, None
    published = Pair(*options.published) if options.published else None
    return reference_set(options.set or "A", options.sets_dir, published)


def bench_arguments(arguments: Sequence[str]) -> list[str]:
    """What `llamaspec` is called with. Raises LlamaspecError where the models can't be had."""
    parser = argparse.ArgumentParser(
        description="llamaspec bench on a reference set; its options follow.", allow_abbrev=False
    )
    parser.add_argument("--set", choices=[*SETS, SMALL], default="A", help="reference set (default: A)")
    parser.add_argument("--sets-dir", type=Path, help="where the reference sets are kept")
    parser.add_argument(
        "--published", nargs=2, type=Path, metavar=("MAIN", "DRAFT"), help="derive the set from these"
    )
    parser.set_defaults(model=None)
    options, others = parser.parse_known_args(arguments)
    main, draft = model_files(options)
    return ["bench", "-m", str(main), *(["-md", str(draft)] if draft else []), *others]


def main() -> int:
    try:
        sys.argv[1:] = bench_arguments(sys.argv[1:])
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    llamaspec()
    return 0


if __name__ == "__main__":
    sys.exit(main())
