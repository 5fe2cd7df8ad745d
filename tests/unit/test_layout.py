"""Imports run one way only, down the table of the design."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import llamaspec

ROOT = Path(llamaspec.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

# What a part of the package may import of the others; itself always. `llamaspec` is its front: the
# version and the public names, which it takes from the session.
BASE = {"errors", "settings", "events", "stats"}
TABLE: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": BASE
    | {
        "llamaspec",
        "console",
        "session",
        "server",
        "bench",
        "chat",
        "doctor",
        "machine",
        "provenance",
        "replacing",
        "figures",
        "closing",
        "engine",
        "control",
        "native",
        "decode",
        "profiles",
        "templates",
        "hub",
        "gguf",
    },
    "llamaspec": BASE | {"session", "profiles", "native.devices"},
    "console": {
        *("events", "stats", "errors", "figures", "doctor.check"),
        *("bench.report", "bench.remote_report", "bench.sentences", "bench.tables"),
        *("bench.tuning", "bench.pick"),
    },
    "server": BASE | {"llamaspec", "session", "engine", "decode", "closing", "templates"},
    "bench": BASE
    | {
        "llamaspec",
        "session",
        "profiles",
        "engine",
        "hub",
        "gguf",
        "machine",
        "provenance",
        "replacing",
        "figures",
        "native.devices",
        "native.quantize",
        "closing",
    },
    "chat": BASE | {"session", "profiles", "bench.naming", "replacing"},
    "doctor": BASE
    | {
        "llamaspec",
        "session",
        "profiles",
        "interpreter",
        "replacing",
        "hub",
        "gguf",
        "bench.bandwidth",
        "bench.roofline",
        "native.devices",
    },
    "machine": {"native.devices", "native.api", "provenance"},
    "session": BASE
    | {
        "machine",
        "provenance",
        "replacing",
        "closing",
        "control",
        "engine",
        "profiles",
        "remembered",
        "hub",
        "gguf",
        "templates",
        "native.api",
        "native.grammar",
        "native.vetting",
        "decode.ports",
        "decode.sequence",
    },
    "remembered": {"control.auto", "hub.cache", "replacing"},
    "engine": BASE | {"closing", "control", "decode"},
    "engine.loader": BASE | {"control", "decode", "gguf", "native"},
    "engine.timing": BASE | {"decode", "gguf", "native"},
    "control": {"decode.ports", "settings"},
    "native": {"closing", "interpreter", "decode.ports", "gguf", "settings", "replacing", "errors"},
    "decode": {"settings", "events", "stats", "errors"},
    "profiles": {"hub", "gguf", "settings", "provenance", "figures", "replacing", "errors"},
    "provenance": {"figures", "settings"},
    "figures": {"settings"},
    "templates": {"closing", "interpreter", "errors"},
    "template_child": set(),
    "hub": {"gguf", "settings", "errors"},
    "gguf": {"errors"},
    "settings": {"errors"},
    "events": set(),
    "stats": set(),
    "closing": set(),
    "interpreter": set(),
    "replacing": set(),
    "errors": set(),
}


def imports(path: Path, *, only_at_start: bool = False) -> Iterator[str]:
    """Absolute names of the modules that a file imports; with `only_at_start`, when it is itself imported."""
    pending: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)
        elif (only_at_start and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)) or (
            only_at_start and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        ):
            continue
        pending += ast.iter_child_nodes(node)


def below(module: str) -> str:
    return module.removeprefix("llamaspec.")


def is_in(module: str, part: str) -> bool:
    return module == part or module.startswith(part + ".")


def row_of(module: str) -> str:
    """The most particular row of the table for a module."""
    rows = [row for row in TABLE if is_in(below(module), row)]
    assert rows, f"{module} has no row in the table"
    return max(rows, key=len)


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_table(module: str) -> None:
    row = row_of(module)
    allowed = TABLE[row] | {row, row.split(".", maxsplit=1)[0]}
    wrong = {
        name
        for name in imports(MODULES[module])
        if is_in(name, "llamaspec") and not any(is_in(below(name), part) for part in allowed)
    }
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", MODULES)
def test_foreign_imports(module: str) -> None:
    foreign = {name.split(".")[0] for name in imports(MODULES[module])} - {"llamaspec"}
    assert "click" not in foreign, "typer brings its own click"
    if not is_in(module, "llamaspec.native"):
        assert "llama_cpp" not in foreign, "only native/ talks to llama.cpp"
    if is_in(module, "llamaspec.decode"):
        assert foreign - set(sys.stdlib_module_names) <= {"numpy"}
        assert not foreign & {"ctypes", "io", "os", "pathlib", "socket", "subprocess", "time"}


def test_there_are_no_cycles() -> None:
    graph = {
        module: {name for name in imports(path, only_at_start=True) if name in MODULES} - {module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' → '.join(error.args[1])}")


def test_the_check_sees_what_it_should(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "from llamaspec.native import api\n"
        "if TYPE_CHECKING:\n    import click\n"
        "def f() -> None:\n"
        "    import llama_cpp.llama_cpp as lib\n"
        "    from llamaspec.errors import UsageError\n"
    )
    assert set(imports(file)) == {
        "typing",
        "llamaspec.native.api",
        "click",
        "llama_cpp.llama_cpp",
        "llamaspec.errors",
    }
    assert set(imports(file, only_at_start=True)) == {"typing", "llamaspec.native.api"}
