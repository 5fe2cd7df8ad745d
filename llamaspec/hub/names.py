"""What the names of GGUF files say: quantisation and shards. Conventions, no format."""

import re
from collections.abc import Iterable

from llamaspec.errors import ModelNotFoundError, UsageError

MAX_SHARDS = 1000
_SHARD = re.compile(r"^(?P<stem>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf$", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:UD-)?I?Q\d_[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*|TQ\d_\d|BF16|F16|F32|MXFP4)(?![A-Za-z0-9])",
    re.IGNORECASE,
)


def is_gguf(name: str) -> bool:
    return name.lower().endswith(".gguf")


def shard_names(name: str) -> list[str]:
    """All files of the model that `name` is a file of, in order: just itself unless it is split."""
    if (shard := _SHARD.match(name)) is None:
        return [name]
    count = int(shard["count"])
    if not 1 <= int(shard["index"]) <= count <= MAX_SHARDS:
        return [name]
    suffix = name[-len(".gguf") :]
    return [f"{shard['stem']}-{index:05}-of-{count:05}{suffix}" for index in range(1, count + 1)]


def whole_models(names: Iterable[str]) -> list[str]:
    """One name for each model among `names`: unsplit files, and first shards of complete sets."""
    present = set(names)
    models = {
        shards[0] for name in present if is_gguf(name) and present.issuperset(shards := shard_names(name))
    }
    return sorted(models)


def quantisation(name: str) -> str | None:
    """The quantisation that a file name ends in, such as `Q4_K_M`; None if it names none."""
    found = _QUANT.findall(name)
    return found[-1].upper() if found else None


def requantised_name(name: str, type: str) -> str:
    """The file name of model `name` stored as `type`: `x-q8_0.gguf` becomes `x.Q4_0.gguf`."""
    stem = name[: -len(".gguf")] if is_gguf(name) else name
    if shard := _SHARD.match(name):
        stem = shard["stem"]
    *_, last = [None, *_QUANT.finditer(stem)]
    if last and last.end() == len(stem):
        stem = stem[: last.start()].rstrip("-._") or stem
    return f"{stem}.{type}.gguf"


def pick_quantisation(names: Iterable[str], quant: str, repo: str) -> str:
    """The one model among `names` whose name holds `quant` as a whole token, whatever its case.

    An unsplit file goes before a set of shards; vision projectors are no models.

    Raises:
        ModelNotFoundError: none holds it. UsageError: several do.
    """
    # "Q4_K" is not in "Q4_K_M", nor "Q4_XS" in "IQ4_XS", but "model_q4_k_m" holds Q4_K_M.
    token = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quant)}(?![A-Za-z0-9_])", re.IGNORECASE)
    models = [name for name in whole_models(names) if not name.rpartition("/")[2].startswith("mmproj")]
    matches = [name for name in models if token.search(name[: -len(".gguf")])]
    unsplit = [name for name in matches if len(shard_names(name)) == 1]
    match unsplit or matches:
        case [name]:
            return name
        case []:
            there = ", ".join(models) or "no GGUF files"
            raise ModelNotFoundError(f"{repo} has no {quant} model.", f"It has: {there}.")
        case several:
            raise UsageError(
                f"{repo} has several {quant} models.", f"Name one as {repo}/FILE: {', '.join(several)}."
            )
