"""Request bodies: what the APIs have in common, and how it becomes a `Request`.

An explicit null is as good as absence. Keys that nobody knows are refused, as OpenAI does.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from llamaspec.settings import MAX_CONTEXT, MAX_DRAFT, DrafterName, Penalty, Probability

MAX_STOPS = 16
MAX_LOGPROBS = 20
MAX_BIASES = 1024
MAX_TEXT = 1 << 24
_MAX_KEYS = 256
_MAX_BREAKERS = 64

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=1024)]
Stops = Annotated[tuple[Stop, ...], Field(max_length=MAX_STOPS, fail_fast=True)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Off = Annotated[int, Field(ge=0, le=0)]
Whole = Annotated[int, Field(ge=-1, le=MAX_CONTEXT)]
Nothing = Annotated[tuple[Any, ...], Field(max_length=0)]
Bias = Annotated[float, Field(ge=-100.0, le=100.0, allow_inf_nan=False)]
TokenCount = Annotated[int, Field(ge=0, le=MAX_CONTEXT)]


class Body(BaseModel):
    """Base of every body and of the objects in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            if len(data) > _MAX_KEYS:  # complaints about a million of them take long, and much memory
                raise ValueError(f"at most {_MAX_KEYS} keys are taken")
            return {key: value for key, value in data.items() if value is not None}
        return data


class Speculative(Body):
    """Speculation of one request; it means what it means in a profile."""

    mode: Literal["auto", "fixed", "off"] | None = None
    drafters: tuple[DrafterName, ...] | None = Field(None, max_length=4)
    draft_max: int | None = Field(None, ge=0, le=MAX_DRAFT)
    draft_min: int | None = Field(None, ge=0, le=MAX_DRAFT)
    p_min: Probability | None = None


_SAME = (
    *("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"),
    *("repeat_penalty", "repeat_last_n", "seed", "ignore_eos"),
)
"""Fields that are called as the settings are."""


class Inert(Body):
    """What llama-server has and this server has not: taken where it changes nothing, as clients send it."""

    dynatemp_range: Number = Field(0.0, ge=0.0, le=0.0)
    dynatemp_exponent: Number = 1.0
    top_n_sigma: Number = Field(-1.0, le=0.0)
    xtc_probability: Number = Field(0.0, ge=0.0, le=0.0)
    xtc_threshold: Number = 0.1
    typical_p: Number = Field(1.0, ge=1.0, le=1.0, validation_alias=AliasChoices("typical_p", "typ_p"))
    dry_multiplier: Number = Field(0.0, ge=0.0, le=0.0)
    dry_base: Number = 1.75
    dry_allowed_length: Whole = 2
    dry_penalty_last_n: Whole = 64
    dry_sequence_breakers: tuple[Text, ...] = Field((), max_length=_MAX_BREAKERS)
    mirostat: Off = 0
    mirostat_tau: Number = 5.0
    mirostat_eta: Number = 0.1
    adaptive_target: Number = Field(-1.0, lt=0.0)
    adaptive_decay: Number = 0.9
    min_keep: Off = 0
    n_keep: Annotated[int, Field(ge=-1, le=0)] = Field(0, description="texts are never shifted")
    n_discard: Off = 0
    n_indent: Off = 0
    n_cache_reuse: Off = 0
    grammar_lazy: Literal[False] = False
    grammar_triggers: Nothing = ()
    preserved_tokens: Nothing = ()
    backend_sampling: bool = Field(False, description="no effect: where it is done changes no token")
    lora: Nothing = ()


class GenerationBody(Inert):
    """What every endpoint that generates takes; absent means as the server was started."""

    temperature: float | None = Field(None, ge=0.0, le=100.0, allow_inf_nan=False)
    top_p: Probability | None = None
    top_k: int | None = Field(None, ge=-1, le=1 << 20, description="0 and -1: off")
    min_p: Probability | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repeat_penalty: float | None = Field(None, ge=0.01, le=10.0, allow_inf_nan=False)
    repeat_last_n: int | None = Field(None, ge=-1, le=MAX_CONTEXT)
    seed: int | None = Field(None, ge=-1, le=(1 << 64) - 1)
    stop: Stop | Stops | None = None
    ignore_eos: bool | None = None
    cache_prompt: bool = Field(True, description="take over the KV cache of a text that begins alike")
    token_details: bool = Field(False, description="tell of every token who drafted it, and in which round")
    verbose: bool = Field(False, description="tell the prompt that the answer goes on from")
    return_progress: bool = Field(False, description="tell in a stream how far the prompt is read")
    id_slot: int = Field(-1, ge=-1, le=1024, description="run in this slot, and wait for it; -1: in any")
    timings_per_token: bool = Field(False, description="timings in every chunk of a stream")
    speculative: Speculative | None = None
    n_max: int | None = Field(None, alias="speculative.n_max", ge=0, le=MAX_DRAFT)
    n_min: int | None = Field(None, alias="speculative.n_min", ge=0, le=MAX_DRAFT)
    spec_p_min: Probability | None = Field(None, alias="speculative.p_min")

    def settings(self, n_predict: int | None) -> dict[str, dict[str, Any]]:
        """Overrides of the server's settings by section, as `Session` takes them."""
        sampling = {
            "n_predict": n_predict,
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "stop": (self.stop,) if isinstance(self.stop, str) else self.stop,
        }
        sampling |= {name: getattr(self, name) for name in _SAME}
        of_llama_cpp = {"draft_max": self.n_max, "draft_min": self.n_min, "p_min": self.spec_p_min}
        speculation = _given(of_llama_cpp) | _given(dict(self.speculative or ()))
        return {"sampling": _given(sampling), "speculation": speculation}

    def wishes(self) -> dict[str, Any]:
        """Fields of a `Request` beside its settings, by their names there."""
        return {
            "details": self.token_details,
            "cache_prompt": self.cache_prompt,
            "progress": self.return_progress,
            "seat": None if self.id_slot < 0 else self.id_slot,
        }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def bias_by_token(bias: Mapping[str, float] | None, vocab_size: int) -> dict[int, float]:
    """OpenAI's `logit_bias`: -100 bans a token. Raises ValueError for what is not a token id."""
    biases: dict[int, float] = {}
    for name, value in (bias or {}).items():
        if not (name.isascii() and name.isdigit() and int(name) < vocab_size):
            raise ValueError(f"{name!r} is not a token id of this model")
        biases[int(name)] = -math.inf if value <= -100.0 else value
    return biases
