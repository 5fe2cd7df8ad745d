"""What the speed check measures, on a generated model."""

from pathlib import Path

import pytest
from gguf_files import tiny_llama

from llamaspec.bench import bandwidth
from llamaspec.doctor import speed_child
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.shards import read_model


def test_it_measures_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMASPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speed_child, "_SECONDS", 0.1)
    monkeypatch.setattr(bandwidth, "read_bandwidth", lambda threads, _: 1e9 * threads)
    model = tiny_llama(tmp_path / "model.gguf")
    check_model(read_model(model))
    measured = speed_child.measure(str(model))
    assert measured.speed > 0
    assert measured.token_bytes > 0
    assert measured.bandwidth == 1e9 * measured.threads
    assert measured.gpu_layers == 0
    assert 0 <= measured.others <= 1


def test_it_says_what_it_can_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no model")
    monkeypatch.setattr("sys.argv", ["speed_child", str(tmp_path / "bad.gguf")])
    speed_child.main()
    assert '"error": "' in capsys.readouterr().out
