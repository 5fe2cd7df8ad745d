"""Where profiles are found on this machine, and what overlays do to them."""

from pathlib import Path

import pytest

from llamaspec.errors import (
    ProfileError,
    ProfileNotFoundError,
    UsageError,
)
from llamaspec.hub.sources import WheelMirror
from llamaspec.profiles import (
    DEFAULT_PROFILE,
    dump,
    find,
    find_profile,
    library,
    list_entries,
    list_profiles,
    load_profile,
    overlay,
    parse_profile,
    shipped_folder,
    user_folder,
)
from llamaspec.profiles.document import MAX_BYTES
from llamaspec.settings import SpeculationSettings

TEXT = "schema: 1\nname: mine\nmain: {repo: owner/name, file: model.gguf}\n"
SHIPPED = [
    "llama-3.1-8b",
    "qwen2.5-coder-1.5b",
    "qwen2.5-coder-32b",
    "qwen2.5-coder-7b",
    "qwen3-8b",
    "smollm2-135m",
]


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration folder, and a working folder without files."""
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path / "config"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "config"


def put(path: Path, text: str = TEXT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# The shipped profiles


def test_what_is_shipped() -> None:
    assert [profile.name for profile in list_profiles()] == SHIPPED
    assert DEFAULT_PROFILE in SHIPPED
    for entry in list_entries():
        profile = entry.load()
        assert entry.shelf == "shipped"
        assert profile.description and profile.license
        for source in filter(None, (profile.main, profile.draft)):
            assert source.file.endswith(".gguf")
            assert (source.sha256 is None) == (source.size is None) == (source.revision == "main")
        assert parse_profile(dump(profile).encode(), "again") == profile


def test_the_default_pair_can_be_had_from_the_package_index() -> None:
    profile = find_profile(DEFAULT_PROFILE)
    assert profile.draft is not None
    for source, count in ((profile.main, 22), (profile.draft, 6)):
        (mirror,) = source.mirrors
        assert isinstance(mirror, WheelMirror)
        assert len({part.package for part in mirror.wheels}) == count
        for number, part in enumerate(mirror.wheels, start=1):
            assert part.package.endswith(f"-part{number}")
            assert part.member == f"{part.package.replace('-', '_')}/data/part{number:02}.bin"


def test_shipped_profiles_are_also_found_in_an_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "llamaspec"
    put(package / "_profiles" / "mine.yaml")
    monkeypatch.setattr(library, "__file__", str(package / "profiles" / "library.py"))
    assert shipped_folder().resolve() == (package / "_profiles").resolve()
    assert [profile.name for profile in list_profiles()] == ["mine"]


def test_the_build_puts_the_shipped_profiles_into_the_wheel() -> None:
    import tomllib

    build = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    included = build["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["profiles"] == "llamaspec/_profiles"


# By name and by path


def test_the_users_profile_goes_before_the_shipped_one(config: Path) -> None:
    assert user_folder() == config / "profiles"
    path = put(config / "profiles" / "qwen3-8b.yaml", TEXT.replace("mine", "qwen3-8b"))
    found = find("qwen3-8b")
    assert found.origin == str(path)
    assert found.profile.main.repo == "owner/name"
    assert [entry.shelf for entry in list_entries() if entry.name == "qwen3-8b"] == ["user"]
    assert len(list_entries()) == len(SHIPPED)


def test_without_the_variable_the_systems_folder_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLAMASPEC_CONFIG")
    assert user_folder().name == "profiles"
    assert user_folder().parent.name == "llamaspec"


def test_a_broken_profile_is_listed_and_does_not_hide_the_others(config: Path) -> None:
    put(config / "profiles" / "broken.yml", "schema: 1\n")
    assert "broken" in [entry.name for entry in list_entries()]
    assert [profile.name for profile in list_profiles()] == SHIPPED
    with pytest.raises(ProfileError, match=r"broken\.yml:1: main: is missing"):
        find_profile("broken")


def test_other_files_in_the_users_folder_are_no_profiles(config: Path) -> None:
    for name in ("notes.txt", "Upper Case.yaml", "x.yaml.bak", "a.yxml"):
        put(config / "profiles" / name)
    (config / "profiles" / "folder.yaml").mkdir()
    assert len(list_entries()) == len(SHIPPED)


def test_a_profile_must_be_called_as_its_file(config: Path) -> None:
    put(config / "profiles" / "yours.yaml")
    with pytest.raises(ProfileError, match="name: 'mine' is not the file's name") as caught:
        find_profile("yours")
    assert caught.value.hint == "Name the profile yours, or the file mine.yaml."


def test_by_path_the_file_may_be_called_anything(tmp_path: Path) -> None:
    path = put(tmp_path / "some where" / "Any Name.YAML")
    assert find_profile(str(path)).name == "mine"
    put(Path("local.yaml"))
    assert find("local.yaml").origin == "local.yaml"
    put(Path("a/b/c.yaml"))
    assert find_profile("a/b/c.yaml").name == "mine"
    put(Path("folder/without-suffix"))
    assert find_profile("folder/without-suffix").name == "mine"


def test_a_file_that_is_called_as_a_profile_does_not_hide_it() -> None:
    put(Path("qwen3-8b"))
    assert find_profile("qwen3-8b").main.repo == "Qwen/Qwen3-8B-GGUF"


@pytest.mark.parametrize(
    "reference", ["", "qwen9", "QWEN3-8B", "../x", "..", "a\0b", "x" * 5000, "x.yaml", "/no/x.yaml"]
)
def test_what_is_not_there_is_said_so(reference: str) -> None:
    with pytest.raises(ProfileNotFoundError, match="There is no profile"):
        find_profile(reference)


@pytest.mark.parametrize(
    "reference", ["../secret", "..\\secret", "profiles/../../secret", "~nobody-here/x.yaml"]
)
def test_names_do_not_climb_out_of_the_folders(reference: str, config: Path) -> None:
    put(config / "secret.yaml", TEXT.replace("mine", "secret"))
    (config / "profiles").mkdir()
    with pytest.raises(ProfileNotFoundError):
        find_profile(reference)


def test_near_names_are_offered() -> None:
    with pytest.raises(ProfileNotFoundError) as caught:
        find_profile("qwen2.5-coder-1.5")
    assert caught.value.hint.startswith("Did you mean qwen2.5-coder-1.5b or ")
    with pytest.raises(ProfileNotFoundError) as caught:
        find_profile("zzzz")
    assert "llamaspec profile list" in caught.value.hint


def test_folders_missing_files_and_large_files(tmp_path: Path) -> None:
    with pytest.raises(ProfileNotFoundError, match="no such file"):
        load_profile(tmp_path / "no.yaml")
    with pytest.raises(ProfileError, match="not a file"):
        load_profile(tmp_path)
    with pytest.raises(ProfileError, match="larger than 256 KiB"):
        load_profile(put(tmp_path / "large.yaml", "#" * (MAX_BYTES + 1)))


# Overlays


def test_an_overlay_wins_key_by_key_and_leaves_the_rest() -> None:
    profile = find_profile(DEFAULT_PROFILE)
    changed = overlay(
        profile,
        {
            "speculation": {"draft_max": 16},
            "runtime": {"gpu_layers": 12},
            "sampling": {"stop": ["x"]},
            "chat": {},
        },
    )
    assert changed.speculation.draft_max == 16
    assert changed.speculation.mode == "fixed"
    assert changed.speculation.p_min == profile.speculation.p_min
    assert changed.runtime.gpu_layers == 12
    assert changed.sampling.stop == ("x",)
    assert (changed.main, changed.draft, changed.chat) == (profile.main, profile.draft, profile.chat)
    assert profile.speculation.mode == "auto"
    assert profile.speculation.draft_max is None
    assert overlay(profile, {}) == profile


@pytest.mark.parametrize(
    ("own", "over", "mode", "draft_max"),
    [
        ({}, {"p_min": 0.5}, "fixed", None),
        ({"draft_max": 4}, {"mode": "auto"}, "auto", 4),
        ({"draft_max": 4}, {"drafters": ("ngram",)}, "fixed", 4),
        ({"mode": "auto", "draft_max": 4}, {"drafters": ("ngram",)}, "auto", 4),
        ({"mode": "off"}, {"draft_max": 6}, "fixed", 6),
        ({"mode": "off"}, {"corpus": "x"}, "off", None),
    ],
)
def test_the_mode_after_an_overlay(
    own: dict[str, object], over: dict[str, object], mode: str, draft_max: int | None
) -> None:
    profile = find_profile(DEFAULT_PROFILE)
    profile = profile.model_copy(update={"speculation": SpeculationSettings.model_validate(own)})
    changed = overlay(profile, {"speculation": over}).speculation
    assert (changed.mode, changed.draft_max) == (mode, draft_max)


# A corpus


def test_a_corpus_is_named_relative_to_the_profile(tmp_path: Path) -> None:
    text = TEXT + "speculation: {corpus: ../code, drafters: [corpus]}\n"
    path = put(tmp_path / "here" / "mine.yaml", text)
    profile = load_profile(path)
    assert profile.speculation.mode == "auto"
    assert profile.speculation.corpus == str(path.parent / "../code")
    elsewhere = text.replace("../code", str(tmp_path / "other"))
    assert load_profile(put(tmp_path / "mine.yaml", elsewhere)).speculation.corpus == str(tmp_path / "other")
    at_home = load_profile(put(tmp_path / "mine.yaml", text.replace("../code", "~/code")))
    assert at_home.speculation.corpus == "~/code", "where it is on this machine is found when it is loaded"


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("speculation", {"draft_max": 900}, "speculation.draft_max: 900 is above 64"),
        ("speculation", {"draft_min": 9}, "speculation: draft_min 9 is above draft_max 8"),
        ("runtime", {"device": 3}, 'runtime.device: must be text; it is 3: quote it, "3"'),
        ("runtime", {"ctx": 3}, "runtime.ctx: unknown key"),
        (
            "sampling",
            {"temperature": float("nan")},
            "sampling.temperature: must be a finite number; it is nan",
        ),
        ("server", {"port": 1}, "server: unknown key"),
    ],
)
def test_a_wrong_overlay_names_the_key(section: str, values: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        overlay(find_profile(DEFAULT_PROFILE), {section: values})
    assert caught.value.message == expected


def test_all_problems_of_an_overlay_are_told() -> None:
    with pytest.raises(UsageError) as caught:
        overlay(find_profile(DEFAULT_PROFILE), {"sampling": {"top_k": -1, "top_p": 2.0}})
    assert caught.value.message.splitlines() == [
        "sampling.top_k: -1 is below 0",
        "sampling.top_p: 2.0 is above 1",
    ]
