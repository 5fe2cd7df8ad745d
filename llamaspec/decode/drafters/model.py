"""Drafting with a smaller model that shares the main model's vocabulary."""

from collections.abc import Sequence

from llamaspec.decode.ports import Backend, Draft, DraftRequest, Feed, Row


class ModelDrafter:
    """Draft tokens from a draft model, all sequences in one batch per position.

    The draft's KV cache is kept between rounds and only cut back to what was accepted: no token is
    evaluated twice. A prompt is read when the first draft of its sequence is asked for, so that it
    doesn't delay the first token.
    """

    name = "model"

    def __init__(self, backend: Backend, vocab_size: int, stand_in: int = 0, chunk: int = 512) -> None:
        """`vocab_size` is the main model's: ids above it are never drafted.

        Ids that the draft model doesn't know are read as `stand_in`. A prompt is read `chunk` tokens a round,
        and its sequence drafts when that is done: no round is long.
        """
        self._backend = backend
        self._vocab_size = vocab_size
        self._stand_in = stand_in
        self._chunk = chunk
        self._held: dict[int, int] = {}

    def begin(self, sequence: int) -> None:
        self._held[sequence] = 0

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        drafts = [Draft() for _ in requests]
        texts = [list(request.tokens) for request in requests]
        active = [
            i
            for i, request in enumerate(requests)
            if len(request.tokens) < self._backend.context_size and self._nearly_read(request, len(requests))
        ]
        rows = self._catch_up([requests[i] for i in active])
        while active:
            active = [
                i
                for i, row in zip(active, rows, strict=True)
                if self._extend(drafts[i], requests[i], texts[i], row)
            ]
            rows = self._decode([self._feed(requests[i].sequence, texts[i][-1:], draft=1) for i in active])
        for draft, request in zip(drafts, requests, strict=True):
            draft.width = len(draft.tokens)
            if draft.width < request.min_tokens:
                draft.cut(0)
        return drafts

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        # Everything but the last token was drafted and accepted or read before; the last one is new.
        right = min(self._held[sequence], len(tokens) - 1)
        if right < self._held[sequence]:
            self._held[sequence] = self._backend.truncate(sequence, right)

    def end(self, sequence: int) -> None:
        # Also where nothing seems held: a decode that was broken off may have left some of its tokens.
        if self._held.pop(sequence, None) is not None:
            self._backend.truncate(sequence, 0)

    def _extend(self, draft: Draft, request: DraftRequest, text: list[int], row: Row) -> bool:
        """Add the token that follows, unless the model is too unsure; whether to go on after it."""
        proposal = request.proposer.propose(row[: self._vocab_size], text)
        if proposal is None or proposal.confidence < request.p_min:
            return False
        draft.tokens.append(proposal.token)
        draft.proposals.append(proposal.drawn_from)
        text.append(proposal.token)
        return len(draft.tokens) < request.limit and len(text) < self._backend.context_size

    def _nearly_read(self, request: DraftRequest, sharing: int) -> bool:
        """Whether what is unread fits a shared batch; a chunk of it is read where it does not."""
        start = self._held[request.sequence]
        unread = len(request.tokens) - start
        share = max(1, self._backend.batch_size // sharing)
        if unread <= min(self._chunk, share):
            return True
        end = start + min(self._chunk, self._backend.batch_size, unread - 1)
        self._decode([self._feed(request.sequence, request.tokens[start:end], rows=0)])
        return False

    def _catch_up(self, requests: Sequence[DraftRequest]) -> list[Row]:
        """Read what the draft model has not seen yet; the logits after each sequence's last token."""
        return self._decode([self._feed(r.sequence, r.tokens[self._held[r.sequence] :]) for r in requests])

    def _feed(self, sequence: int, tokens: Sequence[int], *, rows: int = 1, draft: int = 0) -> Feed:
        known = [token if token < self._backend.vocab_size else self._stand_in for token in tokens]
        return Feed(sequence, known, self._held[sequence], rows, draft)

    def _decode(self, feeds: Sequence[Feed]) -> list[Row]:
        """The last row of each feed."""
        if not feeds:
            return []
        rows = self._backend.decode(feeds)
        for feed in feeds:
            self._held[feed.sequence] += len(feed.tokens)
        return [row[-1] for row in rows if len(row)]
