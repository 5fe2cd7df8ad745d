"""The tokens of a conversation that goes on are those that were evaluated."""

import re

from llamaspec.chat.token_trail import TokenTrail

WORDS = ["<s>", "<|user|>", "<|bot|>", "<|end|>", "a", "b", "ab", "c", " "]
CONTROL = 4


class Greedy:
    """Takes the longest word: `a` and `b`, once written apart, are read as `ab`."""

    def tokenize(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        pattern = "|".join(re.escape(word) for word in sorted(WORDS, key=len, reverse=True))
        ids = [WORDS.index(word) for word in re.findall(pattern, text)]
        return [0, *ids] if add_special else ids

    def piece(self, token: int) -> bytes:
        return b"" if token < CONTROL else WORDS[token].encode()

    def special_text(self, token: int | None) -> str:
        return "" if token is None else WORDS[token]


A, B, AB, C = 4, 5, 6, 7
FIRST = "<|user|>c<|bot|>"


def test_an_answer_keeps_the_tokens_it_was_written_with() -> None:
    model = Greedy()
    trail = TokenTrail(model)
    tokens = trail.tokens(FIRST)
    assert tokens == [0, 1, C, 2]
    trail.follow(FIRST, tokens, "ab", [A, B])
    second = FIRST + "ab<|end|><|user|>c<|bot|>"
    assert model.tokenize(second)[4] == AB
    tokens = trail.tokens(second)
    assert tokens == [0, 1, C, 2, A, B, 3, 1, C, 2]

    trail.follow(second, tokens, "ab", [A, B])
    third = second + "ab<|end|><|user|>a<|bot|>"
    assert trail.tokens(third) == [*tokens, A, B, 3, 1, A, 2]
    # The same question again, and another one in its place.
    assert trail.tokens(second) == tokens
    assert trail.tokens(FIRST + "ab<|end|><|user|>ab<|bot|>") == [0, 1, C, 2, A, B, 3, 1, AB, 2]


def test_text_that_was_changed_is_tokenised() -> None:
    model = Greedy()
    trail = TokenTrail(model)
    trail.follow(FIRST, trail.tokens(FIRST), "ab ", [A, B, 8])
    for other in (
        FIRST + "ab<|end|><|user|>c<|bot|>",  # a template that strips answers
        FIRST + "ab c",  # no token may span the cut
        "<|user|>b<|bot|>",
        "",
    ):
        assert trail.tokens(other) == model.tokenize(other)


def test_a_cut_text_is_tokenised() -> None:
    trail = TokenTrail(Greedy())
    trail.follow(FIRST, trail.tokens(FIRST), "a", [AB])  # a stop string within a token
    assert trail.tokens(FIRST + "a<|end|>") == [0, 1, C, 2, A, 3]
