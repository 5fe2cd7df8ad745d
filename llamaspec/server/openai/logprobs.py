"""Log-probabilities in the two shapes that OpenAI has for them."""

import codecs
from collections.abc import Sequence
from typing import Any

from llamaspec.events import TokenDetail
from llamaspec.server.answers import Vocabulary, token_bytes

_LEAST = -9999.0  # OpenAI's for what is as good as impossible; JSON has no infinity


def chat_logprobs(details: Sequence[TokenDetail], vocabulary: Vocabulary) -> dict[str, Any]:
    """`choices[].logprobs` of a chat."""

    def told(token: int, logprob: float) -> dict[str, Any]:
        data = token_bytes(vocabulary, token)
        text = data.decode("utf-8", "replace")
        return {"token": text, "logprob": max(logprob, _LEAST), "bytes": list(data)}

    return {
        "content": [
            {
                **told(detail.token, detail.logprob),
                "top_logprobs": [told(token, logprob) for token, logprob in detail.top],
            }
            for detail in details
            if detail.logprob is not None
        ],
        "refusal": None,
    }


class TextLogprobs:
    """`choices[].logprobs` of a completion, which tell where in the whole text each token begins."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._length = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def tell(self, details: Sequence[TokenDetail], *, hidden: bool = False) -> dict[str, Any]:
        """Of the tokens that come next; `hidden`: the text is without them."""
        tokens, offsets = [], []
        for detail in details:
            data = token_bytes(self._vocabulary, detail.token)
            tokens.append(_written(data))
            offsets.append(self._length)
            self._length += 0 if hidden else len(self._decoder.decode(data))
        return {
            "tokens": tokens,
            "token_logprobs": [None if (p := d.logprob) is None else max(p, _LEAST) for d in details],
            "top_logprobs": [self._top(detail) for detail in details],
            "text_offset": offsets,
        }

    def _top(self, detail: TokenDetail) -> dict[str, float] | None:
        """The best tokens, and this one where it is none of them."""
        if detail.logprob is None:
            return None
        top: dict[str, float] = {}
        for token, logprob in (*detail.top, (detail.token, detail.logprob)):
            top.setdefault(_written(token_bytes(self._vocabulary, token)), max(logprob, _LEAST))
        return top


def _written(data: bytes) -> str:
    """A token as text or, where it is part of a character, as OpenAI writes its bytes."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
