"""A search on this machine: from a profile to a tuned one, with where its figures come from."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from llamaspec import __version__
from llamaspec.bench.memory import Paging, on_battery
from llamaspec.bench.noise import OtherLoad
from llamaspec.bench.report import BUSY, Finding
from llamaspec.bench.tuning.candidates import Candidate, Scope, Stage, stages
from llamaspec.bench.tuning.journal import Journal
from llamaspec.bench.tuning.live import LiveRace, free_bytes
from llamaspec.bench.tuning.race import State
from llamaspec.bench.tuning.search import Found, Search, split
from llamaspec.bench.workload import Workload
from llamaspec.closing import Closing
from llamaspec.engine.timing import SMALL_TYPE, could_be_smaller
from llamaspec.errors import UsageError
from llamaspec.gguf.shards import stamp
from llamaspec.hub.cache import model_path, remember_sha256, sha256_of
from llamaspec.hub.fetch import fetch
from llamaspec.hub.models import NoProgress, Progress
from llamaspec.hub.names import requantised_name
from llamaspec.hub.sources import LocalSource
from llamaspec.machine import describe_machine
from llamaspec.native.devices import list_devices, physical_cores, select
from llamaspec.native.quantize import quantize
from llamaspec.profiles import Profile, overlay
from llamaspec.provenance import ModelRecord, Provenance, WorkRecord
from llamaspec.session import Session, load

_CONTEXT = 2048  # for tuning: its size costs memory, and hardly any time
_CHARACTERS_PER_TOKEN = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for. `kept` are settings that stay as they are."""

    workload: Workload
    workload_name: str
    seconds: float
    n_predict: int
    lossy_kv: bool = False
    kept: frozenset[str] = frozenset()
    resume: bool = False


class Tuner(Closing):
    """`search`, then `tuned`, then `forget`.

    Models that are not here are fetched; errors are those of `session.load`.
    """

    def __init__(
        self,
        profile: Profile,
        wish: Wish,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._profile = profile.model_copy(update={"provenance": None})
        self._wish = wish
        self._progress = progress or NoProgress()
        self._should_stop = should_stop
        self.findings: list[Finding] = []
        self.split = split(wish.workload)
        self._machine = describe_machine()
        self._main = fetch(profile.main, progress)
        self._draft = fetch(profile.draft, progress) if profile.draft else None
        self._pinned: dict[str, object] = {"ctx_size": self._context(), "ctx_size_draft": 0}
        self._race: LiveRace | None = None
        self._scope: Scope | None = None
        self._journal = Journal(self._depends_on(), self._live, resume=wish.resume)
        self._folder = self._journal.path.with_suffix("")

    @property
    def unfinished(self) -> bool:
        """Whether an earlier search of the same was not finished."""
        return self._journal.found

    @property
    def measured(self) -> int:
        """How many heats there are on record, those of a search that is gone on with included."""
        return self._journal.heats

    def stages(self) -> list[Stage]:
        """What will be tried. Raises what loading the default does, where there is a GPU."""
        return stages(self._profile, self._known_scope())

    def search(self, on_state: Callable[[State], None]) -> Found:
        """Raises what loading and running the default does. What was measured until then is kept."""
        others, paged = OtherLoad(), Paging.now()
        found = Search(
            self._profile,
            self._known_scope(),
            self.stages(),
            self.split,
            self._journal,
            self._wish.seconds,
            self._wish.n_predict,
            on_state,
        ).run()
        self.close()
        self.findings = [*_restlessness(others.share()), *Paging.now().findings(paged), *on_battery()]
        return found

    def tuned(self, found: Found, name: str) -> Profile:
        """The profile under its new name, with the settings that were chosen and where they come from.

        Loads the pair once more, as it will be used.
        """
        updates: dict[str, Any] = {"name": name}
        if found.chosen.draft:  # a file of this machine, which a profile from elsewhere can't name
            updates |= {"draft": self._keep_smaller(), "origin": None}
        profile = overlay(self._profile.model_copy(update=updates), found.chosen.overrides)
        before = free_bytes()["host"]
        with load(profile, remember=False) as session:
            provenance = self._provenance(found, session, before, free_bytes()["host"])
        return profile.model_copy(update={"provenance": provenance})

    def forget(self) -> None:
        """The profile is written: what the search has left is not needed any more."""
        self._journal.forget()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Free the models. A second call does nothing."""
        if self._race is not None:
            self._race.close()
            self._race = None

    def _context(self) -> int:
        """Room for the longest prompt and its answer, where the profile has as much."""
        longest = max(len(prompt.prompt) for prompt in self._wish.workload.prompts)
        needed = max(_CONTEXT, longest // _CHARACTERS_PER_TOKEN + self._wish.n_predict)
        return min(needed, self._profile.runtime.ctx_size or needed)

    def _depends_on(self) -> dict[str, Any]:
        files = [stamp(file.path) for file in (self._main, self._draft) if file]
        return {
            "files": files,
            "machine": self._machine.model_dump(),
            "profile": self._profile.model_dump(mode="json", exclude={"name", "description", "provenance"}),
            "work": self._wish.workload.sha256,
            "n_predict": self._wish.n_predict,
            "allowed": [self._wish.lossy_kv, sorted(self._wish.kept)],
        }

    def _known_scope(self) -> Scope:
        if self._scope is None:
            usable = select(self._profile.runtime.device, list_devices())
            self._scope = Scope(
                cores=physical_cores(),
                processors=psutil.cpu_count() or 1,
                has_gpu=bool(usable),
                offloaded=bool(usable) and self._place_layers(),
                has_draft=self._draft is not None,
                smaller_draft=SMALL_TYPE if self._draft and could_be_smaller(self._draft.path) else None,
                lossy_kv=self._wish.lossy_kv,
                kept=self._wish.kept,
            )
        return self._scope

    def _place_layers(self) -> bool:
        """Pin the layers to where they would go if the pair was alone on the GPU, with its real context.

        Otherwise sessions side by side would take the room from one another. Whether all are on it.
        """
        with load(self._profile, remember=False) as session:
            chosen, loaded = session.loaded.chosen, session.loaded
            whole = True
            for key, facts in (
                ("gpu_layers", loaded.main_facts),
                ("gpu_layers_draft", loaded.draft_facts),
            ):
                if facts is not None:
                    self._pinned[key] = chosen[key]
                    whole = whole and chosen[key] > facts.layers
        return whole

    def _live(self) -> LiveRace:
        if self._race is None:
            self._known_scope()
            self._race = LiveRace(self._open, Candidate(), should_stop=self._should_stop)
        return self._race

    def _open(self, candidate: Candidate) -> Session:
        profile = overlay(overlay(self._profile, {"runtime": self._pinned}), candidate.overrides)
        if candidate.draft:
            draft = LocalSource(path=str(self._smaller_draft()))
            profile = profile.model_copy(update={"draft": draft})
        return load(profile, remember=False)

    def _smaller_draft(self) -> Path:
        """The draft model in another type, made when it is first needed."""
        assert self._draft is not None
        path = self._folder / requantised_name(self._draft.path.name, SMALL_TYPE)
        if not path.is_file():
            log.info("Writing the draft model as %s …", SMALL_TYPE)
            quantize(self._draft.path, path, SMALL_TYPE)
        return path

    def _keep_smaller(self) -> LocalSource:
        """It goes where `ls` shows it and `rm` removes it."""
        path = self._smaller_draft()
        sha256 = sha256_of(path, self._progress)
        kept = model_path(sha256, path.name)
        kept.parent.mkdir(parents=True, exist_ok=True)
        path.replace(kept)
        remember_sha256(kept, sha256)
        return LocalSource(path=str(kept), sha256=sha256, size=kept.stat().st_size)

    def _provenance(self, found: Found, session: Session, before: int, after: int) -> Provenance:
        proof = found.proof
        if proof.plain is None or proof.speculative is None or proof.speedup is None:
            raise UsageError(
                "No answer was long enough to be timed.", "Ask for more tokens, or other prompts."
            )
        models = session.models()
        records = {
            role: ModelRecord(**{**models[role], "sha256": sha256_of(file.path, self._progress)})
            for role, file in zip(models, session.files, strict=True)
        }
        wish, runtime = self._wish, session.profile.runtime
        return Provenance(
            made_by=f"llamaspec {__version__} tune",
            date=datetime.now(UTC).date().isoformat(),
            machine=self._machine,
            main=records["main"],
            draft=records.get("draft"),
            context=session.loaded.chosen["ctx_size"],
            cache_type_k=runtime.cache_type_k,
            cache_type_v=runtime.cache_type_v,
            work=WorkRecord(
                name=wish.workload_name,
                sha256=wish.workload.sha256,
                prompts=len(proof.prompts),
                kinds=tuple(dict.fromkeys(prompt.kind for prompt in proof.prompts.values())),
                n_predict=wish.n_predict,
            ),
            method="greedy answers of all settings in turns of one round; plain decoding under the same "
            "runtime settings; prompts that were tuned on and others",
            memory_free_before=before,
            memory_free_after=after,
            plain=proof.plain,
            speculative=proof.speculative,
            speedup=proof.speedup,
        )


def _restlessness(share: float) -> list[Finding]:
    """What to say where other programs used so much of the machine."""
    if share <= BUSY:
        return []
    return [
        Finding(
            problem=f"Other programs used {share:.0%} of the machine: small gains are lost in the noise.",
            remedy="Close them and tune again.",
        )
    ]
