"""A draft model and n-grams together (Cascade Speculative Drafting, Chen et al. 2023).

Vertical: n-grams draft for the draft model, which checks them in one evaluation in place of one for each.
Horizontal: behind the last token that is worth the draft model's price, n-grams go on for nothing.
"""

from collections.abc import Sequence

from llamaspec.decode.drafters.model import ModelDrafter
from llamaspec.decode.drafters.ngram import LONGEST
from llamaspec.decode.ports import Draft, DraftRequest, Evidence, Lookup, Stop

FAR_AHEAD = 8
"""Most tokens that the draft model checks along with the last one."""


class CascadeDrafter:
    """Drafts with a `ModelDrafter` that is told of sequences on its own account, as is `lookup`."""

    name = "cascade"
    free = False

    def __init__(self, model: ModelDrafter, lookup: Lookup) -> None:
        self._model = model
        self._lookup = lookup

    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None:
        pass

    def unread(self, sequence: int, length: int) -> int:
        return self._model.unread(sequence, length)

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = self._model.draft(requests, self._guess)
        for request, draft in zip(requests, drafts, strict=True):
            if draft.stopped in (Stop.GAIN, Stop.CONTEXT):
                self._go_on(request, draft)
        return drafts

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        pass

    def end(self, sequence: int) -> None:
        pass

    def _guess(self, request: DraftRequest, text: Sequence[int]) -> list[int]:
        guesses = self._follow(request.sequence, text, FAR_AHEAD)
        wanted = request.pace.ahead([evidence for _, evidence in guesses])
        return [token for token, _ in guesses[:wanted]]

    def _go_on(self, request: DraftRequest, draft: Draft) -> None:
        text = [*request.tokens[-LONGEST:], *draft.tokens]
        for token, evidence in self._follow(request.sequence, text, request.limit - len(draft.tokens)):
            if not request.pace.admits(evidence):
                return
            draft.add(token, None, evidence)

    def _follow(self, sequence: int, text: Sequence[int], most: int) -> list[tuple[int, Evidence]]:
        ahead = list(text[-LONGEST:])
        found: list[tuple[int, Evidence]] = []
        while len(found) < most and (next_one := self._lookup.follow(sequence, ahead)):
            found.append(next_one)
            ahead.append(next_one[0])
        return found
