"""What a text may lose by following the offers of free drafters, at worst.

A long match that breaks off costs a wide batch for nothing, and how soon matches break is a matter of the
text: estimates from other texts are too bold for some. So each text begins with a small stake, in tokens.
Whatever is verified must be covered by it, were all of it to fail; what is won raises it, and the next
offer may be longer. That is how Kelly (1956) lets a capital grow and never be lost.
"""

_FIRST = 1.0  # tokens
_MOST = 24.0
_EARNED = 0.01  # by each token emitted: a text that went badly is tried again in the end


class Stake:
    """Of one text, in tokens."""

    def __init__(self) -> None:
        self._tokens = _FIRST

    def covers(self, loss: float) -> bool:
        return loss <= self._tokens

    def settle(self, gained: float, emitted: int) -> None:
        """A round gained so many tokens over a plain one, or lost them; 0 for a plain one."""
        self._tokens = min(_MOST, self._tokens + gained + _EARNED * emitted)

    def would_have(self, gained: float) -> None:
        """What an offer that was not covered would have gained makes up for losses, and no more than that."""
        if gained > 0.0:
            self._tokens = max(self._tokens, min(_FIRST, self._tokens + gained))
