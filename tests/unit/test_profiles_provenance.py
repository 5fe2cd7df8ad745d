"""What a profile says about how it was tuned, and whether that was here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaspec import session
from llamaspec.errors import ProfileError
from llamaspec.figures import Figure, Ratio
from llamaspec.hub.models import LocalModel
from llamaspec.profiles import Profile, dump, json_schema, parse_profile
from llamaspec.profiles.sharing import share
from llamaspec.profiles.tuned import tuned_elsewhere, tuned_with_others
from llamaspec.provenance import Machine, ModelRecord, Provenance, WorkRecord

MACHINE = Machine(
    os="Linux 6.1 x86_64",
    cpu="A Processor",
    cores=8,
    memory_bytes=1 << 34,
    gpus=("A GPU",),
    backends=("CPU", "CUDA"),
    binding="0.3.36",
)
PROVENANCE = Provenance(
    made_by="llamaspec 0.1.0 tune",
    date="2026-01-31",
    machine=MACHINE,
    main=ModelRecord(file="main.gguf", size=1000, sha256="a" * 64, quantisation="Q4_K_M"),
    draft=ModelRecord(file="draft.gguf", size=100, sha256="b" * 64),
    context=4096,
    work=WorkRecord(name="shipped", prompts=8, kinds=("code", "chat"), n_predict=128),
    method="interleaved rounds",
    memory_free_before=1 << 33,
    memory_free_after=1 << 32,
    plain=Figure(value=9.79, spread=0.22, count=8),
    speculative=Figure(value=15.0, spread=1e-7, count=8),
    speedup=Ratio(value=1.53, low=1.4, high=1.7, count=8),
)
PROFILE = Profile.model_validate(
    {
        "schema": 1,
        "name": "mine",
        "main": {"repo": "owner/name", "file": "main.gguf"},
        "provenance": PROVENANCE,
    }
)

LINES = st.text(st.characters(categories=["L", "M", "N", "P", "S"]) | st.just(" "), max_size=20)
BYTES = st.integers(0, 1 << 60)
SHAS = st.none() | st.text("0123456789abcdef", min_size=64, max_size=64)
COUNTS = st.integers(1, 1 << 40)
POSITIVE = st.floats(0, exclude_min=True, allow_infinity=False, allow_nan=False)
RECORDS = st.builds(ModelRecord, file=LINES, size=BYTES, sha256=SHAS, quantisation=LINES)
FIGURES = st.builds(
    Figure,
    value=st.floats(allow_nan=False, allow_infinity=False),
    spread=st.just(0.0) | POSITIVE,
    count=COUNTS,
)
PROVENANCES = st.builds(
    Provenance,
    made_by=LINES,
    date=st.dates().map(str),
    machine=st.builds(
        Machine,
        os=LINES,
        cpu=LINES,
        cores=st.integers(1, 1 << 16),
        memory_bytes=BYTES,
        gpus=st.lists(LINES, max_size=3).map(tuple),
        backends=st.lists(LINES, max_size=3).map(tuple),
        binding=LINES,
    ),
    main=RECORDS,
    draft=st.none() | RECORDS,
    context=st.integers(1, 1 << 24),
    cache_type_k=st.sampled_from(["f16", "q8_0"]),
    cache_type_v=st.sampled_from(["f16", "q4_0"]),
    work=st.builds(
        WorkRecord,
        name=LINES,
        sha256=SHAS,
        prompts=COUNTS,
        kinds=st.lists(LINES, max_size=3).map(tuple),
        n_predict=st.integers(1, 1 << 24),
        repeat=COUNTS,
    ),
    method=LINES,
    memory_free_before=BYTES,
    memory_free_after=BYTES,
    plain=FIGURES,
    speculative=FIGURES,
    speedup=st.builds(Ratio, value=POSITIVE, low=st.just(0.0) | POSITIVE, high=POSITIVE, count=COUNTS),
)


@settings(deadline=None, max_examples=30)
@given(PROVENANCES)
def test_it_is_read_back_as_it_was_written(provenance: Provenance) -> None:
    profile = PROFILE.model_copy(update={"provenance": provenance})
    for full in (False, True):
        assert parse_profile(dump(profile, full=full).encode(), "x") == profile


def test_it_is_shared_and_described_for_editors() -> None:
    assert share(PROFILE).profile.provenance == PROVENANCE
    schema = json_schema()
    assert "Provenance" in schema["$defs"] and "provenance" in schema["properties"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("date: yesterday", "provenance.date: 'yesterday' is not"),
        ("context: 0", "provenance.context: 0 is below 1"),
        (
            "memory_free_after: 99999999999999999999",
            "provenance.memory_free_after: 99999999999999999999 is above",
        ),
        ("host: here", "provenance.host: unknown key"),
    ],
)
def test_it_is_checked_like_the_rest(change: str, problem: str) -> None:
    key = change.partition(":")[0]
    lines = [line for line in dump(PROFILE).splitlines() if not line.startswith(f"  {key}:")]
    with pytest.raises(ProfileError) as caught:
        parse_profile("\n".join([*lines, f"  {change}"]).encode(), "x")
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cpu": "Another"}, "processor A Processor, here Another"),
        ({"cores": 2}, "cores 8, here 2"),
        ({"gpus": ()}, "GPUs A GPU, here none"),
        ({"os": "Darwin 25 arm64"}, "system Linux, here Darwin"),
        ({"binding": "0.3.37"}, "llama-cpp-python 0.3.36, here 0.3.37"),
        ({"cores": 2, "cpu": "Another"}, "processor A Processor, here Another; cores 8, here 2"),
    ],
)
def test_another_machine_is_told_with_what_differs(change: dict[str, Any], told: str) -> None:
    sentence = tuned_elsewhere(PROFILE, MACHINE.model_copy(update=change))
    assert sentence is not None
    assert f"mine was tuned elsewhere ({told})" in sentence
    assert "`llamaspec tune -p PROFILE`" in sentence


def test_the_same_machine_is_not_spoken_of() -> None:
    newer = MACHINE.model_copy(
        update={"os": "Linux 6.2 x86_64", "memory_bytes": 1 << 33, "backends": ("CPU",)}
    )
    assert tuned_elsewhere(PROFILE, newer) is None
    untuned = PROFILE.model_copy(update={"provenance": None})
    assert tuned_elsewhere(untuned, MACHINE.model_copy(update={"cores": 1})) is None
    assert tuned_with_others(untuned, [LocalModel(Path("x"), None, 1, "")]) is None


def test_other_models_than_those_that_were_measured_are_told() -> None:
    main = LocalModel(Path("main.gguf"), "a" * 64, 1000, "")
    draft = LocalModel(Path("draft.gguf"), None, 100, "")
    assert tuned_with_others(PROFILE, [main, draft]) is None
    assert tuned_with_others(PROFILE, [main]) is None
    told = tuned_with_others(PROFILE, [replace(main, sha256="c" * 64), replace(draft, size=101)])
    assert told == "The figures of mine were measured with another main and draft model."
    without = PROFILE.model_copy(update={"provenance": PROVENANCE.model_copy(update={"draft": None})})
    assert tuned_with_others(without, [main, draft]) is not None


def test_it_is_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(session, "_told", set())
    monkeypatch.setattr(session, "describe_machine", lambda: MACHINE.model_copy(update={"cores": 4}))
    files = [LocalModel(Path("main.gguf"), "a" * 64, 1000, "")]
    monkeypatch.setattr(session.log, "propagate", True)
    with caplog.at_level("WARNING", logger="llamaspec.session"):
        for _ in range(3):
            session._tell_where_tuned(PROFILE, files)
    assert len(caplog.messages) == 1
    assert "mine was tuned elsewhere (cores 8, here 4)" in caplog.messages[0]
