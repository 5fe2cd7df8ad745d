"""llama.cpp's own llama-server, measured beside llamaspec: the same files, settings and prompts.

Flags are spelled as the program's `--help` has them: they have been renamed more than once.
"""

import re
import shutil
import subprocess
from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from llamaspec.bench.local_server import LocalServer, clean_environment
from llamaspec.bench.paired import WARM_UP
from llamaspec.bench.report import RunRecord
from llamaspec.closing import Closing
from llamaspec.errors import UsageError
from llamaspec.events import FinishReason
from llamaspec.native.devices import list_devices, physical_cores, select
from llamaspec.settings import RuntimeSettings, SpeculationSettings

_HELP_SECONDS = 60
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_FORM = "Write --peer llama-server=PATH."
_FINISH = {"limit": FinishReason.LENGTH, "eos": FinishReason.STOP, "word": FinishReason.STOP}


def parse_peer(text: str) -> tuple[str, Path]:
    """`llama-server=PATH` as the name that tables show, which may be another, and the program's path.

    Raises UsageError for another form, and where there is no such program.
    """
    name, separator, place = text.partition("=")
    if not separator or not place:
        raise UsageError(f"{text!r} names no peer.", _FORM)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a peer: small letters, digits, dots and dashes.", _FORM)
    found = shutil.which(Path(place).expanduser())
    if found is None:
        raise UsageError(f"There is no program {place}.", "Give the path of llama.cpp's llama-server.")
    return name, Path(found)


class PeerServer(Closing):
    """A llama-server of its own, loaded and warmed up, until `close`.

    `draft` is used where `speculation` drafts: with the draft model alone, and by fixed settings.
    `command` is what was started, `text` that of the last answer. Raises UsageError for other settings and
    for a program that can't be told of them, ServerError where it does not start.
    """

    def __init__(
        self,
        program: Path,
        main: Path,
        draft: Path | None = None,
        *,
        speculation: SpeculationSettings,
        runtime: RuntimeSettings,
        name: str = "llama-server",
    ) -> None:
        options = Options.of(program)
        self.command = (str(program), *flags(options, main, draft, speculation, runtime))
        self.text = ""
        self._server = LocalServer(name, self.command, clean_environment())
        try:
            self.answer(WARM_UP, 8)
        except BaseException:
            self.close()
            raise

    def answer(self, prompt_text: str, n_predict: int) -> RunRecord:
        """Continue a text as it is, greedily and without a cache. Times are the server's own.

        The answer comes whole: sending each token by itself takes a small model some percent of its speed.
        So there are no times of tokens. Raises ServerError with the end of the server's log.
        """
        request = {
            "prompt": prompt_text,
            "n_predict": n_predict,
            "temperature": 0.0,
            "cache_prompt": False,
        }
        try:
            answer = _Answer.model_validate_json(self._server.post("/completion", request))
        except ValidationError:
            raise self._server.failure("answers in a way that is not understood") from None
        self.text, timings = answer.content, answer.timings
        return RunRecord(
            predicted=timings.predicted_n,
            timed_tokens=max(0, timings.predicted_n - 1),  # the first comes with the end of the prompt
            seconds=timings.predicted_ms / 1000,
            prompt_tokens=timings.prompt_n,
            prompt_seconds=timings.prompt_ms / 1000,
            drafted=timings.draft_n,
            accepted=timings.draft_n_accepted,
            finish=_FINISH.get(answer.stop_type),
        )

    def close(self) -> None:
        self._server.close()


class _Timings(BaseModel):
    """The numbers of drafts are left out where nothing was drafted."""

    prompt_n: int = Field(ge=0)
    prompt_ms: float = Field(ge=0, allow_inf_nan=False)
    predicted_n: int = Field(ge=0)
    predicted_ms: float = Field(ge=0, allow_inf_nan=False)
    draft_n: int = Field(0, ge=0)
    draft_n_accepted: int = Field(0, ge=0)


class _Answer(BaseModel):
    content: str
    stop_type: str = ""
    timings: _Timings


class Options:
    """What a llama-server takes, by its `--help`: the head of an entry lists an option's names."""

    def __init__(self, help_text: str) -> None:
        self._entries: dict[str, str] = {}
        for entry in re.split(r"\n(?=-)", help_text):
            head = re.match(r"(?:--?[A-Za-z][\w-]*,?\s+)+", entry + " ")
            if head and "argument has been removed" not in entry:
                self._entries |= dict.fromkeys(re.findall(r"--?[A-Za-z][\w-]*", head[0]), entry)

    @classmethod
    def of(cls, program: Path) -> "Options":
        """Raises UsageError for what can't be run, or is no llama-server."""
        try:
            done = subprocess.run(
                [program, "--help"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=clean_environment(),
                timeout=_HELP_SECONDS,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"{program} can't be run: {error.strerror or error}.") from None
        except subprocess.TimeoutExpired:
            raise UsageError(f"{program} --help takes for ever: no llama-server.") from None
        options = cls(done.stdout)
        if done.returncode:
            end = "\n".join(done.stdout.splitlines()[-5:])
            raise UsageError(f"{program} --help ended with {done.returncode}.\n{end}", _FORM)
        if not options.first("--ctx-size"):
            raise UsageError(f"{program} is no llama-server: it has no --ctx-size.", _FORM)
        return options

    def first(self, *names: str) -> str | None:
        """The first of several names of an option that the program knows."""
        return next((name for name in names if name in self._entries), None)

    def offers(self, name: str, value: str) -> bool:
        """Whether an option's entry speaks of this value."""
        return value in self._entries.get(name, "")

    def spell(self, *names: str) -> str:
        """As `first`. Raises UsageError where it knows none of them."""
        if (name := self.first(*names)) is None:
            raise UsageError(
                f"The peer has no option {names[0]}.", "Use the llama-server of a newer llama.cpp."
            )
        return name


def flags(
    options: Options,
    main: Path,
    draft: Path | None,
    speculation: SpeculationSettings,
    runtime: RuntimeSettings,
) -> list[str]:
    """One slot, no caches of prompts, and the settings that llamaspec would take itself.

    Raises UsageError for speculation that llama-server does not have, and DeviceError.
    """
    threads = physical_cores() if runtime.threads == "auto" else runtime.threads
    batch = threads if runtime.threads_batch == "auto" else runtime.threads_batch
    line = ["-m", str(main), "-c", str(runtime.ctx_size), "-t", str(threads), "-tb", str(batch)]
    line += ["-b", str(runtime.batch_size), "-ub", str(runtime.ubatch_size), "-np", "1"]
    for name in filter(options.first, ("--cache-ram", "--ctx-checkpoints")):
        line += [name, "0"]
    if runtime.device != "auto":
        line += ["-dev", ",".join(each.name for each in select(runtime.device, list_devices())) or "none"]
    if runtime.gpu_layers != "auto":
        line += ["-ngl", str(runtime.gpu_layers)]
    if runtime.flash_attn != "auto":
        line += ["-fa", runtime.flash_attn]
    for name, kv_type in (("-ctk", runtime.cache_type_k), ("-ctv", runtime.cache_type_v)):
        if kv_type != "f16":
            line += [name, kv_type]
    return line + _drafting(options, draft, speculation, runtime)


def _drafting(
    options: Options, draft: Path | None, speculation: SpeculationSettings, runtime: RuntimeSettings
) -> list[str]:
    if speculation.mode == "auto":
        raise UsageError(
            "llama-server has no mode auto.", "Compare it with plain, default or fixed:MAX:PMIN of its own."
        )
    if speculation.ceiling == 0:
        return []
    if speculation.choose(("model",)) != ("model",) or draft is None:
        raise UsageError("A peer drafts with a draft model alone.", "Name one, or measure the peer plain.")
    line = ["-md", str(draft)]
    if options.offers("--spec-type", "draft-simple"):
        line += ["--spec-type", "draft-simple"]
    line += [options.spell("--spec-draft-n-max", "--draft-max", "--draft"), str(speculation.ceiling)]
    line += [options.spell("--spec-draft-n-min", "--draft-min"), str(speculation.draft_min)]
    line += [options.spell("--spec-draft-p-min", "--draft-p-min"), str(speculation.p_min)]
    if runtime.gpu_layers_draft != "auto":
        line += [options.spell("-ngld", "--gpu-layers-draft"), str(runtime.gpu_layers_draft)]
    for name, kv_type in (("-ctkd", runtime.cache_type_k), ("-ctvd", runtime.cache_type_v)):
        if kv_type != "f16":
            line += [options.spell(name), kv_type]
    if runtime.ctx_size_draft and (context := options.first("-cd", "--ctx-size-draft")):
        line += [context, str(runtime.ctx_size_draft)]
    return line
