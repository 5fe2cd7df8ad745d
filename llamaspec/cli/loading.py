"""From a command's parameters to a loaded pair, with what there is to see on the way."""

import typer

from llamaspec.cli import options as o
from llamaspec.session import Session
from llamaspec.session import load as load_session


def load(
    context: typer.Context,
    *,
    quiet: bool,
    verbose: bool,
    parallel: int | None = None,
    profile: str | None = None,
) -> Session:
    """The pair that a command with `takes_settings` was given, loaded; `parallel` as in `session.load`.

    `profile` takes the place of the profile or models that it was given.
    """
    from llamaspec.console.notices import show_notices
    from llamaspec.console.progress import DownloadProgress
    from llamaspec.native import api

    parameters, given = context.params, o.given(context)
    settings = o.overrides(parameters) | {"speculation": o.speculation(parameters, given)}
    api.verbose(verbose)
    show_notices(quiet=quiet)
    main, draft = parameters["model"], parameters["model_draft"]
    if profile is not None:
        main = draft = None
    elif "profile" in given:  # which wins over models from the environment
        main = main if "model" in given else None
        draft = draft if "model_draft" in given else None
    # Ends before anything else draws on the terminal.
    with DownloadProgress(quiet) as progress:
        return load_session(
            profile or parameters["profile"],
            main=main,
            draft=draft,
            settings=settings,
            draft_mismatch=parameters["draft_mismatch"],
            parallel=parallel,
            progress=progress,
        )
