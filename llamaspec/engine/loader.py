"""From two files and settings to a wired engine: check the headers, fit the devices, load, connect."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from llamaspec.control.auto import Knowledge
from llamaspec.decode.drafters.cascade import FAR_AHEAD, CascadeDrafter
from llamaspec.decode.drafters.corpus import CorpusDrafter
from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.drafters.ngram import NgramDrafter
from llamaspec.decode.ports import Drafter
from llamaspec.engine import fit
from llamaspec.engine.calibrate import calibrate
from llamaspec.engine.corpus import load_corpus
from llamaspec.engine.engine import Engine
from llamaspec.engine.metered import Metered
from llamaspec.errors import PairMismatchError, UsageError
from llamaspec.gguf.checks import check_model
from llamaspec.gguf.facts import ModelFacts, describe
from llamaspec.gguf.header import Header
from llamaspec.gguf.pair import check_pair
from llamaspec.gguf.shards import read_model, stamp
from llamaspec.native import api, devices
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.model import Model
from llamaspec.settings import RuntimeSettings, SpeculationSettings

log = logging.getLogger(__name__)

# Prompt tokens between two looks at whether to stop: about a second on a small machine.
_CPU_CHUNK = 128
_ROWS = 64  # of logits at least, for the tokens of prompts

Mismatch = Literal["stop", "plain"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine with the models behind it, and what it knows of their prices and acceptances.

    `chosen` are the runtime settings that `auto` and 0 stood for, `drafters` the names of those there are.
    `open_plain` makes another engine over the same weights, with a cache of its own and nothing that drafts;
    it is to be closed before this one. Raises OutOfMemoryError.
    """

    engine: Engine
    main: Model
    draft: Model | None
    main_facts: ModelFacts
    draft_facts: ModelFacts | None
    chosen: dict[str, Any]
    drafters: tuple[str, ...]
    knowledge: Knowledge
    open_plain: Callable[[], Engine]


@dataclass(frozen=True, slots=True)
class _Part:
    """One model of the pair before it is loaded."""

    header: Header
    facts: ModelFacts
    context: int


def load_pair(
    main_path: Path,
    draft_path: Path | None,
    runtime: RuntimeSettings,
    speculation: SpeculationSettings,
    *,
    draft_mismatch: Mismatch = "stop",
    recall: Callable[[Mapping[str, Any]], Knowledge] = lambda chosen: Knowledge(),
    corpus_cache: Path | None = None,
    slots: int = 1,
    spare: int = 0,
) -> Loaded:
    """Load a main model and, unless there is none, its draft model.

    Up to `slots` requests run at a time and share the context; `spare` texts that have ended are kept beside
    them, where the model's state allows it. `recall` is asked what is known of this pair under the settings
    that were chosen; what mode `auto` needs to know and nobody knows yet is measured. `corpus_cache` is a
    folder for what is made of a corpus.

    Both headers are checked before llama.cpp sees the files. Raises ModelFileError, PairMismatchError
    (unless `draft_mismatch` is "plain": then it is told and the draft left out), OutOfMemoryError,
    DeviceError, UsageError.
    """
    if runtime.flash_attn == "off" and runtime.cache_type_v not in ("f32", "f16", "bf16"):
        raise UsageError("A quantised V cache needs flash attention.", "Drop -fa off, or use -ctv f16.")
    main = _read(main_path, runtime.ctx_size, 0)
    draft = _read(draft_path, runtime.ctx_size_draft, main.context) if draft_path else None
    if draft is not None:
        try:
            check_pair(main.header, draft.header)
        except PairMismatchError as error:
            if draft_mismatch != "plain":
                raise
            log.error("Going on without the draft model: %s", error.message)
            draft = None

    if draft is not None and draft.context < main.context:
        log.warning("Nothing is drafted beyond the draft model's context of %d tokens.", draft.context)
    api.start()
    rows = (
        slots * (speculation.ceiling + 1)
        if slots + spare == 1
        else max(slots * (speculation.ceiling + 1), _ROWS)
    )
    usable = devices.select(runtime.device, devices.list_devices())
    _tell_of_devices(runtime, usable)
    checked = slots * (FAR_AHEAD + 1)
    cells = [main.context]
    footprints = [_footprint(main, runtime, main.context, rows)]
    if draft is not None:
        own = (slots + spare) * draft.context
        cells.append(draft.context if slots + spare == 1 else min(main.context, own) + rows)
        footprints.append(_footprint(draft, runtime, cells[1], checked))
    plan = fit.plan(
        usable, *footprints, main_layers=runtime.gpu_layers, draft_layers=runtime.gpu_layers_draft
    )
    for reason in plan.reasons if usable else ():
        log.info("%s", reason)
    layers = (plan.main_layers, plan.draft_layers)
    needed = {
        name: footprint.host_bytes(count)
        for name, footprint, count in zip(("main", "draft"), footprints, layers, strict=False)
    }
    fit.check_host_memory(needed, devices.available_memory())

    threads = devices.physical_cores() if runtime.threads == "auto" else runtime.threads
    threads_batch = threads if runtime.threads_batch == "auto" else runtime.threads_batch
    chunk = runtime.ubatch_size if plan.main_layers else min(_CPU_CHUNK, runtime.ubatch_size)
    with ExitStack() as opened:
        contexts: list[Context] = []
        models: list[Model] = []
        made_with: list[ContextOptions] = []
        for part, count, split in zip(
            (main, draft), layers, (plan.main_split, plan.draft_split), strict=True
        ):
            if part is None:
                continue
            model = opened.enter_context(
                Model(
                    part.header.path,
                    gpu_layers=count,
                    devices=[device.handle for device in usable] if count else (),
                    tensor_split=split if count and len(split) > 1 else (),
                )
            )
            spare = spare if model.keeps_all_positions else 0
            options = ContextOptions(
                context_size=part.context,
                cells=cells[len(contexts)],
                sequences=slots + spare,
                batch_size=min(runtime.batch_size, cells[len(contexts)]),
                ubatch_size=runtime.ubatch_size,
                max_rows=rows if part is main else checked,
                rollback=speculation.ceiling if part is main else 0,
                threads=threads,
                threads_batch=threads_batch,
                flash_attn=runtime.flash_attn,
                cache_type_k=runtime.cache_type_k,
                cache_type_v=runtime.cache_type_v,
            )
            models.append(model)
            made_with.append(options)
            contexts.append(opened.enter_context(Context(model, options)))
        chosen = {
            "ctx_size": main.context,
            "ctx_size_draft": draft.context if draft else None,
            "gpu_layers": plan.main_layers,
            "gpu_layers_draft": plan.draft_layers if draft else None,
            "devices": [device.name for device in usable if any(layers)],
            "threads": threads,
            "threads_batch": threads_batch,
        }
        knowledge = recall(chosen)
        drafters = _drafters(speculation, contexts, models, knowledge, corpus_cache, chunk)
        if speculation.mode == "auto" and drafters:
            # OpenMP keeps a team of threads for each thread that has computed, until that one ends. Two teams
            # are more threads than processors, and then none waits for work awake any more: whoever decodes
            # on another thread than this, as a server does, would take up to half as long again.
            with ThreadPoolExecutor(1) as aside:
                prices, drafting = knowledge.prices, contexts[1] if draft else None
                aside.submit(calibrate, prices, contexts[0], drafting, speculation.ceiling).result()
        engine = Engine(
            Metered(contexts[0], all_rows=knowledge.prices.main),
            models[0],
            drafters,
            knowledge=knowledge,
            slots=slots,
            spare=spare,
            prompt_chunk=chunk,
            on_close=opened.pop_all().close,
        )

    def open_plain() -> Engine:
        fit.check_host_memory({"plain": footprints[0].beside(layers[0])}, devices.available_memory())
        context = Context(models[0], replace(made_with[0], sequences=1, max_rows=1, rollback=0))
        return Engine(context, models[0], prompt_chunk=chunk, on_close=context.close)

    draft_facts = draft.facts if draft else None
    names = tuple(drafter.name for drafter in drafters)
    draft_model = models[1] if draft is not None else None
    return Loaded(
        engine, models[0], draft_model, main.facts, draft_facts, chosen, names, knowledge, open_plain
    )


def memory_needed(main: Path, draft: Path | None, runtime: RuntimeSettings) -> dict[str, int]:
    """Bytes that a pair takes for one request, weights on GPUs included, by model.

    Raises ModelFileError for what is no sound model.
    """
    part = _read(main, runtime.ctx_size, 0)
    rows = SpeculationSettings().ceiling + 1
    needed = {"main": _footprint(part, runtime, part.context, rows).host_bytes(0)}
    if draft is not None:
        other = _read(draft, runtime.ctx_size_draft, part.context)
        needed["draft"] = _footprint(other, runtime, other.context, FAR_AHEAD + 1).host_bytes(0)
    return needed


def _drafters(
    speculation: SpeculationSettings,
    contexts: list[Context],
    models: list[Model],
    knowledge: Knowledge,
    corpus_cache: Path | None,
    chunk: int,
) -> list[Drafter]:
    """All that can be had: the draft model's first, which `fixed` takes unless others are named."""
    main, *draft = contexts
    if speculation.ceiling == 0:
        return []
    if speculation.mode == "auto" and not main.can_roll_back(speculation.ceiling):
        log.warning("This model's state can't be taken back after a rejected draft: nothing is drafted.")
        return []
    drafters: list[Drafter] = []
    ngram = NgramDrafter()
    if draft:
        metered = Metered(draft[0], all_rows=knowledge.prices.check, each=knowledge.prices.draft)
        model = ModelDrafter(metered, models[0].vocab_size, models[1].eos or 0, chunk)
        drafters += [model, CascadeDrafter(model, ngram)]
    drafters.append(ngram)
    if speculation.corpus is not None and not speculation.uses("corpus"):
        log.warning("The corpus is not used: no drafter that may draft looks into it (--drafters corpus).")
    elif speculation.corpus is not None:
        index = load_corpus(
            Path(speculation.corpus).expanduser(),
            lambda text: models[0].tokenize(text, special=False),
            corpus_cache or Path(tempfile.gettempdir()),
            stamp(models[0].path),
        )
        drafters.append(CorpusDrafter(index))
    return drafters


def _read(path: Path, context: int, main_context: int) -> _Part:
    """A sound file's header and facts, and its context: as asked for, else as the main's, else as trained."""
    header = read_model(path)
    check_model(header)
    facts = describe(header)
    trained = facts.context_train
    if context > trained:
        log.warning("%s was trained on %d tokens of context, not %d.", path.name, trained, context)
    return _Part(header, facts, context or min(main_context or trained, trained))


def _tell_of_devices(runtime: RuntimeSettings, usable: list[devices.Device]) -> None:
    if usable or runtime.device == "cpu":
        return
    if hint := devices.unused_gpu_hint():
        log.warning("%s", hint)
    else:
        log.info("No GPU that the installed llama.cpp can use: everything runs on the CPU.")
    asked = [layers for layers in (runtime.gpu_layers, runtime.gpu_layers_draft) if layers not in ("auto", 0)]
    if asked:
        log.warning("GPU layers were asked for (%s), and there is no GPU to put them on.", asked[0])


def _footprint(part: _Part, runtime: RuntimeSettings, cells: int, rows: int) -> fit.Footprint:
    facts, tensors = part.facts, part.header.tensors
    embedding = sum(tensor.bytes for tensor in tensors if tensor.name.startswith("token_embd."))
    tied = not any(tensor.name == "output.weight" for tensor in tensors)
    widest = max((max(tensor.shape) for tensor in tensors if ".ffn_" in tensor.name), default=facts.embedding)
    ubatch = min(runtime.ubatch_size, runtime.batch_size)
    per_token = facts.kv_bytes_per_token(runtime.cache_type_k, runtime.cache_type_v)
    return fit.Footprint(
        layer_bytes=facts.layer_bytes,
        kv_bytes=tuple(size * cells for size in per_token),
        input_bytes=embedding,
        output_bytes=embedding if tied else facts.other_bytes - embedding,
        tied_output=tied,
        compute_bytes=fit.compute_bytes(
            ubatch=ubatch,
            embedding=facts.embedding,
            feed_forward=widest,
            context=part.context,
            heads=facts.heads,
            flash_attention=runtime.flash_attn != "off",
        ),
        logits_bytes=fit.logits_bytes(vocabulary=facts.vocab_size, rows=rows),
    )
