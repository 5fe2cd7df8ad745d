"""Tool calls in OpenAI's shapes: what a request may ask, and what a model writes for it.

A model calls tools in the format that it was trained on, and its chat template shows which one that is
(`find_tools`). From there: `template_messages` prepares a conversation for the template, `call_grammar`
makes a model write calls where it has no choice, and `ToolCallStream` reads them while they are written.
"""

from llamaspec.server.tools.formats import FORMATS, ToolFormat
from llamaspec.server.tools.grammar import call_grammar
from llamaspec.server.tools.messages import template_messages
from llamaspec.server.tools.request import Tool, ToolFields, read_tools
from llamaspec.server.tools.stream import (
    ArgumentsDelta,
    CallBegin,
    CallEnd,
    ContentDelta,
    Delta,
    ToolAnswer,
    ToolCall,
    ToolCallStream,
    collect,
)
from llamaspec.server.tools.support import ToolSupport, find_tools

__all__ = [
    "FORMATS",
    "ArgumentsDelta",
    "CallBegin",
    "CallEnd",
    "ContentDelta",
    "Delta",
    "Tool",
    "ToolAnswer",
    "ToolCall",
    "ToolCallStream",
    "ToolFields",
    "ToolFormat",
    "ToolSupport",
    "call_grammar",
    "collect",
    "find_tools",
    "read_tools",
    "template_messages",
]
