"""Ctrl-C that lets the round in flight finish."""

import signal
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While entered, the first Ctrl-C makes a call of it true; a second one interrupts at once, as usual.

    Where `patient`, a second one changes nothing.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self._asked = False
        self._patient = patient

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if not self._patient:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)
