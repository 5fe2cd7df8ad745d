"""Notices of the library on standard error."""

import logging


def show_notices(*, quiet: bool, once: bool = False) -> None:
    """Show what `llamaspec`'s loggers have to say, a line each; errors alone when `quiet`.

    With `once` the same is not said again.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, soft_wrap=True, highlight=False)

    said: set[str] = set()

    class Notices(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            message = record.getMessage()
            if once and message in said:
                return
            said.add(message)
            console.print(Text.assemble(("note:  ", "bold yellow"), message))

    logger = logging.getLogger("llamaspec")
    logger.handlers = [Notices(logging.ERROR if quiet else logging.INFO)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
