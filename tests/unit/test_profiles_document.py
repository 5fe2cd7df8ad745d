"""Profiles as text: what is refused, with file, line and key, and what is read as what."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamaspec.errors import ProfileError
from llamaspec.profiles import Profile, dump, parse_profile
from llamaspec.profiles.document import MAX_BYTES, read_document

MINIMAL = """\
schema: 1
name: mine
main: {repo: owner/name, file: model.gguf}
"""
SHA = "a" * 64


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text if isinstance(text, bytes) else text.encode(), "my.yaml")
    return caught.value.message.splitlines()


def parsed(extra: str = "") -> Profile:
    return parse_profile((MINIMAL + extra).encode(), "my.yaml")


def test_only_schema_name_and_main_are_needed() -> None:
    profile = parsed()
    assert (profile.name, profile.main.file, profile.draft) == ("mine", "model.gguf", None)
    assert problems_of("description: x\n") == [
        "my.yaml:1: main: is missing",
        "my.yaml:1: name: is missing",
        "my.yaml:1: schema: is missing",
    ]


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("speculation:\n  draft_max: 900\n", "my.yaml:5: speculation.draft_max: 900 is above 64"),
        ("speculation:\n  draft_min: -1\n", "my.yaml:5: speculation.draft_min: -1 is below 0"),
        ("sampling:\n  repeat_penalty: 0\n", "my.yaml:5: sampling.repeat_penalty: 0 is below 0.01"),
        (
            "speculation: {draft_max: 2, draft_min: 3}\n",
            "my.yaml:4: speculation: draft_min 3 is above draft_max 2",
        ),
        (
            "sampling:\n  temperature: .nan\n",
            "my.yaml:5: sampling.temperature: must be a finite number; it is .nan",
        ),
        (
            "sampling:\n  temperature: -.inf\n",
            "my.yaml:5: sampling.temperature: must be a finite number; it is -.inf",
        ),
        ("draft:\n  repo: a/b\n", "my.yaml:4: draft.file: is missing"),
        (
            "runtime:\n  gpu_layer: 3\n",
            "my.yaml:5: runtime.gpu_layer: unknown key: did you mean gpu_layers?",
        ),
        ("drafter: {}\n", "my.yaml:4: drafter: unknown key: did you mean draft?"),
        ("xyzzy: 1\n", "my.yaml:4: xyzzy: unknown key"),
        ("<<: {a: 1}\n", "my.yaml:4: <<: unknown key"),
        (
            "runtime:\n  gpu_layers: most\n",
            "my.yaml:5: runtime.gpu_layers: must be a whole number, auto or all; it is 'most'",
        ),
        ("runtime:\n  gpu_layers: -4\n", "my.yaml:5: runtime.gpu_layers: -4 is below 0"),
        (
            "runtime:\n  flash_attn: true\n",
            "my.yaml:5: runtime.flash_attn: must be auto, on or off; it is true",
        ),
        ("runtime:\n  device: ''\n", "my.yaml:5: runtime.device: is empty"),
        (
            "runtime:\n  ctx_size: '4096'\n",
            "my.yaml:5: runtime.ctx_size: must be a whole number; it is '4096'",
        ),
        (
            "runtime:\n  ctx_size: 4096.0\n",
            "my.yaml:5: runtime.ctx_size: must be a whole number; it is 4096.0",
        ),
        ("runtime:\n  ctx_size:\n", "my.yaml:5: runtime.ctx_size: has no value"),
        ("runtime: []\n", "my.yaml:4: runtime: must be a mapping of keys; it is a list"),
        ("chat:\n", "my.yaml:4: chat: has no value"),
        ("sampling:\n  stop: x\n", "my.yaml:5: sampling.stop: must be a list; it is 'x'"),
        (
            "sampling:\n  stop:\n    - a\n    - 5\n",
            'my.yaml:7: sampling.stop[1]: must be text; it is 5: quote it, "5"',
        ),
        (
            "sampling:\n  ignore_eos: yes\n",
            "my.yaml:5: sampling.ignore_eos: must be true or false; it is 'yes'",
        ),
        ("sampling:\n  top_k: 0777\n", "my.yaml:5: sampling.top_k: must be a whole number; it is '0777'"),
        ("sampling:\n  top_k: 1_000\n", "my.yaml:5: sampling.top_k: must be a whole number; it is '1_000'"),
        ("license: 0.20\n", 'my.yaml:4: license: must be text; it is 0.20: quote it, "0.20"'),
        ("license: true\n", 'my.yaml:4: license: must be text; it is true: quote it, "true"'),
        ('license: "a\\e[31m"\n', "my.yaml:4: license: must be one line of printable text"),
        ("description: " + "x" * 501 + "\n", "my.yaml:4: description: longer than 500"),
        ('"a\\e[31m": 1\n', "my.yaml:4: a\\x1b[31m: unknown key"),
        ("a" * 300 + ": 1\n", "my.yaml:4: " + "a" * 57 + "…: unknown key"),
    ],
)
def test_a_wrong_value_is_named_with_file_line_and_key(extra: str, expected: str) -> None:
    assert problems_of(MINIMAL + extra) == [expected]


def test_every_problem_is_listed_in_the_order_of_the_file() -> None:
    text = f"""\
schema: 2
name: My Profile
main:
  repo: no-owner
  file: ../../etc/passwd
  revision: 1234567
  sha256: {SHA.upper()}
  size: 0
  mirrors:
    - wheels:
        - {{package: p, version: 0.20, member: a/b, extra: 1}}
    - wheels: []
    - repo: a/b
      fil: c
    - 5
speculation:
  mode: adaptive
"""
    assert problems_of(text) == [
        "my.yaml:1: schema: must be 1; it is 2",
        "my.yaml:2: name: 'My Profile' is not lower-case letters and digits, joined by '.', '-' or '_'",
        "my.yaml:4: main.repo: 'no-owner' is not owner/name",
        "my.yaml:5: main.file: '../../etc/passwd' is not a plain relative file name",
        'my.yaml:6: main.revision: must be text; it is 1234567: quote it, "1234567"',
        f"my.yaml:7: main.sha256: '{'A' * 57}…' is not 64 lower-case hexadecimal digits",
        "my.yaml:8: main.size: 0 is below 1",
        "my.yaml:11: main.mirrors[0].wheels[0].extra: unknown key",
        'my.yaml:11: main.mirrors[0].wheels[0].version: must be text; it is 0.20: quote it, "0.20"',
        "my.yaml:12: main.mirrors[1].wheels: is empty",
        "my.yaml:13: main.mirrors[2].file: is missing",
        "my.yaml:14: main.mirrors[2].fil: unknown key: did you mean file?",
        "my.yaml:15: main.mirrors[3]: must be a mapping of keys; it is 5",
        "my.yaml:17: speculation.mode: must be auto, fixed or off; it is 'adaptive'",
    ]


def test_thousands_of_problems_are_not_all_told() -> None:
    lines = problems_of(MINIMAL + "".join(f"key{number}: 1\n" for number in range(5000)))
    assert len(lines) == 101
    assert lines[-1] == "my.yaml: … and 4900 more"


@pytest.mark.parametrize(
    "name",
    ["../x", "..\\x", "/x", "C:\\x", "a/../../x", "C:x", "\\\\host\\share\\x", "a//b", ".", "con.gguf"],
)
@pytest.mark.parametrize("where", ["file", "member"])
def test_names_that_climb_are_refused(name: str, where: str) -> None:
    file, member = (name, "m") if where == "file" else ("f", name)
    text = f"""\
schema: 1
name: mine
main:
  repo: a/b
  file: '{file}'
  sha256: {SHA}
  mirrors:
    - wheels: [{{package: p, version: '1.0', member: '{member}'}}]
"""
    (problem,) = problems_of(text)
    assert "is not a plain relative file name" in problem
    assert (".file:" if where == "file" else ".member:") in problem


def test_a_wheel_mirror_needs_a_hash() -> None:
    text = """\
schema: 1
name: mine
main:
  repo: a/b
  file: f
  mirrors: [{wheels: [{package: p, version: '1.0', member: m}]}]
"""
    assert problems_of(text) == ["my.yaml:3: main: a wheel mirror needs the file's sha256"]


def bomb() -> str:
    layers = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
    return "l0: &l0 [x, x, x]\n" + layers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (bomb(), "my.yaml:1: anchors and aliases (& and *) are not allowed in a profile"),
        ("a: &a [*a]\n", "my.yaml:1: anchors and aliases (& and *) are not allowed in a profile"),
        ("a: 1\nb: *a\n", "my.yaml:2: anchors and aliases (& and *) are not allowed in a profile"),
        (
            "a: 1\nb: !!python/object/apply:os.system ['true']\n",
            "my.yaml:2: tags are not allowed in a profile: tag:yaml.org,2002:python/object/apply:os.system",
        ),
        ("a: !!str 5\n", "my.yaml:1: tags are not allowed in a profile: tag:yaml.org,2002:str"),
        ("a: ! 5\n", "my.yaml:1: tags are not allowed in a profile: !"),
        ("a: !mine {b: 1}\n", "my.yaml:1: tags are not allowed in a profile: !mine"),
        ("a: " + "[" * 50_000, "my.yaml:1: nested too deeply for a profile"),
        (
            "a:\n" + "".join(" " * n + "b:\n" for n in range(1, 300)),
            "my.yaml:12: nested too deeply for a profile",
        ),
        ("a: [" + "0," * 30_000 + "]", "my.yaml:1: too many values for a profile"),
        ("schema: 1\nname: a\nschema: 1\n", "my.yaml:3: schema: given twice"),
        ("a:\n  b: 1\n  c: {d: 1, d: 2}\n", "my.yaml:3: a.c.d: given twice"),
        ("1: a\n", "my.yaml:1: a key must be text, not 1"),
        ("true: a\n", "my.yaml:1: a key must be text, not true"),
        ("? [a, b]\n: c\n", "my.yaml:1: a key must be text, not a list"),
        ("~: a\n", "my.yaml:1: a key must be text, not ~"),
        ("- a\n- b\n", "my.yaml:1: a profile is a mapping of keys, not a list"),
        ("# comment\n\nhello\n", "my.yaml:3: a profile is a mapping of keys, not a single value"),
        ("", "my.yaml: the file is empty"),
        ("# nothing but a comment\n", "my.yaml: the file is empty"),
        (
            "a: 1\n---\nb: 2\n",
            "my.yaml:2: not valid YAML: expected a single document in the stream, but found",
        ),
        ("a: 1\nb: [1, 2\nc: 3\n", "my.yaml:3: not valid YAML: while parsing a flow sequence"),
        (
            "a:\n\t- b\n",
            "my.yaml:2: not valid YAML: while scanning for the next token, found character '\\t'",
        ),
        ('a: "\\uD800"\n', "my.yaml:1: half a character"),
        ('a: "\\UFFFFFFFF"\n', "my.yaml:1: not valid YAML: a character or a number out of range"),
        (
            "%YAML 1." + "9" * 5000 + "\n---\na: 1\n",
            "my.yaml:1: not valid YAML: a character or a number out of range",
        ),
        ("a: 1\nb: \x07\n", "my.yaml:2: not a text file: it holds control characters"),
        (b"GGUF\x03\x00\x00\x00\x00", "my.yaml:1: not a text file: it holds control characters"),
        (b"a: 1\nb: \xff\xfe\n", "my.yaml:2: not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), "my.yaml:1: not UTF-8 text"),
        (b"#" * (MAX_BYTES + 1), "my.yaml: larger than 256 KiB: not a profile"),
    ],
)
def test_hostile_or_broken_documents_are_refused(text: str | bytes, expected: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(expected)


def test_plain_words_mean_what_they_say() -> None:
    """Under YAML 1.1 each of these would be a boolean, a base 60 number or a date."""
    profile = parsed(
        "description: 1:30\nlicense: 2024-01-01\n"
        "speculation: {mode: off}\nruntime: {flash_attn: on}\nchat: {system: no}\n"
    )
    assert profile.description == "1:30"
    assert profile.license == "2024-01-01"
    assert profile.speculation.mode == "off"
    assert profile.runtime.flash_attn == "on"
    assert profile.chat.system == "no"


def test_numbers_are_read_as_numbers() -> None:
    profile = parsed(
        "sampling: {seed: 18446744073709551615, temperature: 1e0, top_p: .5, min_p: 0}\ndraft: null\n"
    )
    assert profile.sampling.seed == 2**64 - 1
    assert (profile.sampling.temperature, profile.sampling.top_p, profile.sampling.min_p) == (1.0, 0.5, 0.0)


def test_a_byte_order_mark_and_windows_line_ends_are_fine() -> None:
    raw = b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()
    assert parse_profile(raw, "my.yaml") == parsed()


@settings(deadline=None)
@given(
    st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
def test_whatever_the_bytes_the_answer_is_a_mapping_or_our_error(raw: bytes) -> None:
    try:
        document = read_document(raw, "my.yaml")
    except ProfileError as error:
        assert error.message.startswith("my.yaml:")
    else:
        assert isinstance(document.data, dict)


PIECES = [
    "\n",
    "  ",
    "|\n",
    ">-\n",
    "---\n",
    "%YAML 1.2\n",
    "\t",
    "\x85",
    *"ab:[]{},'\"?-#~1",
    ": ",
    "- ",
    "? ",
    "# ",
]
PIECES += ["&x ", "*x", "!t ", "\\u", ".5", "e9", "true", "<<"]
YAMLISH = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)


@settings(deadline=None)
@given(YAMLISH)
def test_whatever_the_yaml_the_answer_is_a_mapping_or_our_error(text: str) -> None:
    try:
        assert isinstance(read_document(text.encode(), "my.yaml").data, dict)
    except ProfileError as error:
        assert error.message.startswith("my.yaml:")


TEXT = st.text(st.characters(exclude_categories=["Cs"])) | YAMLISH


@settings(deadline=None)
@given(
    system=st.none() | TEXT,
    template=st.none() | TEXT,
    stop=st.lists(TEXT.filter(bool), max_size=4),
    temperature=st.floats(0, 100),
    license=st.text(st.characters(exclude_categories=["Cs"]), max_size=80).filter(str.isprintable)
    | st.just("1e5"),
)
def test_what_is_written_is_read_back_equal(
    system: str | None, template: str | None, stop: list[str], temperature: float, license: str
) -> None:
    data = parsed().model_dump(by_alias=True) | {
        "license": license,
        "chat": {"system": system, "template": template},
        "sampling": {"stop": stop, "temperature": temperature, "seed": 2**64 - 1},
    }
    profile = Profile.model_validate(data)
    for full in (False, True):
        assert parse_profile(dump(profile, full=full).encode(), "my.yaml") == profile


@pytest.mark.parametrize(
    "written", ["mode: auto, draft_max: 12", "mode: off, p_min: 0.5", "draft_max: 8", "mode: fixed"]
)
@pytest.mark.parametrize("full", [False, True])
def test_the_mode_survives_writing(written: str, full: bool) -> None:
    profile = parsed(f"speculation: {{{written}}}\n")
    assert parse_profile(dump(profile, full=full).encode(), "my.yaml") == profile


def test_only_what_differs_from_the_defaults_is_written_in_the_order_of_the_schema() -> None:
    profile = parsed("sampling: {top_k: 1}\nspeculation: {draft_min: 0, mode: auto}\ndescription: here\n")
    assert dump(profile) == (
        "schema: 1\nname: mine\ndescription: here\nmain:\n  repo: owner/name\n  file: model.gguf\n"
        "sampling:\n  top_k: 1\n"
    )
