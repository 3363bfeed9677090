"""What requests to an endpoint cost, and the most that they may."""

from dataclasses import dataclass
from threading import Condition
from typing import Annotated

from pydantic import Field

from protocol.messages import Message

Count = Annotated[int, Field(ge=0)]


class Spending(Message):
    """What some requests came to.

    Attributes:
        requests: Those sent, whatever came of them.
        unmetered: Those that may have been charged without saying so, because no answer came, or one without `usage`; each counts
            with the most it can have cost, and with no tokens.
        prompt_tokens, completion_tokens: As the endpoint counts them.
        cost: In the currency of the prices.
    """

    requests: Count = 0
    unmetered: Count = 0
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    cost: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return Spending(**{name: getattr(self, name) + getattr(other, name) for name in Spending.model_fields})


def describe_spending(spending: Spending) -> str:
    """What a user is told of it."""
    told = (
        f"spent at endpoints: {spending.requests:,} requests, {spending.prompt_tokens:,} tokens read, "
        f"{spending.completion_tokens:,} written, cost {spending.cost:,.4f}"
    )
    if spending.unmetered:
        told += f" ({spending.unmetered:,} of the requests told no tokens, and count with the most they can have cost)"
    return told


@dataclass(frozen=True)
class Prices:
    """Per million tokens."""

    read: float
    written: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.read + completion_tokens * self.written) / 1e6


class Account:
    """What was spent, and what requests that are under way may cost yet. Any number of threads may use it."""

    def __init__(self, budget: float | None, spent: float):
        self._budget, self._spent = budget, spent
        self._under_way: list[float] = []
        self._changed = Condition()

    @property
    def spent(self) -> float:
        """What is settled."""
        return self._spent

    def reserve(self, most: float) -> bool:
        """Set aside what a request may cost at most, before it is sent.

        Where there is no room for it now, others that are under way are waited for, which may come to less.

        Returns:
            Whether the request may be sent: even at its most it stays within the budget.
        """
        with self._changed:
            while self._budget is not None and self._spent + sum(self._under_way) + most > self._budget:
                if not self._under_way:
                    return False
                self._changed.wait()
            self._under_way.append(most)
            return True

    def settle(self, most: float, cost: float) -> None:
        """Book what a request did cost in place of what was set aside for it."""
        with self._changed:
            self._under_way.remove(most)
            self._spent += cost
            self._changed.notify_all()


class Meter:
    """The requests for one candidate, one after the other, on an account.

    Attributes:
        most: What each of them may cost.
        spending: What they came to.
    """

    def __init__(self, account: Account, prices: Prices, prompt_tokens: int, completion_tokens: int):
        """`prompt_tokens` and `completion_tokens` are the most that a request may have."""
        self.most = prices.cost(prompt_tokens, completion_tokens)
        self.spending = Spending()
        self._account, self._prices = account, prices
        self._is_open = False

    def begin(self) -> bool:
        """Whether the budget has room for a request."""
        self._is_open = self._account.reserve(self.most)
        return self._is_open

    def end(self, usage: tuple[int, int] | None = None, lost: bool = True) -> None:
        """Book the request that was begun, if it still is to be booked.

        Args:
            usage: Tokens read and written, if the endpoint tells.
            lost: Whether, without a usage, it may have been charged; else it was turned away.
        """
        if not self._is_open:
            return
        self._is_open = False
        if usage is not None:
            own = Spending(requests=1, prompt_tokens=usage[0], completion_tokens=usage[1], cost=self._prices.cost(*usage))
        else:
            own = Spending(requests=1, unmetered=int(lost), cost=self.most * lost)
        self._account.settle(self.most, own.cost)
        self.spending += own
