"""Renders one chat template for its parent process. Started by `llamaspec.templates`, not imported by it.

Protocol: JSON lines. The first line in is the setup (the template and its limits), each later line holds the
variables of one rendering. Each of those is answered by one line: {"text": …} or {"error": …, "line": …}.

Three walls stand between a template and the machine: Jinja's sandbox, an audit hook that refuses files,
processes and sockets once the template is in play, and limits on time, memory and output.
"""

import contextlib
import datetime
import faulthandler
import json
import signal
import sys
from collections.abc import Iterator
from typing import Any

if __name__ == "__main__":  # -I -S leaves out the package folders: the parent names the ones that are needed
    sys.path.extend(sys.argv[1:])

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

REFUSED_EVENTS = (
    "open",
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "pty.",
    "winreg.",
    "_winapi.",
)


# Uses what Jinja imports only when it is first needed: after the audit hook is set no file can be opened.
WARM_UP = (
    "{{ 'a b' | wordwrap(9) | tojson | trim }}{{ strftime_now('%d %b %Y') }}{{ raise_exception('\\n') }}"
)


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's tokens for training: its body stays."""

    tags = {"generation"}  # noqa: RUF012  (Jinja reads a plain set)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: object) -> None:
    raise jinja2.TemplateError(str(message))


def strftime_now(pattern: str) -> str:
    return datetime.datetime.now().strftime(pattern)


def tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes `<`, `>`, `&` and `'` for HTML, unlike the training data."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def compile_template(source: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)
    return environment.from_string(source)


def render(template: jinja2.Template, variables: dict[str, Any], max_output: int) -> str:
    """The rendered text; `max_output` is in characters."""
    pieces: list[str] = []
    length = 0
    for piece in template.generate(variables):
        length += len(piece)
        if length > max_output:
            raise jinja2.TemplateError(f"it writes more than {max_output:,} characters")
        pieces.append(piece)
    return "".join(pieces)


def describe(error: Exception) -> dict[str, object]:
    """What went wrong, and in which line of the template if that is known."""
    line = error.lineno if isinstance(error, jinja2.TemplateSyntaxError) else None
    trace = error.__traceback__
    while trace is not None:  # the innermost frame of the template wins
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    if isinstance(error, MemoryError):
        return {"error": "it needs too much memory", "line": line}
    if isinstance(error, jinja2.TemplateError):
        return {"error": str(error.message or type(error).__name__), "line": line}
    return {"error": f"{type(error).__name__}: {error}", "line": line}


def refuse_system_access(event: str, _arguments: object) -> None:
    if event.startswith(REFUSED_EVENTS):
        raise PermissionError(f"a chat template may not use the system ({event})")


def limit_memory(max_bytes: int) -> None:
    """Bound the address space where the system can; elsewhere the parent watches the process."""
    if sys.platform != "win32":
        import resource

        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))


@contextlib.contextmanager
def end_process_after(seconds: float) -> Iterator[None]:
    """Leave no endless loop behind when the parent is gone. Works even while the GIL is held."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    setup = json.loads(sys.stdin.buffer.readline())
    limit_memory(setup["max_memory"])
    with contextlib.suppress(jinja2.TemplateError):
        render(compile_template(WARM_UP), {}, 100)
    sys.addaudithook(refuse_system_access)
    template: jinja2.Template | None = None
    failure: dict[str, object] = {}
    with end_process_after(setup["seconds"]):
        try:
            template = compile_template(setup["template"])
        except Exception as error:
            failure = describe(error)
    for request in sys.stdin.buffer:
        with end_process_after(setup["seconds"]):
            reply = failure
            if template is not None:
                try:
                    reply = {"text": render(template, json.loads(request), setup["max_output"])}
                except Exception as error:
                    reply = describe(error)
            sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
