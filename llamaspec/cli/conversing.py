"""The loop of `llamaspec chat`: reads messages and commands, and does what they say."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from llamaspec.chat import commands
from llamaspec.chat.commands import FORMS, Command, Say
from llamaspec.chat.conversation import Conversation
from llamaspec.chat.library import Library
from llamaspec.chat.talk import Talk
from llamaspec.cli.editor import edited
from llamaspec.cli.interrupt import Interrupt
from llamaspec.cli.prompt import read_text
from llamaspec.closing import Closing
from llamaspec.console.chat import Screen, turn_line
from llamaspec.console.panel import print_stats
from llamaspec.console.unechoed import unechoed
from llamaspec.errors import ContextError, LlamaspecError, UsageError
from llamaspec.events import FinishReason
from llamaspec.figures import counted
from llamaspec.profiles import find_profile, list_profiles
from llamaspec.session import Session

HOW_TO_LEAVE = "Ctrl-D or /exit leaves, /help lists the commands."


class Reader(Protocol):
    """Where lines come from; None at the end."""

    def read(self, start: str = "") -> str | None: ...

    def read_block(self) -> str | None: ...


class Stopped(Exception):
    """Ctrl-C, where nobody is there to say what comes next."""


class Conversing(Closing):
    """One sitting: the loaded pair, the conversation, and the name that it is kept under.

    `open_session` loads a profile's pair, or for None the one that the command line names. Without `keep`
    nothing is kept until /save. Where nobody sits at a terminal (`interactive` false), an error ends it.
    """

    def __init__(
        self,
        open_session: Callable[[str | None], Session],
        conversation: Conversation | None,
        name: str | None,
        library: Library,
        screen: Screen,
        *,
        keep: bool,
        interactive: bool,
        on_error: Callable[[LlamaspecError], object],
    ) -> None:
        """`conversation` None: a new one, with the system prompt of the profile."""
        self._open_session = open_session
        self._opened: str | None = None
        llm = open_session(None)
        self._loaded = True
        self._talk = Talk(llm, conversation or Conversation(system=llm.profile.chat.system))
        self._name = name if keep else None
        self._library = library
        self._screen = screen
        self._keep = keep
        self._interactive = interactive
        self._on_error = on_error
        self._attached: list[str] = []
        self._again = ""  # a message that has not been answered

    def choices(self) -> dict[str, Callable[[], list[str]]]:
        """What may stand behind commands, as things are when it is asked for."""
        return {
            "load": lambda: [kept.name for kept in self._library.list()],
            "profile": lambda: [profile.name for profile in list_profiles()],
            "set": lambda: list(self._talk.llm.profile.sampling.model_dump()),
            "spec": lambda: ["auto", "off", "fixed", "fixed:16:0.75"],
            "system": lambda: ["off"],
            "markdown": lambda: ["on", "off"],
        }

    def run(self, reader: Reader) -> None:
        """Until the input ends or /exit. Raises Stopped."""
        self._greet()
        going = True
        while going and (line := reader.read(self._again)) is not None:
            self._again = ""
            try:
                going = self._take(line, reader)
            except LlamaspecError as error:
                if not (self._interactive and self._loaded):
                    raise
                self._on_error(error)
            except KeyboardInterrupt:
                if not (self._interactive and self._loaded):
                    raise
                self._screen.tell(HOW_TO_LEAVE)

    def close(self) -> None:
        self._talk.llm.close()

    def _greet(self) -> None:
        llm = self._talk.llm
        files = " + ".join(f"{role} {model['file']}" for role, model in llm.models().items())
        self._screen.note(f"{llm.profile.name}: {files}; speculation {self._speculation()}")
        if self._interactive:
            self._screen.note(HOW_TO_LEAVE)
            self._show_last()

    def _take(self, line: str, reader: Reader) -> bool:
        """Do what a line says; whether to go on."""
        match commands.parse(line):
            case Say(text):
                self._ask(text)
            case Command("exit"):
                return False
            case Command("multi"):
                self._send(reader.read_block() or "")
            case Command("edit", text):
                written = edited(text)
                self._screen.note(f"> {written.strip()}")
                self._send(written)
            case Command("help"):
                self._screen.table(
                    (f"/{form.name} {form.takes}".rstrip(), form.does) for form in FORMS.values()
                )
            case Command("read", path):
                self._attach(path)
            case Command("system", text):
                self._system(text)
            case Command("retry"):
                self._retry()
            case Command("clear"):
                self._begin(Conversation(system=self._talk.conversation.system), None)
                self._screen.tell("A new conversation.")
            case Command("trim", count):
                self._trim(commands.number(count) if count else None)
            case Command("save", name):
                self._save(name)
            case Command("load", name):
                self._load(name)
            case Command("profile", name):
                self._profile(name)
            case Command("spec", setting):
                self._spec(setting)
            case Command("set", change):
                self._set(change)
            case Command("stats"):
                self._stats()
            case Command("markdown", switch):
                if switch:
                    self._screen.markdown = commands.turned_on(switch)
                self._screen.tell(f"Markdown is {'on' if self._screen.markdown else 'off'}.")
        return True

    # Messages and answers.

    def _send(self, text: str) -> None:
        if text.strip():
            self._ask(text.strip("\n").rstrip())
        else:
            self._screen.tell("Nothing to send.")

    def _ask(self, question: str) -> None:
        self._again = question
        if self._answer("".join(self._attached) + question):
            self._attached.clear()
            self._again = ""

    def _answer(self, question: str) -> bool:
        """Whether the question became a turn."""
        talk, turns = self._talk, len(self._talk.conversation.turns)
        view = self._screen.answer()
        try:
            with unechoed(), Interrupt(patient=True) as interrupt:
                try:
                    for event in talk.answer(question, interrupt, view.progress):
                        view.write(event)
                finally:
                    view.end()
        except ContextError as error:
            raise ContextError(
                f"The conversation has {error.prompt_tokens} tokens with this message, and the context "
                f"{error.context_size}.",
                "/trim drops the oldest turns, /clear begins anew; or start with a larger --ctx-size.",
            ) from None
        finally:
            answered = len(talk.conversation.turns) > turns
            if answered:
                self._keep_it()
        if answered:
            reason = talk.llm.finish_reason or FinishReason.CANCELLED
            self._screen.note(turn_line(talk.llm.stats, reason, talk.llm.loaded.engine.context_size))
        else:
            self._screen.tell("Stopped before there was an answer: the conversation is as it was.")
        if interrupt() and not self._interactive:
            raise Stopped
        return answered

    def _retry(self) -> None:
        before = self._talk.conversation
        if not before.turns:
            raise UsageError("There is no message to answer again.")
        self._talk.conversation = before.without_last()
        try:
            self._answer(before.turns[-1].question)
        finally:
            if len(self._talk.conversation.turns) < len(before.turns):
                self._talk.conversation = before

    def _attach(self, name: str) -> None:
        if not name:
            self._screen.tell(
                f"Files left out: {len(self._attached)}." if self._attached else "Nothing was read."
            )
            self._attached.clear()
            return
        try:
            path = Path(name.strip("\"'")).expanduser()
        except RuntimeError:  # ~someone who is not known here
            path = Path(name)
        text = read_text(path)
        self._attached.append(commands.attached(path.name, text))
        self._screen.tell(f"{path.name}: {len(text):,} characters, which go with the next message.")

    def _system(self, text: str) -> None:
        talk = self._talk
        if text:
            talk.conversation = talk.conversation.with_system(None if text == "off" else text)
            self._keep_it()
        system = talk.conversation.system
        self._screen.tell("No system prompt." if system is None else f"System prompt: {system}")

    def _trim(self, count: int | None) -> None:
        dropped = self._talk.trim(count)
        turns = len(self._talk.conversation.turns)
        self._screen.tell(f"Turns dropped: {dropped}, kept: {turns}; {self._talk.room:,} tokens are free.")
        if dropped:
            self._keep_it()

    # Where the conversation is kept.

    def _keep_it(self) -> None:
        if self._name is None and self._keep and self._talk.conversation.turns:
            self._name = self._library.new_name()
        if self._name is not None:
            self._library.save(self._name, self._talk.conversation)

    def _begin(self, conversation: Conversation, name: str | None) -> None:
        self._talk.conversation = conversation.by(self._talk.llm.profile.name)
        self._name = name
        self._attached.clear()

    def _save(self, name: str) -> None:
        before = self._name
        if name != before and self._library.path(name).exists():
            raise UsageError(f"There is a conversation named {name}.", "Take another name.")
        self._library.save(name, self._talk.conversation)
        self._name = name
        if before is not None and before != name and self._library.is_automatic(before):
            self._library.remove(before)
        self._screen.tell(f"Kept as {name}.")

    def _load(self, name: str) -> None:
        if not name:
            self._screen.table(kept_rows(self._library))
            return
        self._begin(self._library.read(name), name if self._keep else None)
        self._screen.tell(f"{name}: {_turns(self._talk.conversation)}.")
        self._show_last()

    def _show_last(self) -> None:
        if turns := self._talk.conversation.turns:
            self._screen.note(f"> {turns[-1].question}")
            self._screen.show(turns[-1].answer)
            if turns[-1].stopped:
                self._screen.note("stopped there")

    # The models and how they are used.

    def _profile(self, name: str) -> None:
        if not name:
            now = self._talk.llm.profile.name
            self._screen.table(
                (profile.name, "in use" if profile.name == now else profile.description)
                for profile in list_profiles()
            )
            return
        find_profile(name)
        before = self._talk
        try:
            before.llm.close()  # two pairs may not fit
            llm = self._open_session(name)
        except (LlamaspecError, KeyboardInterrupt) as error:
            self._loaded = False  # where this fails, too, or is interrupted, there is no pair to go on with
            self._talk = Talk(self._open_session(self._opened), before.conversation)
            self._talk.settings, self._loaded = before.settings, True
            if isinstance(error, KeyboardInterrupt):
                raise UsageError("Stopped: the profile is the one before.") from None
            raise
        self._opened = name
        self._talk = Talk(llm, before.conversation)
        self._screen.tell(f"{llm.profile.name}, with its own sampling; speculation {self._speculation()}.")

    def _speculation(self) -> str:
        llm = self._talk.llm
        chosen = llm.prepare((), settings=self._talk.settings).speculation
        names = chosen.choose(llm.loaded.drafters)
        limits = f":{chosen.ceiling}:{chosen.p_min:g}" if chosen.mode == "fixed" else ""
        return f"{chosen.mode}{limits} ({', '.join(names)})" if names else "off"

    def _spec(self, setting: str) -> None:
        if setting:
            before = self._talk.settings
            self._talk.change("speculation", commands.drafting(setting))
            if setting not in ("off", "plain") and self._speculation() == "off":
                self._talk.settings = before
                raise UsageError(
                    "Nothing can be drafted here.", "Start with a draft model, or without --no-spec."
                )
        self._screen.tell(f"Speculation {self._speculation()}.")

    def _set(self, change: str) -> None:
        talk = self._talk
        name, *value = change.split(maxsplit=1) or [""]
        key = commands.sampling_key(name) if name else ""
        changed = talk.settings.get("sampling", {})
        if key and value:
            changed = commands.sampled(changed, key, value[0])
            talk.change("sampling", changed)
        there = talk.llm.profile.sampling.model_dump() | changed
        self._screen.table((each, str(there[each])) for each in ([key] if key else there))

    def _stats(self) -> None:
        llm = self._talk.llm
        if llm.finish_reason is None:
            raise UsageError("There is no answer yet.")
        print_stats(llm.stats, llm.finish_reason, llm.prices())


def _turns(conversation: Conversation) -> str:
    return counted(len(conversation.turns), "turn")


def kept_rows(library: Library) -> Iterator[tuple[str, ...]]:
    """A line for each conversation that is kept: name, turns, when it was changed, how it begins."""
    for kept in library.list():
        turns, title = "", "can't be read"
        with suppress(UsageError):
            conversation = library.read(kept.name)
            turns, title = _turns(conversation), conversation.title
        yield kept.name, turns, time.strftime("%Y-%m-%d %H:%M", time.localtime(kept.changed)), title
