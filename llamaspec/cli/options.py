"""Options that several commands share, under llama.cpp's names.

A parameter that sets something is named as the settings' key, so that `overrides` can tell where
it goes. Each has an environment variable `LLAMASPEC_` + its name; a flag wins over it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llamaspec.cli import completion

if TYPE_CHECKING:
    from llamaspec.settings import RuntimeSettings

_MODELS, _SPECULATION, _RUNTIME, _SAMPLING = "Models", "Speculation", "Runtime", "Sampling"


def overrides(parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings that a command's parameters name, by section; what was not given is left out."""
    from llamaspec.settings import SECTIONS

    return {
        section: {
            key: parameters[key] for key in settings.model_fields if parameters.get(key) not in (None, [], ())
        }
        for section, settings in SECTIONS.items()
    }


def runtime_settings(parameters: Mapping[str, Any]) -> "RuntimeSettings":
    """The runtime settings that a command's parameters make. Raises UsageError for what is out of bounds."""
    from pydantic import ValidationError

    from llamaspec.errors import UsageError
    from llamaspec.profiles.problems import dotted, find_problems
    from llamaspec.settings import RuntimeSettings

    values = overrides(parameters)["runtime"]
    try:
        return RuntimeSettings.model_validate(values)
    except ValidationError as error:
        found = find_problems(error, RuntimeSettings, values, {})
        raise UsageError("\n".join(f"{dotted(key)}: {text}" for key, text in found)) from None


def speculation(parameters: Mapping[str, Any], flags: Set[str]) -> dict[str, Any]:
    """The speculation settings that a command's parameters name; `flags`: those given as flags.

    Raises UsageError where they contradict each other.
    """
    values = overrides(parameters)["speculation"]
    if parameters["no_spec"]:
        if "mode" in flags and values["mode"] != "off":
            from llamaspec.errors import UsageError

            raise UsageError(f"--no-spec and --spec {values['mode']} contradict each other.", "Drop one.")
        values["mode"] = "off"
    elif "mode" not in flags and flags & {"draft_max", "draft_min", "p_min"}:
        values.pop("mode", None)  # the environment's: what these flags mean wins over it
    _refuse_idle(values.get("mode"), flags)
    return values


def _refuse_idle(mode: str | None, flags: Set[str]) -> None:
    """Nothing that is named on the command line may be without effect."""
    from llamaspec.errors import UsageError

    without_effect = {
        "off": {"draft_max", "draft_min", "p_min", "drafters", "corpus"},
        "auto": {"draft_min", "p_min"},
    }
    if idle := flags & without_effect.get(str(mode), set()):
        names = ", ".join("--" + {"p_min": "draft-p-min"}.get(n, n.replace("_", "-")) for n in sorted(idle))
        raise UsageError(f"{names} has no effect with --spec {mode}.", "Drop one of them.")


def given(context: typer.Context) -> set[str]:
    """Parameters that were given as flags, not by the environment."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) is not None and source.name == "COMMANDLINE"
    }


def _layers(text: str) -> int | str:
    return text if text in ("auto", "all") else _integer(text, "auto, all or a number of layers")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _threads(text: str) -> int | str:
    return "auto" if text in ("auto", "-1") else _integer(text, "auto or a number of threads")


def _integer(text: str, wanted: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not {wanted}.") from None


def in_panel(*names: str, panel: str, help: str, **more: Any) -> Any:
    """A flag of one command alone, in a part of its help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _option(*names: str, key: str, help: str, panel: str, **more: Any) -> Any:
    envvar = f"LLAMASPEC_{key.upper()}"
    return in_panel(*names, help=help, panel=panel, envvar=envvar, show_default=False, **more)


MainModel = Annotated[
    str,
    typer.Argument(
        metavar="MAIN",
        autocompletion=completion.models,
        help="The main model: a path or a hub reference.",
    ),
]


Profile = Annotated[
    str | None,
    _option(
        "--profile",
        "-p",
        key="profile",
        panel=_MODELS,
        autocompletion=completion.profiles,
        help="Profile: a name, a YAML file or an address.",
    ),
]
Model = Annotated[
    str | None,
    _option(
        "-m",
        "--model",
        key="model",
        panel=_MODELS,
        autocompletion=completion.models,
        help="Main model: a file, owner/repo:QUANT or owner/repo/file.gguf. Replaces the profile's pair.",
    ),
]
ModelDraft = Annotated[
    str | None,
    _option(
        "-md",
        "--model-draft",
        key="model_draft",
        panel=_MODELS,
        autocompletion=completion.models,
        help="Draft model, named likewise.",
    ),
]
DraftMismatch = Annotated[
    Literal["stop", "plain"],
    typer.Option(
        "--draft-mismatch",
        rich_help_panel=_MODELS,
        help="When the draft model's vocabulary is another one: stop, or go on without it.",
    ),
]

Spec = Annotated[
    Literal["auto", "fixed", "off"] | None,
    _option(
        "--spec",
        key="spec",
        panel=_SPECULATION,
        metavar="auto|fixed|off",
        help="auto drafts what pays here; fixed by the settings below, naming which means it; off nothing.",
    ),
]
NoSpec = Annotated[
    bool, typer.Option("--no-spec", rich_help_panel=_SPECULATION, help="Plain decoding, as --spec off.")
]
Drafters = Annotated[
    Any,
    _option(
        "--drafters",
        key="drafters",
        panel=_SPECULATION,
        parser=_names,
        metavar="NAME,…",
        autocompletion=completion.drafters,
        help="Who may draft: model, ngram, corpus, cascade. Without: all there are (fixed: the first).",
    ),
]
Corpus = Annotated[
    str | None,
    _option(
        "--corpus",
        key="corpus",
        panel=_SPECULATION,
        metavar="PATH",
        help="File or folder of text that answers may repeat, for the corpus drafter.",
    ),
]
DraftMax = Annotated[
    int | None,
    _option(
        "--draft-max",
        "--draft",
        key="draft_max",
        panel=_SPECULATION,
        help="Most tokens drafted in a round; with --spec auto the ceiling.",
    ),
]
DraftMin = Annotated[
    int | None,
    _option("--draft-min", key="draft_min", panel=_SPECULATION, help="A shorter draft is not verified."),
]
PMin = Annotated[
    float | None,
    _option(
        "--draft-p-min",
        key="p_min",
        panel=_SPECULATION,
        help="Stop drafting where the draft's best token is less probable.",
    ),
]

CtxSize = Annotated[
    int | None,
    _option("-c", "--ctx-size", key="ctx_size", panel=_RUNTIME, help="Context in tokens; 0: as trained."),
]
LongCtxSize = Annotated[
    int | None,
    _option("--ctx-size", key="ctx_size", panel=_RUNTIME, help="Context in tokens; 0: as trained."),
]
CtxSizeDraft = Annotated[
    int | None,
    _option(
        "-cd", "--ctx-size-draft", key="ctx_size_draft", panel=_RUNTIME, help="The draft's; 0: as the main's."
    ),
]
GpuLayers = Annotated[
    Any,
    _option(
        "-ngl",
        "--gpu-layers",
        "--n-gpu-layers",
        key="gpu_layers",
        panel=_RUNTIME,
        parser=_layers,
        metavar="auto|all|N",
        help="Main layers on the GPU; auto fits them.",
    ),
]
GpuLayersDraft = Annotated[
    Any,
    _option(
        "-ngld",
        "--gpu-layers-draft",
        "--n-gpu-layers-draft",
        key="gpu_layers_draft",
        panel=_RUNTIME,
        parser=_layers,
        metavar="auto|all|N",
        help="Draft layers on the GPU.",
    ),
]
Device = Annotated[
    str | None,
    _option(
        "--device",
        key="device",
        panel=_RUNTIME,
        metavar="auto|cpu|cuda|metal|vulkan|…",
        autocompletion=completion.devices,
        help="Where to compute, or a device's own name.",
    ),
]
Threads = Annotated[
    Any,
    _option(
        "-t",
        "--threads",
        key="threads",
        panel=_RUNTIME,
        parser=_threads,
        metavar="auto|N",
        help="CPU threads.",
    ),
]
ThreadsBatch = Annotated[
    Any,
    _option(
        "-tb",
        "--threads-batch",
        key="threads_batch",
        panel=_RUNTIME,
        parser=_threads,
        metavar="auto|N",
        help="CPU threads for prompts and verification.",
    ),
]
FlashAttn = Annotated[
    Literal["auto", "on", "off"] | None,
    _option(
        "-fa",
        "--flash-attn",
        key="flash_attn",
        panel=_RUNTIME,
        metavar="auto|on|off",
        help="Flash attention.",
    ),
]
CacheTypeK = Annotated[
    str | None,
    _option(
        "-ctk",
        "--cache-type-k",
        key="cache_type_k",
        panel=_RUNTIME,
        metavar="TYPE",
        autocompletion=completion.kv_types,
        help="f16, q8_0, q4_0, …",
    ),
]
CacheTypeV = Annotated[
    str | None,
    _option(
        "-ctv",
        "--cache-type-v",
        key="cache_type_v",
        panel=_RUNTIME,
        metavar="TYPE",
        autocompletion=completion.kv_types,
        help="Likewise for V.",
    ),
]
BatchSize = Annotated[
    int | None,
    _option("-b", "--batch-size", key="batch_size", panel=_RUNTIME, help="Most tokens in one decode."),
]
UbatchSize = Annotated[
    int | None,
    _option("-ub", "--ubatch-size", key="ubatch_size", panel=_RUNTIME, help="Most tokens evaluated at once."),
]

NPredict = Annotated[
    int | None,
    _option(
        "-n", "--predict", "--n-predict", key="n_predict", panel=_SAMPLING, help="Most tokens; -1: no limit."
    ),
]
Temperature = Annotated[
    float | None, _option("--temp", "--temperature", key="temperature", panel=_SAMPLING, help="0: greedy.")
]
TopK = Annotated[int | None, _option("--top-k", key="top_k", panel=_SAMPLING, help="0: off.")]
TopP = Annotated[float | None, _option("--top-p", key="top_p", panel=_SAMPLING, help="1: off.")]
MinP = Annotated[float | None, _option("--min-p", key="min_p", panel=_SAMPLING, help="0: off.")]
RepeatPenalty = Annotated[
    float | None, _option("--repeat-penalty", key="repeat_penalty", panel=_SAMPLING, help="1: off.")
]
RepeatLastN = Annotated[
    int | None,
    _option(
        "--repeat-last-n",
        key="repeat_last_n",
        panel=_SAMPLING,
        help="Tokens penalties look back on; -1: all.",
    ),
]
PresencePenalty = Annotated[
    float | None, _option("--presence-penalty", key="presence_penalty", panel=_SAMPLING, help="0: off.")
]
FrequencyPenalty = Annotated[
    float | None, _option("--frequency-penalty", key="frequency_penalty", panel=_SAMPLING, help="0: off.")
]
Seed = Annotated[
    int | None, _option("-s", "--seed", key="seed", panel=_SAMPLING, help="-1: a new one each time.")
]
IgnoreEos = Annotated[
    bool | None,
    _option("--ignore-eos", key="ignore_eos", panel=_SAMPLING, help="Go on until the limit is reached."),
]
Stop = Annotated[
    list[str] | None,
    typer.Option(
        "--stop", "-r", rich_help_panel=_SAMPLING, show_default=False, help="Text that ends the answer."
    ),
]
Grammar = Annotated[
    str | None,
    typer.Option(
        "--grammar", rich_help_panel=_SAMPLING, show_default=False, help="GBNF that the answer obeys."
    ),
]
GrammarFile = Annotated[
    Path | None,
    typer.Option("--grammar-file", rich_help_panel=_SAMPLING, show_default=False, help="GBNF from a file."),
]
JsonSchema = Annotated[
    str | None,
    typer.Option(
        "-j",
        "--json-schema",
        rich_help_panel=_SAMPLING,
        show_default=False,
        help="JSON schema that the answer obeys.",
    ),
]
System = Annotated[
    str | None,
    typer.Option("--system", "-sys", show_default=False, help="System prompt.", envvar="LLAMASPEC_SYSTEM"),
]

_OF_SPECULATION: dict[str, Any] = {
    "mode": Spec,
    "no_spec": NoSpec,
    "drafters": Drafters,
    "corpus": Corpus,
    "draft_max": DraftMax,
    "draft_min": DraftMin,
    "p_min": PMin,
}
_OF_RUNTIME: dict[str, Any] = {
    "ctx_size": CtxSize,
    "ctx_size_draft": CtxSizeDraft,
    "gpu_layers": GpuLayers,
    "gpu_layers_draft": GpuLayersDraft,
    "device": Device,
    "threads": Threads,
    "threads_batch": ThreadsBatch,
    "flash_attn": FlashAttn,
    "cache_type_k": CacheTypeK,
    "cache_type_v": CacheTypeV,
    "batch_size": BatchSize,
    "ubatch_size": UbatchSize,
}
_OF_SAMPLING: dict[str, Any] = {
    "n_predict": NPredict,
    "temperature": Temperature,
    "top_k": TopK,
    "top_p": TopP,
    "min_p": MinP,
    "repeat_penalty": RepeatPenalty,
    "repeat_last_n": RepeatLastN,
    "presence_penalty": PresencePenalty,
    "frequency_penalty": FrequencyPenalty,
    "seed": Seed,
    "ignore_eos": IgnoreEos,
    "stop": Stop,
}


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command every option that sets something of a loaded pair, after its own ones.

    It finds them in its context's `params`, under the settings' names. One that it has itself is not given.
    """
    return _taking(command, _OF_SPECULATION | _OF_RUNTIME | _OF_SAMPLING)


def takes_runtime(command: Callable[..., None]) -> Callable[..., None]:
    """The same with those options alone that say where and how models are evaluated."""
    return _taking(command, _OF_RUNTIME)


def _taking(command: Callable[..., None], options: Mapping[str, Any]) -> Callable[..., None]:
    own = inspect.signature(command)
    options = {name: option for name, option in options.items() if name not in own.parameters}
    named = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, named, default=False if name == "no_spec" else None, annotation=option)
        for name, option in options.items()
    ]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        command(**{name: given[name] for name in own.parameters})

    parameters = [each.replace(kind=named) for each in own.parameters.values()]
    called.__signature__ = own.replace(parameters=[*parameters, *shared])  # type: ignore[attr-defined]
    called.__annotations__ = {**command.__annotations__, **options}
    return called
