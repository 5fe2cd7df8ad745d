"""Workloads: what is read, what is refused and in which words, and what ships."""

from pathlib import Path

import pytest

from llamaspec.bench import workload
from llamaspec.bench.workload import Prompt, Workload, load_workload
from llamaspec.errors import UsageError

KINDS = {"code", "edit", "chat", "summary", "json", "maths", "translation", "story"}


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        path = tmp_path / "w.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_workload(path)
    assert all(line.startswith(str(path)) for line in caught.value.message.splitlines()[:1])
    return caught.value.message


def a_workload(*kinds: str) -> Workload:
    return Workload(
        prompts=[Prompt(name=f"p{i}", kind=kind, prompt="Say it.") for i, kind in enumerate(kinds)]
    )


def test_the_shipped_workload_covers_its_kinds() -> None:
    shipped = load_workload()
    assert set(shipped.kinds) == KINDS
    assert len(shipped.prompts) >= 24
    for kind in KINDS:
        assert 3 <= len(shipped.select([kind]).prompts) <= 4
    assert len({prompt.prompt for prompt in shipped.prompts}) == len(shipped.prompts)


def test_shipped_prompts_have_the_lengths_of_their_kinds() -> None:
    for prompt in load_workload().prompts:
        words, lines = len(prompt.prompt.split()), prompt.prompt.count("\n") + 1
        assert 20 <= words <= 400, prompt.name
        if prompt.kind == "edit":
            assert 25 <= lines <= 60, prompt.name
        if prompt.kind == "summary":
            assert 200 <= words <= 360, prompt.name


def test_a_workload_is_read(write) -> None:
    read = load_workload(
        write(
            "description: mine\nprompts:\n"
            "  - {name: one, kind: chat, prompt: ' Hello? '}\n"
            "  - name: two\n    kind: code\n    n_predict: 9\n    prompt: |\n      def f():\n          pass\n"
        )
    )
    assert read.description == "mine"
    assert [p.prompt for p in read.prompts] == ["Hello?", "def f():\n    pass"]
    assert [p.limit(16) for p in read.prompts] == [16, 9]
    assert read.prompts[1].limit(4) == 4


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{name: a, kind: chat}", "prompts[1].prompt (a): is missing"),
        ("{name: a, kind: chat, prompt: ''}", "prompts[1].prompt (a): is empty"),
        ("{name: a, kind: chat, prompt: ' '}", "prompts[1].prompt (a): is empty"),
        ("{name: a, kind: chat, prompt: 12}", "prompts[1].prompt (a): must be text; it is 12"),
        ("{name: a, kind: chat, promt: x, prompt: x}", "unknown key: did you mean prompt?"),
        ("{name: a, kind: chat, prompt: x, n_predict: 0}", "prompts[1].n_predict (a): 0 is below 1"),
        ("{name: A b, kind: chat, prompt: x}", "prompts[1].name: 'A b' is not"),
        ("{name: a, kind: Chat, prompt: x}", "prompts[1].kind (a): 'Chat' is not"),
        ("{kind: chat, prompt: x}", "prompts[1].name: is missing"),
        ("{name: first, kind: code, prompt: x}", "prompts of the same name: first"),
        ('{name: "a\\e[2J", kind: chat, prompt: 1}', "prompts[1].prompt (a\\x1b[2J)"),
        ("just a line", "prompts[1]: must be a mapping of keys"),
        ("", "prompts[1]: has no value"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(write, entry: str, problem: str) -> None:
    message = refusal(write(f"prompts:\n- {{name: first, kind: chat, prompt: x}}\n- {entry}\n"))
    assert problem in message
    assert message.isprintable() or "\n" in message
    assert "\x1b" not in message


def test_every_problem_has_its_line(write) -> None:
    path = write("prompts:\n- {name: a, kind: b}\n- {name: c, prompt: d}\n")
    assert refusal(path).splitlines() == [
        f"{path}: prompts[0].prompt (a): is missing",
        f"{path}: prompts[1].kind (c): is missing",
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "a mapping with a list of prompts"),
        ("- a\n- b\n", "a mapping with a list of prompts"),
        ("prompts: []\n", "prompts: is empty"),
        ("prompts: {a: b}\n", "prompts: must be a list"),
        ("description: none\n", "prompts: is missing"),
        ("prompts: [\n", "not valid YAML"),
        ("prompts: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
        ("prompts: 2001-99-99\n", "not valid YAML"),
        ("prompts: " + "[" * 5000, "nested too deeply"),
        ("prompts: " + "{a: " * 5000, "nested too deeply"),
        ("n_predict: " + "9" * 5000, "not valid YAML"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nprompts: *b\n", "aliases"),
        (b"prompts: \xff\n", "not UTF-8"),
        (b"\x00\x01", "not valid YAML"),
    ],
)
def test_what_is_no_workload_is_refused(write, content: str | bytes, problem: str) -> None:
    assert problem in refusal(write(content))


def test_size_is_capped(write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "MAX_BYTES", 100)
    assert "larger than" in refusal(write("#" * 101))
    many = "\n".join(f"- {{name: p{i}, kind: k, prompt: x}}" for i in range(workload.MAX_PROMPTS + 1))
    monkeypatch.undo()
    assert f"prompts: longer than {workload.MAX_PROMPTS}" in refusal(write(f"prompts:\n{many}\n"))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "can't be read" in refusal(tmp_path / "none.yaml")
    assert "can't be read" in refusal(tmp_path)


def test_selection_keeps_the_order() -> None:
    every = a_workload("code", "chat", "code", "json", "chat", "code")
    assert every.kinds == ("code", "chat", "json")
    assert [p.name for p in every.select(["chat", "code"]).prompts] == ["p0", "p1", "p2", "p4", "p5"]
    assert [p.name for p in every.select(per_kind=1).prompts] == ["p0", "p1", "p3"]
    assert [p.name for p in every.select(["code"], 2).prompts] == ["p0", "p2"]
    assert every.select() == every


def test_selection_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="kind poem") as caught:
        a_workload("code", "chat").select(["chat", "poem"])
    assert "code, chat" in caught.value.hint
    with pytest.raises(UsageError, match="not 0"):
        a_workload("code").select(per_kind=0)
