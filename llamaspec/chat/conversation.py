"""What was said: immutable, and the shape of the files that conversations are kept in."""

from typing import Any, Literal

from llamaspec.settings import Settings

_TITLE = 60  # characters


class Turn(Settings):
    """A question and its answer; `stopped`: the answer is a part, the user or an error ended it."""

    question: str
    answer: str
    stopped: bool = False


class Conversation(Settings):
    """Turns from the oldest on. `model` is the profile that answered last, for people to read."""

    version: Literal[1] = 1
    model: str = ""
    system: str | None = None
    turns: tuple[Turn, ...] = ()

    def messages(self, question: str) -> list[dict[str, Any]]:
        """The conversation as a chat template takes it, with what is asked next."""
        told = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            told.append({"role": "user", "content": turn.question})
            told.append({"role": "assistant", "content": turn.answer})
        return [*told, {"role": "user", "content": question}]

    def followed_by(self, turn: Turn) -> "Conversation":
        return self.model_copy(update={"turns": (*self.turns, turn)})

    def with_system(self, system: str | None) -> "Conversation":
        return self.model_copy(update={"system": system})

    def by(self, model: str) -> "Conversation":
        return self.model_copy(update={"model": model})

    def without_last(self) -> "Conversation":
        return self.model_copy(update={"turns": self.turns[:-1]})

    def without_oldest(self, count: int) -> "Conversation":
        return self.model_copy(update={"turns": self.turns[count:]})

    @property
    def title(self) -> str:
        """The beginning of the first question, in one printable line."""
        words = " ".join(self.turns[0].question.split()) if self.turns else ""
        plain = "".join(character for character in words if character.isprintable())
        return plain if len(plain) <= _TITLE else plain[: _TITLE - 1] + "…"
