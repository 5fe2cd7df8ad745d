"""The engine over the real llama.cpp: with drafts the greedy text is the plain text, whatever the models."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from gguf_files import VOCAB, tiny_jamba, tiny_llama, tiny_mamba
from lfm2_file import tiny_lfm2

from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.sequence import Request
from llamaspec.engine.engine import Engine
from llamaspec.errors import ContextError
from llamaspec.events import FinishEvent, FinishReason, TextEvent
from llamaspec.native.context import Context, ContextOptions
from llamaspec.native.grammar import NativeGrammar, schema_to_grammar
from llamaspec.native.model import Model
from llamaspec.settings import SamplingSettings, SpeculationSettings
from llamaspec.stats import Stats

FILES: dict[str, Callable[[Path], Path]] = {
    "llama": tiny_llama,
    "near llama": lambda path: tiny_llama(path, noise=0.05),
    "other llama": lambda path: tiny_llama(path, seed=7, layers=1),
    "longer vocabulary": lambda path: tiny_llama(path, noise=0.05, vocab=VOCAB.longer_by(3)),
    "mamba": tiny_mamba,
    "jamba": tiny_jamba,
    "lfm2": tiny_lfm2,
}
DRAFT_MAX = 5
GREEDY = SamplingSettings(temperature=0.0, n_predict=60, ignore_eos=True)
PLAIN = SpeculationSettings(mode="off")
PROMPTS = (
    "the hen and",
    "1 + 1 =",
    "it is in the order of the things that are to be read on and on, again and",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Model]]:
    folder = tmp_path_factory.mktemp("models")
    opened = {name: Model(write(folder / f"{name.replace(' ', '-')}.gguf")) for name, write in FILES.items()}
    yield opened
    for model in opened.values():
        model.close()


@dataclass
class Pair:
    """An engine over a main model and, unless there is none, a draft model; `slots` prompts at once."""

    models: dict[str, Model]
    main: str
    draft: str | None = None
    slots: int = 1
    rollback: int = 0
    context_size: int = 256
    batch_size: int = 256

    def __enter__(self) -> Engine:
        main = self._context(self.main, self.rollback)
        draft = self._context(self.draft, 0) if self.draft else None
        drafters = [ModelDrafter(draft, main.vocab_size)] if draft else []

        def close() -> None:
            for context in (main, draft):
                if context:
                    context.close()

        self._engine = Engine(main, self.models[self.main], drafters, slots=self.slots, on_close=close)
        return self._engine

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def _context(self, name: str, rollback: int) -> Context:
        options = ContextOptions(
            context_size=self.context_size,
            sequences=self.slots,
            batch_size=self.batch_size,
            ubatch_size=64,
            max_rows=self.slots * (DRAFT_MAX + 1),
            rollback=rollback,
        )
        return Context(self.models[name], options)


def request(model: Model, prompt: str = PROMPTS[0], p_min: float = 0.0, **sampling: object) -> Request:
    return Request(
        tuple(model.tokenize(prompt)),
        GREEDY.model_copy(update=sampling),
        SpeculationSettings(draft_max=DRAFT_MAX, p_min=p_min),
    )


def generate(engine: Engine, asked: Request, stats: Stats | None = None) -> tuple[list[int], FinishReason]:
    tokens: list[int] = []
    for event in engine.generate(asked, stats):
        if isinstance(event, FinishEvent):
            return tokens, event.reason
        tokens += event.tokens
    raise AssertionError("no terminal event")


def plain(models: dict[str, Model], main: str, prompt: str = PROMPTS[0]) -> tuple[list[int], FinishReason]:
    with Pair(models, main) as engine:
        asked = request(models[main], prompt)
        return generate(engine, Request(asked.prompt, asked.sampling, PLAIN))


@pytest.mark.parametrize(
    "draft", ["near llama", "other llama", "longer vocabulary", "mamba", "jamba", "lfm2"]
)
@pytest.mark.parametrize("p_min", [0.0, 0.6])
def test_any_draft_model_leaves_the_greedy_text_alone(
    models: dict[str, Model], draft: str, p_min: float
) -> None:
    stats = Stats()
    with Pair(models, "llama", draft) as engine:
        got = generate(engine, request(models["llama"], p_min=p_min), stats)
    assert got == plain(models, "llama")
    assert len(got[0]) == 60
    if draft == "near llama":
        assert stats.draft_n_accepted > 20


@pytest.mark.parametrize("main", ["mamba", "jamba", "lfm2"])
@pytest.mark.parametrize("draft", ["itself", "other llama", "lfm2"])
@pytest.mark.parametrize("rollback", [0, 2, DRAFT_MAX], ids=["checkpoints", "both", "snapshots"])
def test_a_main_model_whose_state_cannot_be_cut_gives_its_plain_text(
    models: dict[str, Model], main: str, draft: str, rollback: int
) -> None:
    stats = Stats()
    with Pair(models, main, main if draft == "itself" else draft, rollback=rollback) as engine:
        got = generate(engine, request(models[main], PROMPTS[2]), stats)
        again = generate(engine, request(models[main], PROMPTS[2]))
    assert got == again == plain(models, main, PROMPTS[2])
    assert stats.draft_n > 0
    if draft == "itself":
        assert stats.acceptance_rate == 1.0


@pytest.mark.parametrize("main", ["llama", "jamba", "lfm2"])
@pytest.mark.parametrize("draft", [None, "near llama"])
@pytest.mark.parametrize("rollback", [0, DRAFT_MAX])
def test_two_at_once_give_what_each_gives_alone(
    models: dict[str, Model], main: str, draft: str | None, rollback: int
) -> None:
    texts: dict[int, list[int]] = {}
    with Pair(models, main, draft, slots=2, rollback=rollback) as engine:
        asked = {engine.submit(request(models[main], prompt)): prompt for prompt in PROMPTS}
        while engine.busy:
            for event in engine.step():
                if isinstance(event, TextEvent):
                    texts.setdefault(event.request, []).extend(event.tokens)
    for number, prompt in asked.items():
        assert texts[number] == plain(models, main, prompt)[0]


@pytest.mark.parametrize("main", ["llama", "mamba", "lfm2"])
@pytest.mark.parametrize("batch_size", [8, 256])
def test_a_full_context_ends_the_text(models: dict[str, Model], main: str, batch_size: int) -> None:
    prompt = models[main].tokenize(PROMPTS[2])
    room = 9
    size = len(prompt) + room
    with Pair(models, main, "near llama", context_size=size, batch_size=batch_size) as engine:
        tokens, reason = generate(engine, request(models[main], PROMPTS[2], n_predict=-1))
        assert reason is FinishReason.LENGTH
        assert tokens == plain(models, main, PROMPTS[2])[0][:room]
        with pytest.raises(ContextError):
            engine.submit(Request(tuple(prompt) + (1,) * room))


def test_one_seed_gives_one_text(models: dict[str, Model]) -> None:
    with Pair(models, "llama", "near llama") as engine:
        asked = request(models["llama"], temperature=1.0, seed=3)
        first = generate(engine, asked)
        assert first == generate(engine, asked)
        assert first != generate(engine, request(models["llama"], temperature=1.0, seed=4))


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "legs": {"enum": [2, 4]},
        "wild": {"type": "boolean"},
    },
    "required": ["name", "legs", "wild"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("draft", [None, "near llama", "other llama"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_json_schema_makes_json(
    models: dict[str, Model], draft: str | None, temperature: float, seed: int
) -> None:
    model = models["llama"]
    asked = request(model, temperature=temperature, seed=seed, n_predict=200, ignore_eos=False)
    grammar = NativeGrammar(model, schema_to_grammar(json.dumps(SCHEMA)))
    with Pair(models, "llama", draft) as engine:
        tokens, reason = generate(engine, Request(asked.prompt, asked.sampling, asked.speculation, grammar))
    assert reason is FinishReason.STOP
    text = b"".join(model.piece(token) for token in tokens).decode("utf-8", "replace")
    found = json.loads(text)
    assert found.keys() == set(SCHEMA["required"])
    assert found["legs"] in (2, 4)
    assert isinstance(found["wild"], bool)
    assert isinstance(found["name"], str)
