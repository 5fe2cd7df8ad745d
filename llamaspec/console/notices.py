"""Notices of the library on standard error."""

import logging


def show_notices(*, quiet: bool) -> None:
    """Show what `llamaspec`'s loggers have to say, a line each; errors alone when `quiet`."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(Text.assemble(("note:  ", "bold yellow"), record.getMessage()))

    logger = logging.getLogger("llamaspec")
    logger.handlers = [Notices(logging.ERROR if quiet else logging.INFO)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
