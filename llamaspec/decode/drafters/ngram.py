"""Drafting from the sequence's own text: what followed when its last tokens stood there before."""

from collections.abc import Iterable, Iterator, Sequence

from llamaspec.decode.drafters.lookup import Guesses, LookupDrafter, Match, most_voted

ORDERS = (2, 3, 5, 8, 13, 21)
"""Lengths of the n-grams: from 1 and 1 on, each is the sum of the two before it (see `NgramIndex`).

A longer match is right more often, up to about 21 tokens.
"""

LONGEST = ORDERS[-1]

# Near the lower end of what was measured on 15 answers of a 1.5B model (code, edits, chat, JSON, maths and
# others, 3 thousand tokens) and on the second halves of 50 Python and prose files (29 thousand).
GUESSES: Guesses = {
    2: (0.35, 0.65, 0.35, 0.12),
    3: (0.45, 0.80, 0.40, 0.12),
    5: (0.60, 0.90, 0.40, 0.18),
    8: (0.75, 0.92, 0.35, 0.18),
    13: (0.80, 0.92, 0.35, 0.30),
    21: (0.90, 0.95, 0.40, 0.30),
}


class _Order:
    """The n-grams of one length, each a first part and a rest of `rest` tokens. It stands where it ends.

    `names` tells where the n-gram made of two named parts stood first: that place is its name. For each
    place: `named` is the name of the n-gram there, and `before` where that one stood last before (the same
    place if nowhere). For each name: `latest` is where it stood last.
    """

    __slots__ = ("before", "latest", "named", "names", "rest", "size")

    def __init__(self, size: int, first: int) -> None:
        self.size, self.rest = size, size - first
        self.names: dict[int, int] = {}
        none_yet = [0] * (size - 1)  # no n-gram of this length ends so early
        self.named, self.before, self.latest = none_yet.copy(), none_yet.copy(), none_yet.copy()


class NgramIndex:
    """Where the n-grams of a growing text stand, for all lengths in `ORDERS`.

    An n-gram is known by the names of its two parts, which are n-grams of the two orders before, or tokens
    (the naming of Karp, Miller and Rosenberg, 1972). So one more token costs one look-up per order, nothing
    is compared, and no n-gram is taken for another. It is entered when the token that follows it is there.
    Memory is some 0.6 kB per token of the text.
    """

    def __init__(self, tokens: Iterable[int] = ()) -> None:
        self._text: list[int] = []
        self._orders = [_Order(size, first) for size, first in zip(ORDERS, (1, 1, *ORDERS), strict=False)]
        self._search = self._plan()
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._text)

    def append(self, token: int) -> None:
        self.extend((token,))

    def extend(self, tokens: Iterable[int]) -> None:
        """Let the text go on."""
        text, orders = self._text, self._orders
        for token in tokens:
            place = len(text) - 1
            text.append(token)
            if place < 0:
                continue
            shorter = short = text
            name = text[place]
            for order in orders:
                if place < order.size - 1:
                    break
                name = order.names.setdefault(shorter[place - order.rest] << 32 | name, place)
                order.named.append(name)
                order.latest.append(place)
                order.before.append(order.latest[name])
                order.latest[name] = place
                shorter, short = short, order.named

    def follow(self, tail: Sequence[int]) -> Match | None:
        """What followed the longest n-gram that ends `tail` when it last stood in the text; see `most_voted`.

        Only the last `LONGEST` tokens of `tail` are looked at.
        """
        found = self._find(tail)
        return most_voted(self._followers(*found), found[0].size) if found else None

    def _find(self, tail: Sequence[int]) -> tuple[_Order, int] | None:
        """Order and name of the longest n-gram that ends `tail`."""
        found = None
        names = [*tail[: -LONGEST - 1 : -1]]
        length = len(names)
        names += [0] * (LONGEST - length)
        for order, steps in self._search:
            if length < order.size:
                break
            for known, first, rest in steps:
                name = known.get(names[first] << 32 | names[rest])
                if name is None:
                    return found
                names.append(name)
            found = order, names[-1]
        return found

    def _followers(self, order: _Order, name: int) -> Iterator[int]:
        """The tokens that came after an n-gram, the latest first."""
        place, before, text = order.latest[name], order.before, self._text
        yield text[place + 1]
        while (earlier := before[place]) != place:
            place = earlier
            yield text[place + 1]

    def _plan(self) -> list[tuple[_Order, list[tuple[dict[int, int], int, int]]]]:
        """The look-ups that find the n-grams which end a tail, the shortest first.

        They extend a list of names that begins with the last `LONGEST` tokens, the very last in front. A step
        says in which dictionary the next name is found, and where in the list its first part and rest are.
        """
        made = {(1, back): back for back in range(LONGEST)}
        by_size = {order.size: order for order in self._orders}

        def steps(size: int, back: int) -> Iterator[tuple[dict[int, int], int, int]]:
            """To the n-gram that ends `back` tokens before the end."""
            if (size, back) not in made:
                order = by_size[size]
                first, rest = (size - order.rest, back + order.rest), (order.rest, back)
                yield from steps(*first)
                yield from steps(*rest)
                made[size, back] = len(made)
                yield order.names, made[first], made[rest]

        return [(order, list(steps(order.size, 0))) for order in self._orders]


class NgramDrafter(LookupDrafter):
    """Drafts what the sequence itself went on with, in its prompt or in its answer."""

    name = "ngram"

    def __init__(self) -> None:
        super().__init__(GUESSES)
        self._indices: dict[int, NgramIndex] = {}

    def begin(self, sequence: int, common: int = 0, source: int = -1) -> None:
        self._indices[sequence] = NgramIndex()

    def settle(self, sequence: int, tokens: Sequence[int]) -> None:
        index = self._indices[sequence]
        index.extend(tokens[len(index) :])

    def end(self, sequence: int) -> None:
        self._indices.pop(sequence, None)

    def _match(self, sequence: int, tail: Sequence[int]) -> Match | None:
        return self._indices[sequence].follow(tail)
