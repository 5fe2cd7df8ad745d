from pathlib import Path

import pytest
from pydantic import ValidationError

from llamaspec.errors import ModelNotFoundError, UsageError
from llamaspec.hub.names import (
    pick_quantisation,
    quantisation,
    requantised_name,
    shard_names,
    whole_models,
)
from llamaspec.hub.references import HubFile, HubQuant, LocalFile, parse_reference
from llamaspec.hub.sources import HubMirror, ModelSource, WheelMirror, WheelPart


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/repo:Q4_K_M", HubQuant("owner/repo", "Q4_K_M")),
        ("owner/repo:UD-Q4_K_XL@refs/pr/1", HubQuant("owner/repo", "UD-Q4_K_XL", "refs/pr/1")),
        ("owner/repo/file.gguf", HubFile("owner/repo", "file.gguf")),
        ("owner/repo/file.gguf@v1.0", HubFile("owner/repo", "file.gguf", "v1.0")),
        ("owner/repo/sub/dir/File.GGUF@abc", HubFile("owner/repo", "sub/dir/File.GGUF", "abc")),
        ("model.gguf", LocalFile(Path("model.gguf"))),
        ("folder/model.gguf", LocalFile(Path("folder/model.gguf"))),
        ("./owner/repo/model.gguf", LocalFile(Path("owner/repo/model.gguf"))),
        ("/models/x", LocalFile(Path("/models/x"))),
        ("C:/models/x.gguf", LocalFile(Path("C:/models/x.gguf"))),
        ("C:\\models\\x.gguf", LocalFile(Path("C:\\models\\x.gguf"))),
        ("D:x.gguf", LocalFile(Path("D:x.gguf"))),
    ],
)
def test_references_are_read(text: str, expected: object) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "word",
        "owner/repo",
        "owner/repo:",
        "owner/repo:Q4/K",
        "owner/repo/notes.txt",
        "owner/repo/../x.gguf",
        "owner/repo/a/../../x.gguf",
        "owner/repo/nul.gguf",
        "owner/repo/x:stream.gguf",
        "owner/repo/x.gguf@../../main",
        "owner/repo/x\n.gguf",
        "-o/repo:Q8_0",
        "owner/re--po:Q8_0",
        "owner/repo.git:Q8_0",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_reference(text)
    assert "owner/repo:QUANT" in caught.value.hint


def test_a_file_that_exists_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "repo").mkdir(parents=True)
    (tmp_path / "owner" / "repo" / "x.gguf").touch()
    assert parse_reference("owner/repo/x.gguf") == LocalFile(Path("owner/repo/x.gguf"))


@pytest.mark.parametrize(
    "name", ["../x", "/x", "C:x", "a\\..\\b", "a//b", "a/", "con", "a/LPT1.txt", "a.", "b "]
)
def test_names_that_leave_their_folder_on_some_system_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        HubMirror(repo="o/r", file=name)


def test_a_wheel_mirror_needs_a_hash() -> None:
    wheels = WheelMirror(wheels=(WheelPart(package="p", version="1", member="m"),))
    with pytest.raises(ValidationError, match="sha256"):
        ModelSource(repo="o/r", file="x.gguf", mirrors=(wheels,))


def test_shards() -> None:
    assert shard_names("a.gguf") == ["a.gguf"]
    assert shard_names("d/a-00002-of-00003.gguf") == [f"d/a-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert shard_names("a-00004-of-00003.gguf") == ["a-00004-of-00003.gguf"]
    assert shard_names("a-00001-of-99999.gguf") == ["a-00001-of-99999.gguf"]
    assert whole_models(
        ["a-00001-of-00002.gguf", "b-00002-of-00002.gguf", "b-00001-of-00002.gguf", "c.bin"]
    ) == ["b-00001-of-00002.gguf"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1"),
        ("Model-UD-IQ2_XXS.gguf", "UD-IQ2_XXS"),
        ("Model-BF16-00001-of-00002.gguf", "BF16"),
        ("model.gguf", None),
    ],
)
def test_quantisation_of_a_name(name: str, expected: str | None) -> None:
    assert quantisation(name) == expected


FILES = [
    "README.md",
    "m-IQ4_XS.gguf",
    "m-Q4_K_L.gguf",
    "m-Q4_K_M.gguf",
    "m-Q6_K.gguf",
    "m-Q6_K-00001-of-00002.gguf",
    "m-Q6_K-00002-of-00002.gguf",
    "BF16/m-BF16-00001-of-00002.gguf",
    "BF16/m-BF16-00002-of-00002.gguf",
    "m-F16-00001-of-00002.gguf",
    "mmproj-Q8_0.gguf",
    "a_q8_0.gguf",
    "x-Q5_0.gguf",
    "y-Q5_0.gguf",
]


@pytest.mark.parametrize(
    ("quant", "expected"),
    [
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("IQ4_XS", "m-IQ4_XS.gguf"),
        ("Q6_K", "m-Q6_K.gguf"),
        ("bf16", "BF16/m-BF16-00001-of-00002.gguf"),
        ("Q8_0", "a_q8_0.gguf"),
    ],
)
def test_a_quantisation_names_one_file(quant: str, expected: str) -> None:
    assert pick_quantisation(FILES, quant, "o/r") == expected


@pytest.mark.parametrize("quant", ["Q4_XS", "Q4_K", "F16", "Q3_K"])
def test_part_of_a_quantisation_or_half_a_model_names_none(quant: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        pick_quantisation(FILES, quant, "o/r")
    assert "m-Q4_K_M.gguf" in caught.value.hint


def test_two_files_of_a_quantisation_are_listed() -> None:
    with pytest.raises(UsageError) as caught:
        pick_quantisation(FILES, "Q5_0", "o/r")
    assert "x-Q5_0.gguf, y-Q5_0.gguf" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct.Q4_0.gguf"),
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_0.gguf"),
        ("model_F16.GGUF", "model.Q4_0.gguf"),
        ("gemma-UD-Q4_K_XL.gguf", "gemma.Q4_0.gguf"),
        ("big-bf16-00001-of-00003.gguf", "big.Q4_0.gguf"),
        ("plain.gguf", "plain.Q4_0.gguf"),
        ("q8_0-tuned.gguf", "q8_0-tuned.Q4_0.gguf"),
        ("Q8_0.gguf", "Q8_0.Q4_0.gguf"),
        ("no-ending", "no-ending.Q4_0.gguf"),
    ],
)
def test_the_name_of_a_model_in_another_type(name: str, expected: str) -> None:
    assert requantised_name(name, "Q4_0") == expected
