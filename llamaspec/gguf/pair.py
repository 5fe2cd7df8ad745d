"""Whether a draft model's tokens mean the same to the main model.

The rule is llama.cpp's: same type of vocabulary, same use of BOS and EOS, sizes that differ by at most
128, and the same text for every common id from 5 on (below are placeholders that fine-tunes rename).
"""

from dataclasses import dataclass

from llamaspec.errors import PairMismatchError
from llamaspec.gguf.header import Header, shown
from llamaspec.gguf.vocab import Vocabulary, read_vocabulary

MAX_SIZE_DIFFERENCE = 128
FIRST_COMPARED = 5

_HINT = "Use a draft model of the same family, or go on without one."


@dataclass(frozen=True)
class PairReport:
    """What was compared: `common_ids` token texts, ids `FIRST_COMPARED` to the smaller vocabulary's end.

    `size_difference` is main's size less draft's, in tokens.
    """

    vocabulary: str
    main_size: int
    draft_size: int
    common_ids: int
    size_difference: int


def check_pair(main: Header, draft: Header) -> PairReport:
    """Compare the vocabularies of two models.

    Errors: PairMismatchError, which names the first token id that differs and both texts; and those of
    `read_vocabulary`.
    """
    ours, theirs = read_vocabulary(main), read_vocabulary(draft)
    if ours.type != theirs.type:
        raise PairMismatchError(
            f"The main model's vocabulary is of type {ours.type}, the draft's of type {theirs.type}.", _HINT
        )
    for name, main_use, draft_use in (
        ("beginning", _use(ours.add_bos, ours.bos), _use(theirs.add_bos, theirs.bos)),
        ("end", _use(ours.add_eos, ours.eos), _use(theirs.add_eos, theirs.eos)),
    ):
        if main_use != draft_use:
            raise PairMismatchError(
                f"The main model puts {main_use} at the {name} of a text, the draft model {draft_use}.", _HINT
            )
    difference = ours.size - theirs.size
    if abs(difference) > MAX_SIZE_DIFFERENCE:
        raise PairMismatchError(
            f"The main model has {ours.size} tokens and the draft {theirs.size}, more than "
            f"{MAX_SIZE_DIFFERENCE} apart. {_first_difference(ours, theirs) or ''}".rstrip(),
            _HINT,
        )
    if differs := _first_difference(ours, theirs):
        raise PairMismatchError(differs, _HINT)
    return PairReport(
        vocabulary=ours.type,
        main_size=ours.size,
        draft_size=theirs.size,
        common_ids=max(0, min(ours.size, theirs.size) - FIRST_COMPARED),
        size_difference=difference,
    )


def _use(added: bool, token: int | None) -> str:
    return f"token {token}" if added else "no token"


def _first_difference(main: Vocabulary, draft: Vocabulary) -> str | None:
    common = min(main.size, draft.size)
    if main.texts[FIRST_COMPARED:common] == draft.texts[FIRST_COMPARED:common]:
        return None
    token = next(i for i in range(FIRST_COMPARED, common) if main.texts[i] != draft.texts[i])
    ours, theirs = shown(main.texts[token]), shown(draft.texts[token])
    return f"Token {token} is {ours} in the main model and {theirs} in the draft."
