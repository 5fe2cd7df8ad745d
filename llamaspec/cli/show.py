"""`llamaspec show MODEL`: what a model file is."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from llamaspec.cli import completion

if TYPE_CHECKING:
    from llamaspec.gguf.facts import ModelFacts


EPILOG = """\
Examples:

llamaspec show main.gguf

llamaspec show bartowski/Llama-3.2-1B-Instruct-GGUF:Q8_0 --json
"""


def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completion.models,
            help="The model: a path or a hub reference.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show a model's architecture, size, quantisation and memory needs, from its header."""
    import json
    from dataclasses import asdict

    from llamaspec.console.tables import print_facts
    from llamaspec.gguf.checks import check_model
    from llamaspec.gguf.facts import describe
    from llamaspec.gguf.shards import read_model
    from llamaspec.hub.fetch import resolve

    header = read_model(resolve(model).path)
    check_model(header)
    facts = describe(header)
    if as_json:
        files = [str(path) for path in header.paths]
        kv_bytes = sum(facts.kv_bytes_per_token())
        typer.echo(json.dumps({"files": files, **asdict(facts), "kv_bytes_per_token": kv_bytes}))
    else:
        print_facts(header.path.name, _rows(facts, len(header.paths)))


def _rows(facts: "ModelFacts", files: int) -> Iterator[tuple[str, str]]:
    from llamaspec.console.tables import human_bytes, human_count

    if facts.name:
        yield "name", facts.name
    if facts.licence:
        yield "licence", facts.licence
    kind = ", recurrent" if facts.recurrent else ", hybrid" if facts.hybrid else ""
    yield "architecture", facts.architecture + kind
    yield "parameters", human_count(facts.parameters)
    yield "quantisation", facts.quantisation
    yield "size", human_bytes(facts.file_bytes) + (f" in {files} files" if files > 1 else "")
    yield "layers", str(facts.layers)
    yield "embedding", str(facts.embedding)
    if facts.heads:
        yield "heads", f"{facts.heads}, with {facts.kv_heads} for keys and values"
    yield "vocabulary", f"{facts.vocab_size} tokens"
    yield "context", f"{facts.context_train} tokens in training"
    if facts.window:
        yield "window", f"{facts.window} tokens"
    per_token = sum(facts.kv_bytes_per_token())
    if per_token:
        yield "KV cache", f"{human_bytes(per_token)} per token (f16)"
    yield "chat template", "yes" if facts.chat_template else "none"
