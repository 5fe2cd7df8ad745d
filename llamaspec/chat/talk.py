"""A conversation with a loaded pair: each answer goes on from what the KV cache holds of those before."""

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Any

from llamaspec.chat.conversation import Conversation, Turn
from llamaspec.chat.token_trail import TokenTrail
from llamaspec.errors import UsageError
from llamaspec.events import FinishReason, ProgressEvent, TextEvent
from llamaspec.session import Session

_SYSTEM_IS_OURS = {"chat": {"system": None}}  # the conversation's own, not the profile's


class Talk:
    """`conversation` as it is now; `settings` are over the profile's, by section (sampling, speculation).

    The session has to be loaded with `parallel`, or each prompt is read from its beginning.
    """

    def __init__(self, llm: Session, conversation: Conversation) -> None:
        self.llm = llm
        self.conversation = conversation.by(llm.profile.name)
        self.settings: dict[str, dict[str, Any]] = {}
        self._trail = TokenTrail(llm.loaded.main)

    def answer(
        self,
        question: str,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[ProgressEvent], None] = lambda event: None,
    ) -> Generator[TextEvent]:
        """Ask, and read the answer as it comes; the turn is part of the conversation when it has ended.

        An answer that ended early stays, marked as stopped; one that ended before any text leaves the
        conversation as it was. Raises what `Session.generate` raises: ContextError for what does not fit.
        """
        prompt = self.llm.render(self.conversation.messages(question), _SYSTEM_IS_OURS)
        tokens = self._trail.tokens(prompt)
        request = self.llm.prepare(tokens, settings=self.settings, cache_prompt=True, progress=True)
        text, said, finished = "", list[int](), False
        try:
            with closing(self.llm.generate(request, should_stop, on_progress=on_progress)) as events:
                for event in events:
                    text += event.text
                    said += event.tokens
                    yield event
            finished = self.llm.finish_reason is not FinishReason.CANCELLED
        finally:
            if text or finished:
                self._trail.follow(prompt, tokens, text, said)
                turn = Turn(question=question, answer=text, stopped=not finished)
                self.conversation = self.conversation.followed_by(turn)

    def change(self, section: str, values: Mapping[str, object]) -> None:
        """Set these in a section for the answers to come. Raises UsageError where that makes no sense."""
        changed = {**self.settings, section: dict(values)}
        self.llm.prepare((), settings=changed)
        self.settings = changed

    @property
    def room(self) -> int:
        """Tokens of the context that the conversation leaves free, without a question."""
        prompt = self.llm.render(self.conversation.messages(""), _SYSTEM_IS_OURS)
        return self.llm.loaded.engine.context_size - len(self._trail.tokens(prompt))

    def trim(self, turns: int | None = None) -> int:
        """Drop so many of the oldest turns; None: as many as it takes until half of the context is free.

        How many were dropped. Raises UsageError where there are not so many.
        """
        before = self.conversation
        if turns is None:
            while self.conversation.turns and self.room < self.llm.loaded.engine.context_size // 2:
                self.conversation = self.conversation.without_oldest(1)
        elif turns > len(before.turns):
            raise UsageError(f"The conversation has {len(before.turns)} turns.")
        else:
            self.conversation = before.without_oldest(turns)
        return len(before.turns) - len(self.conversation.turns)
