#!/usr/bin/env python3
"""The pairs that speeds are measured on, derived once from the default profile's pair and kept.

    set   main     draft    regime
    A     BF16     Q4_0     memory-bound, like a GPU or a desktop with many cores: speculation pays
    B     Q8_0     Q8_0     a common 8-bit pair
    C     as published      compute-bound on few cores: a draft model costs more than it earns

Usage: scripts/reference_sets.py [A] [B] [C] [--dir FOLDER] [--main GGUF --draft GGUF]
"""

import argparse
import sys
from pathlib import Path
from typing import NamedTuple

from llamaspec.errors import LlamaspecError, ModelFileError, UsageError
from llamaspec.gguf.header import read_header
from llamaspec.hub.cache import cache_root
from llamaspec.hub.fetch import fetch
from llamaspec.native.quantize import quantize
from llamaspec.profiles import DEFAULT_PROFILE, find_profile

Types = tuple[str | None, str | None]
SETS: dict[str, Types] = {"A": ("BF16", "Q4_0"), "B": ("Q8_0", "Q8_0"), "C": (None, None)}
"""The types of main and draft; None: the file as published."""


class Pair(NamedTuple):
    main: Path
    draft: Path


def default_folder() -> Path:
    return cache_root() / "reference-sets"


def published_pair() -> Pair:
    """The default profile's files, fetched if they are not here yet. Raises ModelFetchError."""
    profile = find_profile(DEFAULT_PROFILE)
    if profile.draft is None:
        raise UsageError(f"The profile {profile.name} has no draft.")
    return Pair(fetch(profile.main).path, fetch(profile.draft).path)


def reference_set(name: str, folder: Path | None = None, published: Pair | None = None) -> Pair:
    """The files of set `name`: derived into `folder` where they are not there yet, whole and of this pair."""
    source = published or published_pair()
    main, draft = SETS[name]
    folder = folder or default_folder()
    return Pair(_derived(source.main, main, folder), _derived(source.draft, draft, folder))


def add_pair_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a pair: a set, or its files."""
    parser.add_argument("--set", choices=SETS, help="reference set (default: A, where -m is not given)")
    parser.add_argument("--sets-dir", type=Path, help="where the reference sets are kept")
    parser.add_argument(
        "--published", nargs=2, type=Path, metavar=("MAIN", "DRAFT"), help="derive the set from these"
    )
    parser.add_argument("-m", "--model", type=Path, help="main model, in place of a set")
    parser.add_argument("-md", "--model-draft", type=Path, help="draft model")


def check_pair_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Ends the program, as a parser does, where they contradict each other."""
    if (options.model is None) != (options.model_draft is None) or (options.model and options.set):
        parser.error("give --set, or -m and -md together")


def chosen_pair(options: argparse.Namespace) -> Pair:
    """The files that the options name. Raises LlamaspecError where they can't be had."""
    if options.model:
        return Pair(options.model, options.model_draft)
    published = Pair(*options.published) if options.published else None
    return reference_set(options.set or "A", options.sets_dir, published)


def _derived(source: Path, type: str | None, folder: Path) -> Path:
    if type is None:
        return source
    target = folder / f"{source.stem}.{type}.gguf"
    if not _is_complete(target, source):
        print(f"Writing {target} …", file=sys.stderr)
        quantize(source, target, type)
    return target


def _is_complete(target: Path, source: Path) -> bool:
    """Whether the file is as long as its header promises, and has the tensors of `source`."""
    try:
        return _shapes(target) == _shapes(source)
    except ModelFileError:
        return False


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    return {tensor.name: tensor.shape for tensor in read_header(path).tensors}


def main() -> int:
    parser = argparse.ArgumentParser(description="Derive the reference sets and print their files.")
    parser.add_argument("sets", nargs="*", metavar="SET", help="A, B, C; all of them if none is given")
    parser.add_argument("--dir", type=Path, help=f"where to keep them (default: {default_folder()})")
    parser.add_argument("--main", type=Path, help="derive from this main model, not the default profile's")
    parser.add_argument("--draft", type=Path, help="and from this draft model")
    arguments = parser.parse_args()
    if unknown := set(arguments.sets) - set(SETS):
        parser.error(f"no such set: {', '.join(sorted(unknown))}")
    if (arguments.main is None) != (arguments.draft is None):
        parser.error("--main and --draft go together")
    try:
        published = Pair(arguments.main, arguments.draft) if arguments.main else published_pair()
        for name in arguments.sets or SETS:
            pair = reference_set(name, arguments.dir, published)
            print(f"{name}  main   {pair.main}\n{name}  draft  {pair.draft}")
    except LlamaspecError as error:
        print(f"{error.message} {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
