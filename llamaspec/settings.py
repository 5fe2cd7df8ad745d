"""What can be set, with its bounds and defaults: frozen, validated once, unknown keys refused.

These are the types of a profile's sections. A profile, the environment and the flags are merged
before anything is built from them (`llamaspec.profiles`), so that what is validated here is what runs.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

MAX_CONTEXT = 1 << 24
MAX_DRAFT = 64
_CEILING = {"auto": 32, "fixed": 8}
_COLD = 1e-6  # logits divided by much less are no numbers any more

KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]
GpuLayers = Annotated[int, Field(ge=0, le=10_000)] | Literal["auto", "all"]
Probability = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0, allow_inf_nan=False)]
Threads = Annotated[int, Field(ge=1, le=1024)] | Literal["auto"]
ContextSize = Annotated[int, Field(ge=0, le=MAX_CONTEXT)]


def one_line(text: str) -> str:
    """Lists print these on a terminal, and the profile may be anyone's: no control characters."""
    if not text.isprintable():
        raise ValueError("must be one line of printable text")
    return text


Line = Annotated[str, StringConstraints(max_length=500), AfterValidator(one_line)]


class Settings(BaseModel):
    """Base of every section: immutable, strict about keys and types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


DrafterName = Literal["model", "ngram", "corpus", "cascade"]
_OF_FIXED = ("draft_max", "draft_min", "p_min")


def with_mode(speculation: Mapping[str, Any]) -> dict[str, Any]:
    """These settings with the mode that they mean: who names llama.cpp's settings wants just those."""
    named = any(speculation.get(key) is not None for key in _OF_FIXED)
    return {"mode": "fixed", **speculation} if named else dict(speculation)


class SpeculationSettings(Settings):
    """How much is drafted. `draft_max`, `draft_min` and `p_min` mean what they mean in llama.cpp.

    Naming one of these without a mode means `fixed`. In `auto`, `draft_max` is the ceiling.
    """

    mode: Literal["auto", "fixed", "off"] = Field(
        "auto",
        description="auto: draft what pays here; fixed: by the three settings below; off: plain decoding",
    )
    drafters: tuple[DrafterName, ...] = Field(
        (), max_length=4, strict=False, description="who may draft; empty: all there are (fixed: the first)"
    )
    corpus: str | None = Field(
        None, min_length=1, max_length=4096, description="file or folder whose text the corpus drafter knows"
    )
    draft_max: int | None = Field(
        None, ge=0, le=MAX_DRAFT, description="most tokens drafted in a round; absent: 8, in auto 32"
    )
    draft_min: int = Field(0, ge=0, le=MAX_DRAFT, description="fixed: a shorter draft is not verified")
    p_min: Probability = Field(
        0.75, description="fixed: stop drafting where the drafter is less sure of its best token than this"
    )

    @property
    def ceiling(self) -> int:
        """Most tokens of a draft: what `draft_max` says or stands for."""
        if self.mode == "off":
            return 0
        return self.draft_max if self.draft_max is not None else _CEILING[self.mode]

    def uses(self, drafter: DrafterName) -> bool:
        """Whether this one may draft, where it is there. Unless they are named, `fixed` takes the first."""
        if self.ceiling == 0:
            return False
        return drafter in self.drafters or (not self.drafters and (self.mode == "auto" or drafter == "model"))

    def choose(self, there: tuple[str, ...]) -> tuple[str, ...]:
        """Who may draft of the drafters that are `there`, in order of preference."""
        if self.ceiling == 0:
            return ()
        names = tuple(name for name in self.drafters or there if name in there)
        return names if self.drafters or self.mode == "auto" else names[:1]

    @property
    def needs_draft_model(self) -> bool:
        """Whether a draft model has anything to do under these settings."""
        return self.uses("model") or self.uses("cascade")

    @model_validator(mode="before")
    @classmethod
    def _imply_mode(cls, data: Any) -> Any:
        return with_mode(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _bounds_agree(self) -> "SpeculationSettings":
        if self.mode == "fixed" and self.draft_min > self.ceiling:
            raise ValueError(f"draft_min {self.draft_min} is above draft_max {self.ceiling}")
        if len(set(self.drafters)) < len(self.drafters):
            raise ValueError("a drafter is named twice")
        if "corpus" in self.drafters and self.corpus is None:
            raise ValueError("the corpus drafter needs a corpus: a file or a folder")
        return self

    @model_serializer(mode="wrap")
    def _keep_mode(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without its mode, what names one of the three would be read as `fixed`."""
        data: dict[str, Any] = handler(self)
        return data if with_mode(data).get("mode", self.mode) == self.mode else {"mode": self.mode, **data}


class RuntimeSettings(Settings):
    """Where and how the models are evaluated."""

    ctx_size: ContextSize = Field(
        4096, description="context in tokens; 0: as many as the model was trained on"
    )
    ctx_size_draft: ContextSize = Field(0, description="context of the draft model; 0: as the main model's")
    gpu_layers: GpuLayers = Field("auto", description="main layers on the GPU: auto (fit), all, or a number")
    gpu_layers_draft: GpuLayers = Field("auto", description="draft layers on the GPU, likewise")
    device: str = Field(
        "auto",
        min_length=1,
        max_length=64,
        description="auto, cpu, cuda, metal, vulkan, …, or a device's own name",
    )
    threads: Threads = Field("auto", description="threads for single tokens; auto: the physical cores")
    threads_batch: Threads = Field("auto", description="threads for batches; auto: as threads")
    flash_attn: Literal["auto", "on", "off"] = "auto"
    cache_type_k: KVType = "f16"
    cache_type_v: KVType = "f16"
    batch_size: int = Field(2048, ge=1, le=65_536, description="most tokens in one decode call")
    ubatch_size: int = Field(512, ge=1, le=65_536, description="most tokens evaluated at once")


class SamplingSettings(Settings):
    """How a token is chosen. Order: penalties, top-k, top-p, min-p, temperature (as llama.cpp), grammar."""

    n_predict: int = Field(-1, ge=-1, le=MAX_CONTEXT, description="most tokens to predict; -1: until the end")
    temperature: float = Field(0.8, ge=0.0, le=100.0, allow_inf_nan=False, description="0: greedy")
    top_k: int = Field(40, ge=0, le=1 << 20, description="0: off")
    top_p: Probability = Field(0.95, description="1: off")
    min_p: Probability = Field(0.05, description="0: off")
    repeat_penalty: float = Field(1.0, ge=0.01, le=10.0, allow_inf_nan=False, description="1: off")
    repeat_last_n: int = Field(
        64, ge=-1, le=MAX_CONTEXT, description="tokens the penalties look back on; -1: all"
    )
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    seed: int = Field(-1, ge=-1, le=(1 << 64) - 1, description="-1: a new one each time")
    ignore_eos: bool = False
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (), max_length=16, description="texts that end the answer", strict=False
    )

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken: so cold, the others have no part in it."""
        return self.temperature < _COLD or self.top_k == 1


class ChatSettings(Settings):
    """How a prompt becomes a conversation."""

    system: str | None = Field(None, max_length=1 << 20, description="system prompt")
    template: str | None = Field(
        None, max_length=1 << 20, description="Jinja chat template, in place of the model file's own"
    )


SECTIONS: dict[str, type[Settings]] = {
    "speculation": SpeculationSettings,
    "runtime": RuntimeSettings,
    "sampling": SamplingSettings,
    "chat": ChatSettings,
}
"""The sections of a profile that flags and environment can override."""
