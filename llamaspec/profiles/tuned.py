"""Whether the figures that a profile carries were measured on this machine, with these models."""

from collections.abc import Iterator, Sequence

from llamaspec.hub.models import LocalModel
from llamaspec.profiles.profile import Profile
from llamaspec.provenance import Machine, ModelRecord


def tuned_elsewhere(profile: Profile, machine: Machine) -> str | None:
    """The sentence that says so, with what differs; None for what was tuned here, or not at all."""
    if profile.provenance is None:
        return None
    differs = [
        f"{what} {then or 'none'}, here {now or 'none'}"
        for what, then, now in _conditions(profile.provenance.machine, machine)
        if then != now
    ]
    if not differs:
        return None
    return (
        f"{profile.name} was tuned elsewhere ({'; '.join(differs)}): its settings may not be the best here. "
        "`llamaspec tune -p PROFILE` finds this machine's."
    )


def tuned_with_others(profile: Profile, files: Sequence[LocalModel]) -> str | None:
    """The sentence that says that `files`, main and draft, are not those that were measured; else None."""
    if profile.provenance is None:
        return None
    records = (profile.provenance.main, profile.provenance.draft)
    others = [
        role
        for role, record, file in zip(("main", "draft"), records, files, strict=False)
        if record is None or not _is_recorded(record, file)
    ]
    if not others:
        return None
    return f"The figures of {profile.name} were measured with another {' and '.join(others)} model."


def _conditions(then: Machine, now: Machine) -> Iterator[tuple[str, str, str]]:
    yield "processor", then.cpu, now.cpu
    yield "cores", str(then.cores), str(now.cores)
    yield "GPUs", ", ".join(then.gpus), ", ".join(now.gpus)
    yield "system", then.os.partition(" ")[0], now.os.partition(" ")[0]
    yield "llama-cpp-python", then.binding, now.binding


def _is_recorded(record: ModelRecord, file: LocalModel) -> bool:
    """By hash where both are known: a local file is not read for this."""
    if record.sha256 and file.sha256:
        return record.sha256 == file.sha256
    return record.size == file.size
