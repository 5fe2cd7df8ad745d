"""`llamaspec serve`: a local server for OpenAI's clients and llama-server's, with speculation."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from llamaspec.cli import options as o

EPILOG = """\
Examples:

llamaspec serve

llamaspec serve -m main.gguf -md draft.gguf --parallel 4 -c 16384 --port 8080

llamaspec serve --host 0.0.0.0 --api-key-file keys.txt --ssl-keyfile key.pem --ssl-certfile cert.pem
"""

_SERVER = "Server"


@o.takes_settings
def serve(
    context: typer.Context,
    profile: o.Profile = None,
    model: o.Model = None,
    model_draft: o.ModelDraft = None,
    draft_mismatch: o.DraftMismatch = "stop",
    host: Annotated[
        str, typer.Option("--host", rich_help_panel=_SERVER, help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", rich_help_panel=_SERVER, help="Port to listen on; 0: any free one.")
    ] = 8080,
    parallel: Annotated[
        int,
        typer.Option(
            "-np", "--parallel", min=1, max=64, rich_help_panel=_SERVER, help="Requests answered at a time."
        ),
    ] = 4,
    alias: Annotated[
        str | None,
        typer.Option(
            "--alias",
            "-a",
            rich_help_panel=_SERVER,
            help="Name of the model that clients are told; several: with commas between.",
        ),
    ] = None,
    slots: Annotated[
        bool, typer.Option("--slots/--no-slots", rich_help_panel=_SERVER, help="Answer /slots.")
    ] = True,
    metrics: Annotated[
        bool, typer.Option("--metrics/--no-metrics", rich_help_panel=_SERVER, help="Answer /metrics.")
    ] = True,
    queue: Annotated[
        int,
        typer.Option("--queue", min=0, max=4096, rich_help_panel=_SERVER, help="Requests that may wait."),
    ] = 64,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key",
            envvar="LLAMASPEC_API_KEY",
            rich_help_panel=_SERVER,
            help="Key that requests must bring; several: with commas between.",
        ),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", rich_help_panel=_SERVER, help="File with a key a line; # comments."),
    ] = None,
    no_auth: Annotated[
        bool,
        typer.Option(
            "--no-auth", rich_help_panel=_SERVER, help="Let everybody in, also beyond this machine."
        ),
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host", rich_help_panel=_SERVER, help="Host name that clients may use for it."
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--cors-origin", rich_help_panel=_SERVER, help="Site whose pages may use it; or localhost, *."
        ),
    ] = None,
    ssl_keyfile: Annotated[
        Path | None, typer.Option("--ssl-keyfile", rich_help_panel=_SERVER, help="TLS key (PEM).")
    ] = None,
    ssl_certfile: Annotated[
        Path | None, typer.Option("--ssl-certfile", rich_help_panel=_SERVER, help="TLS certificate (PEM).")
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            "--drain",
            min=0.0,
            max=3600.0,
            rich_help_panel=_SERVER,
            help="Seconds that running requests have when it is told to end.",
        ),
    ] = 10.0,
    max_body: Annotated[
        int,
        typer.Option(
            "--max-body", min=1, max=1024, rich_help_panel=_SERVER, help="Largest request body, in MiB."
        ),
    ] = 16,
    log_format: Annotated[
        Literal["text", "json"],
        typer.Option("--log-format", rich_help_panel=_SERVER, help="How requests are logged."),
    ] = "text",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log nothing but errors.")] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="llama.cpp's log, tracebacks, and prompts told with answers."),
    ] = False,
) -> None:
    """Serve a pair over HTTP: OpenAI's API, llama-server's API, and a web page. The context is shared."""
    from llamaspec.cli.loading import load
    from llamaspec.console.requests import RequestLog
    from llamaspec.server.app import create_app
    from llamaspec.server.guard import GuardOptions, check_exposure, read_keys
    from llamaspec.server.service import Limits, Service, ServiceOptions
    from llamaspec.server.serving import ServingOptions, listen
    from llamaspec.server.serving import serve as serve_app

    keys = read_keys(api_key, api_key_file)
    check_exposure(host, keys, no_auth)
    guard = GuardOptions(
        keys=keys,
        allowed_hosts=(host, *(allowed_host or ())),
        allowed_origins=tuple(cors_origin or ()),
        max_body_bytes=max_body << 20,
    )
    names = tuple(alias.split(",")) if alias is not None else ()
    options = ServiceOptions(names, slots=slots, metrics=metrics, verbose=verbose)
    serving = ServingOptions(host, port, ssl_keyfile, ssl_certfile, drain_seconds=drain)
    with listen(serving) as listener:
        log = RequestLog(as_json=log_format == "json", quiet=quiet)
        with (
            load(context, quiet=quiet, verbose=verbose, parallel=parallel) as llm,
            Service(llm, Limits(max_waiting=queue), log.ended, options) as service,
        ):
            log.ready(listener.url, has_keys=bool(keys), settings=llm.settings(), models=llm.models())
            serve_app(
                create_app(service, guard, log.refused),
                serving,
                on_drain=service.cancel_all,
                listener=listener,
            )
