"""`llamaspec check MAIN DRAFT`: whether two models can speculate together."""

from typing import Annotated

import typer


def check(
    main: Annotated[str, typer.Argument(metavar="MAIN", help="The main model: a path or a hub reference.")],
    draft: Annotated[str, typer.Argument(metavar="DRAFT", help="The draft model, likewise.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check from their headers that a main and a draft model share a vocabulary."""
    import json
    from dataclasses import asdict

    from llamaspec.gguf.checks import check_model
    from llamaspec.gguf.pair import FIRST_COMPARED, check_pair
    from llamaspec.gguf.shards import read_model
    from llamaspec.hub.fetch import resolve

    headers = [read_model(resolve(reference).path) for reference in (main, draft)]
    for header in headers:
        check_model(header)
    report = check_pair(*headers)
    if as_json:
        names = {"main": str(headers[0].path), "draft": str(headers[1].path)}
        typer.echo(json.dumps({"compatible": True, **names, **asdict(report)}))
        return
    last = min(report.main_size, report.draft_size) - 1
    typer.echo(f"Compatible: {headers[1].path.name} can draft for {headers[0].path.name}.")
    typer.echo(f"Both have {report.vocabulary} vocabularies, alike from token {FIRST_COMPARED} to {last}.")
    if report.size_difference:
        larger = "main" if report.size_difference > 0 else "draft"
        typer.echo(
            f"The {larger} model has {abs(report.size_difference)} more at the end, which is no obstacle."
        )
