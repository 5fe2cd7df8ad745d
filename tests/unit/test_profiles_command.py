"""`llamaspec profile`, as typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llamaspec.cli.profile import app
from llamaspec.errors import ProfileNotFoundError
from llamaspec.profiles import find_profile, parse_profile

RUNNER = CliRunner()
GOOD = "schema: 1\nname: mine\nmain: {repo: owner/name, file: model.gguf}\n"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLAMASPEC_CONFIG", str(tmp_path))
    (tmp_path / "profiles").mkdir()
    return tmp_path


def test_list(config: Path) -> None:
    (config / "profiles" / "mine.yaml").write_text(GOOD)
    (config / "profiles" / "broken.yaml").write_text("schema: 2\n")
    result = RUNNER.invoke(app, ["list"])
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len(lines) == 8
    assert lines[0].startswith("broken              not valid: ")
    assert lines[0].endswith("(yours)")
    assert next(line for line in lines if "(default)" in line).startswith("qwen2.5-coder-1.5b ")

    rows = {row["name"]: row for row in json.loads(RUNNER.invoke(app, ["list", "--json"]).output)}
    assert [name for name, row in rows.items() if row["default"]] == ["qwen2.5-coder-1.5b"]
    assert (rows["mine"]["from"], rows["mine"]["valid"], rows["broken"]["valid"]) == ("user", True, False)
    assert rows["smollm2-135m"]["from"] == "shipped"


def test_show_is_a_profile_with_every_default_and_its_origin(config: Path) -> None:
    path = config / "profiles" / "mine.yaml"
    path.write_text(GOOD)
    output = RUNNER.invoke(app, ["show", "mine"]).output
    assert output.splitlines()[0] == f"# {path}"
    assert "\nspeculation:\n  mode: auto\n" in output
    assert "\n  p_min: 0.75\n" in output
    assert parse_profile(output.encode(), "shown") == find_profile("mine")

    shown = json.loads(RUNNER.invoke(app, ["show", "mine", "--json"]).output)
    assert shown["origin"] == str(path)
    assert shown["profile"]["schema"] == 1
    assert shown["profile"]["speculation"]["draft_max"] is None


def test_show_of_nothing() -> None:
    result = RUNNER.invoke(app, ["show", "nothing"])
    assert isinstance(result.exception, ProfileNotFoundError)


def test_validate_lists_every_problem_of_every_file(tmp_path: Path) -> None:
    good, bad, missing = (tmp_path / name for name in ("good.yaml", "bad.yaml", "missing.yaml"))
    good.write_text(GOOD)
    bad.write_text(GOOD + "speculation: {draft_max: 900}\nruntime:\n  device: 3\n")
    assert RUNNER.invoke(app, ["validate", str(good)]).exit_code == 0
    result = RUNNER.invoke(app, ["validate", str(bad), str(good), str(missing)])
    assert result.exit_code == 10
    assert result.stdout == f"{good}: valid\n"
    assert result.stderr.splitlines() == [
        f"{bad}:4: speculation.draft_max: 900 is above 64",
        f'{bad}:6: runtime.device: must be text; it is 3: quote it, "3"',
        f"{missing}: no such file",
    ]


def test_schema_is_a_json_schema_with_the_names_of_the_file() -> None:
    schema = json.loads(RUNNER.invoke(app, ["schema"]).output)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] and schema["title"] == "llamaspec profile"
    assert schema["additionalProperties"] is False
    assert sorted(schema["required"]) == ["main", "name", "schema"]
    assert {"draft", "speculation", "runtime", "sampling", "chat"} < set(schema["properties"])
    speculation = schema["$defs"]["SpeculationSettings"]["properties"]
    assert speculation["mode"]["default"] == "auto"
    assert {"type": "null"} in speculation["draft_max"]["anyOf"]
    assert speculation["draft_max"]["anyOf"][0]["maximum"] == 64
    assert speculation["draft_max"]["description"]


def test_the_command_is_light_until_it_runs() -> None:
    code = (
        "import sys, llamaspec.cli.profile; print({'yaml', 'llamaspec.profiles', 'click'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
