"""Request bodies of llama-server's API, and of what is not supported only the values that leave it off."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from llamaspec.server.fields import MAX_BIASES, Body, GenerationBody, Nothing, Text, Whole

MAX_PROBABILITIES = 100
_MAX_BIAS = 1e6

Word = Annotated[str, Field(max_length=1024)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]
Bias = Annotated[float, Field(ge=-_MAX_BIAS, le=_MAX_BIAS, strict=True)] | Literal[False]

_STAGES: Mapping[str, Mapping[str, float]] = {
    "penalties": {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    "top_k": {"top_k": 0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "temperature": {"temperature": 1.0},
}
"""How a token is chosen, in order, and the settings that leave a stage out."""

_STAGES_OFF = frozenset({"dry", "top_n_sigma", "typ_p", "typical_p", "xtc"})
"""Stages of llama-server that `fields.Inert` keeps from having an effect."""


class PromptObject(Body):
    """A prompt beside which other servers take pictures and sounds."""

    prompt_string: Text
    multimodal_data: Nothing = ()


PromptPart = TokenId | Text
PromptParts = Annotated[tuple[PromptPart, ...], Field(min_length=1, fail_fast=True)]
Prompt = Text | PromptParts | PromptObject
"""One prompt: a text, or texts and token ids in turn."""


class CompletionOptions(GenerationBody):
    """What /completion and /infill have in common."""

    model: str | None = Field(None, max_length=1024, description="any name: there is one model")
    stream: bool = False
    n_predict: Whole | None = None
    max_tokens: Whole | None = Field(None, description="another name of n_predict")
    max_completion_tokens: Whole | None = Field(None, description="another name of n_predict")
    n_cmpl: int = Field(
        1, ge=1, le=64, validation_alias=AliasChoices("n_cmpl", "n"), description="answers to each prompt"
    )
    n_probs: int = Field(
        0,
        ge=0,
        le=MAX_PROBABILITIES,
        validation_alias=AliasChoices("n_probs", "logprobs"),
        description="tell so many alternatives of each token, with their probabilities",
    )
    post_sampling_probs: bool = Field(
        False, description="those probabilities are the ones that the samplers have left; not with a grammar"
    )
    return_tokens: bool = False
    response_fields: tuple[Text, ...] = Field(
        (), max_length=64, description="tell these alone; a slash goes into an object"
    )
    samplers: tuple[Text, ...] | None = Field(None, max_length=32)
    grammar: Text = Field("", description="GBNF")
    json_schema: dict[str, Any] | None = None
    logit_bias: dict[Word, Bias] | tuple[tuple[TokenId | Word, Bias], ...] = Field(
        (), description="by token id or text; false bans a token"
    )
    t_max_predict_ms: int = Field(
        0,
        ge=-1,
        le=1 << 40,
        description="end an answer of several lines after this time; 0 and -1: don't",
    )

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, data: Any) -> Any:
        """Before every entry of a long list or object is found fault with, which takes long."""
        for name, value in data.items() if isinstance(data, Mapping) else ():
            if not isinstance(value, list | dict) or name == "json_schema":  # which has limits of its own
                continue
            entries = len(value) if name != "prompt" else sum(not isinstance(part, int) for part in value)
            if entries > MAX_BIASES:
                raise ValueError(f"{name}: it has {entries} entries, and may have {MAX_BIASES}")
        return data

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (
            len({n for n in (self.n_predict, self.max_tokens, self.max_completion_tokens) if n is not None})
            > 1
        ):
            raise ValueError("n_predict: it, max_tokens and max_completion_tokens contradict each other")
        if self.return_progress and not self.stream:
            raise ValueError("return_progress: it is only for answers that are streamed")
        if self.post_sampling_probs and (self.grammar or self.json_schema is not None):
            raise ValueError("post_sampling_probs: they are not known where a grammar is kept")
        if self.grammar and self.json_schema is not None:
            raise ValueError("json_schema: of it and grammar only one can be kept")
        if self.samplers is not None:
            ours = [name for name in self.samplers if name not in _STAGES_OFF]
            if unknown := sorted(set(ours) - _STAGES.keys()):
                raise ValueError(f"samplers: {unknown[0]!r} is not supported, only {', '.join(_STAGES)}")
            if ours != [name for name in _STAGES if name in ours]:
                raise ValueError(f"samplers: the order is {', '.join(_STAGES)}")
        return self

    @property
    def stages(self) -> Sequence[str]:
        """The samplers in use."""
        return [name for name in _STAGES if self.samplers is None or name in self.samplers]

    def overrides(self) -> dict[str, dict[str, Any]]:
        """The settings that this asks for, by section."""
        limits = (self.n_predict, self.max_tokens, self.max_completion_tokens)
        settings = self.settings(next((n for n in limits if n is not None), None))
        for name, off in _STAGES.items():
            if name not in self.stages:
                settings["sampling"] |= off
        return settings


class CompletionBody(CompletionOptions):
    """POST /completion. A list of texts alone, or one that holds lists, is as many prompts."""

    prompt: (
        Text
        | PromptObject
        | Annotated[tuple[PromptPart | PromptParts | PromptObject, ...], Field(min_length=1, fail_fast=True)]
    )


class ExtraFile(Body):
    """Another file of the project, for context."""

    text: Text
    filename: str = Field("file", min_length=1, max_length=1024)


class InfillBody(CompletionOptions):
    """POST /infill: what comes between two texts; `prompt` is the end of the first."""

    input_prefix: Text
    input_suffix: Text
    input_extra: tuple[ExtraFile, ...] = Field((), max_length=256)
    prompt: Text = ""


class TokenizeBody(Body):
    """POST /tokenize: llama-server's `content`, or `prompt` as vLLM has it and lm-eval asks it."""

    model: str | None = Field(None, max_length=1024)
    content: Text | Annotated[tuple[PromptPart, ...], Field(fail_fast=True)] | None = None
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    prompt: Text | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one_text(self) -> Self:
        if self.content is not None and self.prompt is not None:
            raise ValueError("content: of it and prompt only one can be answered")
        return self


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str | None = Field(None, max_length=1024)
    tokens: tuple[TokenId, ...] = Field((), max_length=1 << 20, fail_fast=True)
