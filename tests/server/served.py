"""A server in a process of its own, for signals: prints its port, and what happens to it.

Its answers are streams of events that end when it is told to cancel what runs.
"""

import asyncio
import sys
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.types import Receive, Scope, Send

from llamaspec.server.serving import ServingOptions, serve


def say(what: object) -> None:
    print(what, flush=True)


def main(drain_seconds: str) -> None:
    drained = asyncio.Event()

    async def chunks() -> AsyncIterator[str]:
        yield "first"
        await drained.wait()
        yield "last"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await EventSourceResponse(chunks())(scope, receive, send)

    def drain() -> None:
        say("drain")
        drained.set()

    options = ServingOptions(port=0, drain_seconds=float(drain_seconds))
    serve(app, options, on_ready=say, on_drain=drain)
    say("ended")


if __name__ == "__main__":
    main(*sys.argv[1:])
