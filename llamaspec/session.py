"""A loaded pair, ready to generate: profile → files → engine. What `run` and other programs use."""

import logging
import secrets
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from llamaspec.closing import Closing
from llamaspec.control.auto import Knowledge
from llamaspec.control.breakeven import break_even
from llamaspec.decode.ports import Grammar
from llamaspec.decode.sequence import Request
from llamaspec.engine.loader import Loaded, load_pair
from llamaspec.errors import FileMissingError, UsageError
from llamaspec.events import FinishEvent, FinishReason, ProgressEvent, RoundEvent, TextEvent
from llamaspec.gguf.shards import stamp
from llamaspec.hub.cache import cache_root
from llamaspec.hub.fetch import fetch, resolve
from llamaspec.hub.models import LocalModel, Progress
from llamaspec.machine import describe_machine
from llamaspec.native.api import binding_version
from llamaspec.native.grammar import NativeGrammar, schema_to_grammar
from llamaspec.native.vetting import GrammarVetter
from llamaspec.profiles import DEFAULT_PROFILE, Profile, find_profile, overlay
from llamaspec.profiles.tuned import tuned_elsewhere, tuned_with_others
from llamaspec.provenance import Provenance
from llamaspec.remembered import Remembered
from llamaspec.stats import Stats
from llamaspec.templates import CHATML, TemplateRenderer

Message = Mapping[str, Any]
Overrides = Mapping[str, Mapping[str, object]]
"""Settings by section that take the place of the profile's."""

_KEPT_TEXTS = 8  # conversations that a server keeps in the KV cache beside those that run

_SHOWN_WIDTHS = (1, 2, 4, 8, 16)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where speculative and plain text part, and how far apart the main model has the two tokens."""

    position: int
    speculative: str
    plain: str
    logit_gap: float


class Session(Closing):
    """A pair that is loaded, and the `template` of its conversations.

    After a generation `stats` and `finish_reason` tell how it went.
    """

    def __init__(
        self,
        profile: Profile,
        files: Sequence[LocalModel],
        loaded: Loaded,
        remembered: Remembered | None = None,
    ) -> None:
        """`files` are main and, unless there is none, draft. What was learnt goes to `remembered`."""
        self.profile = profile
        self.files = tuple(files)
        self.loaded = loaded
        self.stats = Stats()
        self.finish_reason: FinishReason | None = None
        self.template = profile.chat.template or loaded.main_facts.chat_template or CHATML
        model = loaded.main
        self._renderer = TemplateRenderer(
            self.template, model.special_text(model.bos), model.special_text(model.eos)
        )
        self._vetter: GrammarVetter | None = None
        self._seed: int | None = None
        self._remembered = remembered

    def chat(
        self,
        prompt: str | Sequence[Message],
        *,
        grammar: str | None = None,
        settings: Overrides | None = None,
    ) -> Generator[TextEvent]:
        """Answer a prompt, or a conversation as messages of `role` and `content`.

        `settings` overrides the profile for this answer: `{"sampling": {"temperature": 0.0}}`.
        """
        return self.complete(self.render(prompt, settings), grammar=grammar, settings=settings)

    def complete(
        self,
        text: str,
        *,
        grammar: str | None = None,
        settings: Overrides | None = None,
    ) -> Generator[TextEvent]:
        """Go on from a text as it stands, without a template."""
        return self.generate(self.request(text, grammar=grammar, settings=settings))

    def request(
        self,
        text: str,
        *,
        grammar: str | None = None,
        settings: Overrides | None = None,
        explain: bool = False,
    ) -> Request:
        """What to generate from a text under the profile's settings and `settings` over them.

        With `explain`, `generate` tells its `on_round` of every round.
        """
        tokens = self.loaded.main.tokenize(text)
        constraint = self.grammar(grammar) if grammar is not None else None
        request = self.prepare(tokens, grammar=constraint, settings=settings, explain=explain)
        self._seed = request.sampling.seed
        return request

    def prepare(
        self,
        tokens: Sequence[int],
        *,
        grammar: Grammar | None = None,
        settings: Overrides | None = None,
        **fields: Any,
    ) -> Request:
        """The same from tokens; `fields` are other ones of the request. Safe to call from several threads."""
        profile = self._overlaid(settings)
        sampling = profile.sampling
        repeatable = sampling.seed >= 0 and profile.speculation.mode == "auto"
        if sampling.seed < 0:
            sampling = sampling.model_copy(update={"seed": secrets.randbits(63)})
        return Request(tuple(tokens), sampling, profile.speculation, grammar, repeatable, **fields)

    def schema_grammar(self, schema: str) -> str:
        """GBNF for the texts that a JSON schema allows. Raises GrammarError."""
        return schema_to_grammar(schema)

    def get_ready_for_strangers(self) -> GrammarVetter:
        """Start the process that tries their grammars out, unless it is there."""
        if self._vetter is None:
            self._vetter = GrammarVetter(self.files[0].path)
        return self._vetter

    def grammar(self, gbnf: str, *, foreign: bool = False) -> Grammar:
        """A constraint for one request. Raises GrammarError.

        One that is `foreign`, somebody else's, is tried out in a process of its own first.
        """
        if foreign:
            self.get_ready_for_strangers().check(gbnf)
        return NativeGrammar(self.loaded.main, gbnf)

    def _overlaid(self, settings: Mapping[str, Mapping[str, object]] | None) -> Profile:
        if not settings:
            return self.profile
        profile = overlay(self.profile, settings)
        if profile.runtime != self.profile.runtime:
            raise UsageError(
                "Runtime settings are chosen when the models are loaded.", "Give them to load()."
            )
        asked, there = profile.speculation, self.profile.speculation
        if asked.corpus != there.corpus or (asked.mode == "auto" and there.mode == "fixed"):
            raise UsageError(
                "A corpus is read, and what mode auto needs to know is measured, when the models are loaded.",
                "Give these settings to load().",
            )
        if asked.mode != "off" and (missing := set(asked.drafters) - set(self.loaded.drafters)):
            raise UsageError(f"There is no drafter {', '.join(sorted(missing))} in what was loaded.")
        most = self.profile.speculation.ceiling
        if profile.speculation.ceiling > most:
            raise UsageError(
                f"The models were loaded for drafts of {most} tokens at most.",
                "Give the largest draft_max to load(), and here a smaller one.",
            )
        return profile

    def render(
        self,
        prompt: str | Sequence[Message],
        settings: Overrides | None = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> str:
        """The text that the chat template makes of a conversation.

        `tools` and `options` are the template's.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        system = self._overlaid(settings).chat.system
        if system is not None and not any(message.get("role") == "system" for message in messages):
            messages.insert(0, {"role": "system", "content": system})
        return self._renderer.render(messages, tools=tools, **options)

    def generate(
        self,
        request: Request,
        should_stop: Callable[[], bool] = lambda: False,
        on_round: Callable[[RoundEvent], None] = lambda event: None,
        on_progress: Callable[[ProgressEvent], None] = lambda event: None,
    ) -> Generator[TextEvent]:
        """Run a request; its text as it comes. `should_stop` is asked every round, and cancels.

        `on_round` and `on_progress` are told what the request asks for by `explain` and `progress`.
        """
        self.stats, self.finish_reason = Stats(), None
        try:
            for event in self.loaded.engine.generate(request, self.stats, should_stop):
                if isinstance(event, FinishEvent):
                    self.finish_reason = event.reason
                elif isinstance(event, RoundEvent):
                    on_round(event)
                elif isinstance(event, ProgressEvent):
                    on_progress(event)
                elif isinstance(event, TextEvent):
                    yield event
        finally:
            self.finish_reason = self.finish_reason or FinishReason.CANCELLED
            if request.speculation.mode == "auto":
                self.remember()

    def remember(self) -> None:
        """Keep what mode `auto` has learnt for the next start."""
        if self._remembered is not None and self.profile.speculation.mode == "auto":
            self._remembered.save(self.loaded.knowledge)

    def first_divergence(
        self, prompt: Sequence[int], speculative: Sequence[int], plain: Sequence[int]
    ) -> Divergence | None:
        """Where two greedy continuations of `prompt` part; None where they are the same.

        Greedy texts part where two tokens are so near that another batch width, which adds floats in
        another order, turns them round. The gap is that of the raw logits, after a pass over the common
        text. A continuation that is only shorter has ended there, with the end-of-sequence token.
        """
        model = self.loaded.main
        for position, (ours, theirs) in enumerate(zip_longest(speculative, plain, fillvalue=model.eos)):
            if ours != theirs and ours is not None and theirs is not None:
                row = self.loaded.engine.logits([*prompt, *plain[:position]])
                return Divergence(
                    position,
                    model.special_text(ours),
                    model.special_text(theirs),
                    abs(float(row[theirs]) - float(row[ours])),
                )
        return None

    def plain(self) -> "Session":
        """A session over the same weights that drafts nothing, with a cache of its own: to compare with.

        It is to be closed before this one. Raises OutOfMemoryError.
        """
        profile = overlay(self.profile, {"speculation": {"mode": "off"}})
        loaded = replace(self.loaded, engine=self.loaded.open_plain(), drafters=())
        return Session(profile, self.files[:1], loaded)

    def prices(self) -> dict[str, Any] | None:
        """What mode `auto` goes by: seconds of decodes as things are now, at the depth of the last text.

        `break_even` tells for a draft model, and for drafters that cost no time, from which acceptance
        they pay. None where nothing is decided by prices, or none are known.
        """
        prices, speculation = self.loaded.knowledge.prices, self.profile.speculation
        if speculation.mode != "auto" or not self.loaded.drafters or not prices.main.known:
            return None
        depth = self.stats.prompt_tokens + self.stats.predicted_tokens
        most = speculation.ceiling + 1
        main = [prices.main.seconds(width, depth) for width in range(1, most + 1)]
        step = prices.draft.seconds(1, depth) if self.loaded.draft and prices.draft.known else None
        pays = {"lookup": asdict(break_even(main, 0.0))}
        if step is not None:
            pays["model"] = asdict(break_even(main, step))
        return {
            "depth": depth,
            "main_seconds": {width: main[width - 1] for width in _SHOWN_WIDTHS if width <= most},
            "draft_step_seconds": step,
            "break_even": pays,
        }

    def settings(self) -> dict[str, Any]:
        """The settings as they took effect: `auto` and 0 replaced by what was chosen."""
        profile = self.profile
        return {
            "profile": profile.name,
            "speculation": profile.speculation.model_dump() | self._mode(),
            "runtime": profile.runtime.model_dump() | self.loaded.chosen,
            "sampling": profile.sampling.model_dump() | ({} if self._seed is None else {"seed": self._seed}),
            "chat": {"system": profile.chat.system},
        }

    def _mode(self) -> dict[str, Any]:
        speculation = self.profile.speculation
        names = speculation.choose(self.loaded.drafters)
        return {
            "mode": speculation.mode if names else "off",
            "drafters": list(names),
            "draft_max": speculation.ceiling,
        }

    def models(self) -> dict[str, Any]:
        """The files in use: name, size in bytes, SHA-256 where it is known, quantisation."""
        facts = (self.loaded.main_facts, self.loaded.draft_facts)
        return {
            role: {
                "file": file.path.name,
                "size": fact.file_bytes,
                "sha256": file.sha256,
                "quantisation": fact.quantisation,
            }
            for role, file, fact in zip(("main", "draft"), self.files, facts, strict=False)
            if fact is not None
        }

    def close(self) -> None:
        """Free the models. A second call does nothing."""
        self._renderer.close()
        if self._vetter is not None:
            self._vetter.close()
        self.loaded.engine.close()


def load(
    profile: str | Profile | None = None,
    *,
    main: str | None = None,
    draft: str | None = None,
    settings: Overrides | None = None,
    draft_mismatch: Literal["stop", "plain"] = "stop",
    parallel: int | None = None,
    remember: bool = True,
    progress: Progress | None = None,
) -> Session:
    """Load a pair: a profile's, or `main` and `draft` as files, `owner/repo:QUANT` or `owner/repo/file.gguf`.

    `main` replaces the profile's pair, `draft` its draft alone. Without a profile the default one is
    taken, or with `main` no profile at all. Models that are not here yet are fetched; `progress` is
    told. `draft_mismatch` "plain" goes on without a draft that does not fit. With `parallel` the engine
    serves so many requests at a time, which share the context, and keeps texts that have ended. Unless it
    is to `remember`, mode `auto` starts from nothing learnt and leaves nothing behind.
    """
    if draft_mismatch not in ("stop", "plain"):
        raise UsageError(f"--draft-mismatch is stop or plain, not {draft_mismatch!r}.")
    if "" in (profile, main, draft):
        raise UsageError("A profile or model was named by an empty text.", "Is a variable unset?")
    chosen = profile if isinstance(profile, Profile) else find_profile(profile or DEFAULT_PROFILE)
    if main is not None and profile is None:
        chosen = Profile(schema=1, name="flags", main=chosen.main)
    if settings:
        chosen = overlay(chosen, settings)
    _check_corpus(chosen)
    files = [resolve(main, progress) if main else fetch(chosen.main, progress)]
    if chosen.speculation.needs_draft_model:
        if draft is not None:
            files.append(resolve(draft, progress))
        elif main is None and chosen.draft is not None:
            files.append(fetch(chosen.draft, progress))
        elif {"model", "cascade"} & set(chosen.speculation.drafters):
            raise UsageError(
                "The model and cascade drafters need a draft model.", "Name one with -md, or drop them."
            )
    elif draft is not None and chosen.speculation.ceiling:
        log.warning(
            "The draft model is not used: %s draft without one.", " and ".join(chosen.speculation.drafters)
        )
    remembered: list[Remembered] = []

    def recall(taken: Mapping[str, Any]) -> Knowledge:
        if not remember:
            return Knowledge()
        stamps = [stamp(file.path) for file in files]
        of = {"files": stamps, "build": binding_version(), **taken, **chosen.runtime.model_dump()}
        remembered.append(Remembered(of))
        return remembered[0].load()

    loaded = load_pair(
        files[0].path,
        files[1].path if len(files) > 1 else None,
        chosen.runtime,
        chosen.speculation,
        draft_mismatch=draft_mismatch,
        recall=recall,
        corpus_cache=cache_root() / "corpora",
        slots=parallel or 1,
        spare=_KEPT_TEXTS if parallel else 0,
    )
    if (chosen.chat.template or loaded.main_facts.chat_template) is None:
        log.warning("This model has no chat template: ChatML is a guess. --raw does without.")
    if missing := set(chosen.speculation.drafters) - set(loaded.drafters) if loaded.drafters else ():
        log.warning("Not to be had here, and left out: the drafters %s.", ", ".join(sorted(missing)))
    _tell_where_tuned(chosen, files)
    try:
        return Session(chosen, files[: 1 + (loaded.draft is not None)], loaded, *remembered)
    except BaseException:
        loaded.engine.close()
        raise


_told: set[Provenance] = set()


def _tell_where_tuned(profile: Profile, files: Sequence[LocalModel]) -> None:
    """Once in a process, however many sessions there are."""
    if profile.provenance is None or profile.provenance in _told:
        return
    _told.add(profile.provenance)
    for sentence in (tuned_elsewhere(profile, describe_machine()), tuned_with_others(profile, files)):
        if sentence:
            log.warning("%s", sentence)


def _check_corpus(profile: Profile) -> None:
    """Before anything is fetched or loaded."""
    corpus = profile.speculation.corpus
    if corpus is None or not profile.speculation.ceiling:
        return
    try:
        there = Path(corpus).expanduser().exists()
    except RuntimeError:  # ~someone who is not known here
        there = False
    if not there:
        raise FileMissingError(f"There is no file or folder {corpus}.", "Check where the corpus is.")
