"""Chat templates: what published ones rely on works, and what a hostile one tries does not."""

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llamaspec import template_child, templates
from llamaspec.errors import ClosedError, TemplateError, UsageError
from llamaspec.templates import CHATML, TemplateRenderer

HELLO = [{"role": "user", "content": "Hello"}]

TOOLS_LIKE_QWEN = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for call in message.tool_calls %}
            {{- '\\n<tool_call>' + call.function.name + ' ' }}{{- call.function.arguments | tojson }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if messages[loop.index0 - 1].role != "tool" %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>' + message.content }}
        {%- if loop.last or messages[loop.index0 + 1].role != "tool" %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

DATE_LIKE_LLAMA = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "Today: " + date_string + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|header|>' + message['role'] + '<|end|>' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
"""


def render(template: str, messages: object = HELLO, **options: object) -> str:
    with TemplateRenderer(template, bos="<s>", eos="</s>") as renderer:
        return renderer.render(messages, **options)  # type: ignore[arg-type]


def failure(template: str, **options: object) -> str:
    with pytest.raises(TemplateError) as caught:
        render(template, **options)
    assert caught.value.hint
    return caught.value.message


@pytest.fixture(scope="module")
def qwen() -> Iterator[TemplateRenderer]:
    with TemplateRenderer(TOOLS_LIKE_QWEN) as renderer:
        yield renderer


def test_a_conversation_becomes_the_trained_form(qwen: TemplateRenderer) -> None:
    assert qwen.render(HELLO) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_renderer_is_used_again_and_again(qwen: TemplateRenderer) -> None:
    system = {"role": "system", "content": "Répondez en français 🦙"}
    assert "Répondez en français 🦙" in qwen.render([system, *HELLO])
    assert "Répondez" not in qwen.render(HELLO)
    assert not qwen.render(HELLO, add_generation_prompt=False).endswith("assistant\n")


def test_tools_and_their_answers(qwen: TemplateRenderer) -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1, "b": "<&'>"}}}
    prompt = qwen.render(
        [
            *HELLO,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "3"},
            {"role": "tool", "content": "4"},
        ],
        tools=[{"type": "function", "function": {"name": "add"}}],
    )
    assert '{"type": "function", "function": {"name": "add"}}' in prompt
    assert """<|im_start|>assistant\n<tool_call>add {"a": 1, "b": "<&'>"}<|im_end|>""" in prompt
    assert "<|im_start|>user\n<tool_response>3\n<tool_response>4<|im_end|>\n" in prompt


def test_the_date_is_the_template_s_or_the_caller_s() -> None:
    before, prompt, after = datetime.date.today(), render(DATE_LIKE_LLAMA), datetime.date.today()
    assert any(f"<s>Today: {day:%d %b %Y}<|eot_id|>" in prompt for day in (before, after))
    assert "Today: 1 May 1886" in render(DATE_LIKE_LLAMA, date_string="1 May 1886")


@pytest.mark.parametrize("message", [{"role": "assistant", "content": None}, {"role": "assistant"}])
def test_no_content_is_empty_text(message: dict[str, object]) -> None:
    shown = "{% for message in messages %}[{{ message.content | trim }}]{% endfor %}"
    assert render(shown, [message]) == "[]"


def test_no_content_beside_tool_calls_stays_null() -> None:
    messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}]
    assert render("{{ messages[0].content is none }}", messages) == "True"


def test_block_lines_leave_no_trace_and_loops_can_be_left() -> None:
    template = (
        "{% for i in range(9) %}\n  {% if i == 2 %}\n    {% break %}\n  {% endif %}\n{{ i }}\n{% endfor %}\n"
    )
    assert render(template) == "0\n1\n"


def test_the_generation_tag_passes_through() -> None:
    template = "{% set x = 1 %}a{% generation %}{% set x = 2 %}b{{ eos_token }}{% endgeneration %}c{{ x }}"
    assert render(template) == "ab</s>c2"


def test_json_is_plain() -> None:
    text = "{{ messages[0].content | tojson }} {{ {'b': 1, 'a': [2]} | tojson(indent=1) }}"
    assert render(text, [{"role": "user", "content": "<é & 'x'>"}]) == (
        '"<é & \'x\'>" {\n "b": 1,\n "a": [\n  2\n ]\n}'
    )


def test_the_fallback_is_chatml() -> None:
    assert render(CHATML) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_lone_surrogates_survive() -> None:
    assert render("{{ messages[0].content }}", [{"role": "user", "content": "\ud83d"}]) == "\ud83d"


def test_a_template_s_own_refusal_is_shown() -> None:
    message = failure("\n\n{{ raise_exception('Roles must alternate') }}")
    assert "Roles must alternate" in message
    assert "line 3" in message


def test_a_syntax_error_names_its_line() -> None:
    message = failure("fine\n{% for x in messages %}\n{{ x. }}\n")
    assert "line 3" in message


def test_a_failure_names_its_line_and_leaves_the_renderer_usable() -> None:
    with TemplateRenderer(
        "{% for message in messages %}\n{{ 'x' + message.content }}\n{% endfor %}"
    ) as renderer:
        with pytest.raises(TemplateError, match=r"TypeError.*line 2 of the template"):
            renderer.render([{"role": "user", "content": 5}])
        assert renderer.render(HELLO) == "xHello\n"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ''['__class__'] }}",
        "{{ (''|attr('__class__')).__mro__ }}",
        "{{ raise_exception.__globals__['sys'] }}",
        "{{ strftime_now.__code__.co_consts }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ (messages|map('attr', '__class__')|first).__mro__ }}",
        "{% set ns = namespace() %}{{ ns.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_the_sandbox_holds(template: str) -> None:
    try:
        text = render(template)
    except TemplateError as error:
        assert "use the system" not in error.message  # that is the second wall
        text = ""
    assert text == ""


def in_child(*lines: str) -> subprocess.CompletedProcess[str]:
    folder = Path(template_child.__file__).parent
    script = "\n".join([f"import sys; sys.path.insert(0, {str(folder)!r}); import template_child", *lines])
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "deed",
    [
        "open(template_child.__file__)",
        "import os; os.system('exit 7')",
        "import subprocess; subprocess.run(['true'])",
        "import socket; socket.socket()",
    ],
)
def test_code_that_leaves_the_sandbox_finds_the_system_shut(deed: str) -> None:
    imports = "import os, socket, subprocess"
    assert in_child(imports, deed).returncode in (0, 1)
    shut = in_child(imports, "sys.addaudithook(template_child.refuse_system_access)", deed)
    assert "PermissionError: a chat template may not use the system" in shut.stderr


def test_a_child_without_a_parent_ends_itself() -> None:
    endless = in_child("with template_child.end_process_after(0.2):", "    while True: pass")
    assert endless.returncode == 1


def test_the_child_gets_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []
    popen = subprocess.Popen

    def spy(*arguments: object, **options: object) -> object:
        started.append(options["env"])  # type: ignore[arg-type]
        return popen(*arguments, **options)  # type: ignore[call-overload]

    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.setattr(subprocess, "Popen", spy)
    assert render(CHATML)
    assert len(started) == 1
    assert "secret" not in json.dumps(started)


NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


def test_an_endless_loop_is_stopped_and_the_next_rendering_works() -> None:
    template = "{% if messages[0].role == 'loop' %}" + NESTED + "{% endif %}ok"
    with TemplateRenderer(template, seconds=0.5) as renderer:
        with pytest.raises(TemplateError, match=r"took more than 0\.5 s"):
            renderer.render([{"role": "loop"}])
        assert renderer.render(HELLO) == "ok"


def test_huge_output_is_cut_off() -> None:
    piece = "{% for a in range(9999) %}{% for b in range(9999) %}" + "x" * 1000 + "{% endfor %}{% endfor %}"
    assert "writes more than" in failure(piece)
    assert "writes more than" in failure("{{ 'x' * 20000000 }}")


@pytest.mark.parametrize(
    "template",
    [
        "{% set n = namespace(x='x' * 99) %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{{ 'x' * 10**12 }}",
        "{{ '%99999999999d' % 1 }}",
    ],
)
def test_memory_is_bounded(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(templates, "MAX_MEMORY", 1 << 28)
    message = failure(template)
    assert any(reason in message for reason in ("memory", "Overflow", "too"))


def test_memory_is_watched_where_the_system_sets_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemplateRenderer(NESTED) as renderer:
        monkeypatch.setattr(templates, "MAX_MEMORY", 1 << 20)  # the child was told the usual limit
        with pytest.raises(TemplateError, match=r"was stopped: .*too much memory"):
            renderer.render(HELLO)


def test_deep_nesting_ends_in_an_error() -> None:
    assert failure("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}")
    assert failure("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")


def test_a_dead_child_is_replaced() -> None:
    with TemplateRenderer(CHATML) as renderer:
        assert renderer._child is not None
        renderer._child.kill()
        renderer._child.wait()
        assert "Hello" in renderer.render(HELLO)


def test_options_are_an_allow_list() -> None:
    with TemplateRenderer("{{ enable_thinking }}{{ messages | length }}") as renderer:
        assert renderer.render(HELLO, enable_thinking=False) == "False1"
        for option in ("bos_token", "raise_exception", "chat_template"):
            with pytest.raises(UsageError, match=option):
                renderer.render(HELLO, **{option: "x"})


def test_close_is_final_and_can_be_repeated() -> None:
    renderer = TemplateRenderer(CHATML)
    child = renderer._child
    renderer.close()
    renderer.close()
    assert child is not None and child.returncode is not None
    with pytest.raises(ClosedError):
        renderer.render(HELLO)
