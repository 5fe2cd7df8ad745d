"""Bodies of OpenAI's endpoints that generate. What OpenAI takes and only notes is taken here too."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, model_validator

from llamaspec.server.fields import MAX_BIASES, MAX_LOGPROBS, Bias, Body, GenerationBody, Text
from llamaspec.server.openai.messages import MAX_MESSAGES, Message
from llamaspec.server.tools.request import ToolFields
from llamaspec.settings import MAX_CONTEXT

MAX_PROMPTS = 1024
MAX_CHOICES = 128


def _few(values: Any) -> Any:
    """Before each of them is looked at: complaints about a million of them take long, and much memory."""
    if isinstance(values, Mapping) and len(values) > MAX_BIASES:
        raise ValueError(f"at most {MAX_BIASES} entries are taken")
    return values


Few = BeforeValidator(_few)
Budget = Annotated[int, Field(ge=-1, le=MAX_CONTEXT, description="-1: until the end")]
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES)]
Key = Annotated[str, Field(max_length=64)]
Label = Annotated[str, Field(max_length=512)]
Schema = dict[str, Any]
TokenId = Annotated[StrictInt, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[tuple[TokenId, ...], Field(min_length=1, max_length=MAX_CONTEXT, fail_fast=True)]
Prompts = Annotated[tuple[Text | Tokens, ...], Field(min_length=1, max_length=MAX_PROMPTS, fail_fast=True)]


class StreamOptions(Body):
    include_usage: bool = False
    continuous_usage_stats: bool = Field(False, description="usage so far in every chunk")
    include_obfuscation: Literal[False] | None = None


class PlainText(Body):
    type: Literal["text"]


class NamedSchema(Body):
    """`strict` makes no difference: what a schema asks for is always kept."""

    model_config = ConfigDict(populate_by_name=False)

    schema_: Schema = Field(alias="schema")
    name: Label | None = None
    description: Text | None = None
    strict: bool | None = None


class JsonObject(Body):
    """Any object, or with llama-server's extension one that follows `schema`."""

    model_config = ConfigDict(populate_by_name=False)

    type: Literal["json_object"]
    schema_: Schema = Field({"type": "object"}, alias="schema")


class JsonSchema(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")]


class OpenAIBody(GenerationBody):
    """What chat and plain completions have in common.

    Any `model` is answered by the one that is served, and the answer tells which that is.
    """

    model: Label | None = None
    n: Choices = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Budget | None = None
    logit_bias: Annotated[dict[Key, Bias], Few] | None = None
    response_format: ResponseFormat | None = None
    grammar: Text | None = Field(None, description="GBNF that the answer follows")
    json_schema: Schema | None = Field(None, description="JSON schema that the answer follows")
    user: Label | None = None

    @property
    def budget(self) -> int | None:
        """Most tokens of an answer; None: as the server was started."""
        return self.max_tokens

    @property
    def schema_to_follow(self) -> Schema | None:
        """The JSON schema of `response_format`."""
        match self.response_format:
            case JsonObject(schema_=schema) | JsonSchema(json_schema=NamedSchema(schema_=schema)):
                return schema
        return None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def continuous_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.continuous_usage_stats

    @model_validator(mode="after")
    def _goes_together(self) -> "OpenAIBody":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: it is only for answers that are streamed")
        if self.return_progress and not self.stream:
            raise ValueError("return_progress: it is only for answers that are streamed")
        asked = [self.schema_to_follow, self.grammar, self.json_schema]
        if len(asked) - asked.count(None) > 1:
            raise ValueError("response_format: of it, grammar and json_schema only one can be kept")
        return self


class ChatBody(OpenAIBody, ToolFields):
    """The body of /v1/chat/completions."""

    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True)]
    max_completion_tokens: Budget | None = Field(None, description="the newer name of max_tokens; it wins")
    logprobs: StrictBool = False
    top_logprobs: int | None = Field(None, ge=0, le=MAX_LOGPROBS)
    chat_template_kwargs: Annotated[dict[Key, Any], Few] | None = None
    reasoning_effort: Annotated[str, Field(max_length=32)] | None = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    metadata: Annotated[dict[Key, Label], Few] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Label | None = None
    modalities: tuple[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None

    @property
    def budget(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def alternatives(self) -> int | None:
        """How many other tokens are told beside each; None: no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _chat_goes_together(self) -> "ChatBody":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: it needs logprobs to be true")
        if self.add_generation_prompt is not None and self.add_generation_prompt == bool(
            self.continue_final_message
        ):
            raise ValueError("add_generation_prompt: of it and continue_final_message exactly one is true")
        return self


class CompletionBody(OpenAIBody):
    """The body of /v1/completions. `prompt` is one text, one list of token ids, or a list of either."""

    prompt: Text | Tokens | Prompts
    best_of: Choices | None = None
    echo: bool = False
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    suffix: Annotated[str, Field(max_length=0)] | None = Field(None, description="see /infill")

    @property
    def prompts(self) -> tuple[str | tuple[int, ...], ...]:
        match self.prompt:
            case str():
                return (self.prompt,)
            case (int(), *_):
                return (self.prompt,)  # type: ignore[return-value]
            case several:
                return several  # type: ignore[return-value]

    @property
    def candidates(self) -> int:
        """How many answers to each prompt are written, of which the `n` best are told."""
        return self.n if self.best_of is None else self.best_of

    @model_validator(mode="after")
    def _completion_goes_together(self) -> "CompletionBody":
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of: it is {self.best_of}, less than n, which is {self.n}")
        if self.stream and self.candidates > self.n:
            raise ValueError("best_of: above n, the best answers are known at the end, and can't be streamed")
        return self
