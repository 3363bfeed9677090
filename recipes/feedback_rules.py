"""What a piece of feedback is worth, in [-1, 1], and when it counts: settings, and the mapping that they make. Torch-free."""

import math
from dataclasses import dataclass, field, fields

from protocol.errors import InvalidInput
from protocol.feedback import HIGHEST_RATING, LOWEST_RATING, Feedback


@dataclass
class KindWeights:
    """How much a piece of feedback of each kind weighs. One of weight 0 does not count. Deeds weigh less than words: they say less."""

    rating: float = 1.0
    thumb: float = 1.0
    click: float = 0.25
    seconds: float = 0.25
    test: float = 1.0


@dataclass
class FeedbackRules:
    """What feedback is worth. A question's reward is the sum of weight x value over its pieces / (the sum of weights + `shrink`).

    Attributes:
        neutral_rating: The rating that is worth 0; from there it is straight to -1 for a rating of 1, and to 1 for one of 5.
        thumb_up, thumb_down, click, no_click, test_passed, test_failed: What each is worth.
        few_seconds, many_seconds: Time on the page that is worth -1, and 1; less and more are worth the same. Between them the worth
            goes by the logarithm of 1 + seconds.
        weights: By kind.
        minimum: A question with fewer pieces has no reward.
        shrink: As if so much weight had said 0: draws the reward of a question with few pieces towards 0. With 0 it is the plain mean.
        wait: How old an answer must be before what was said about it counts, in seconds: until then more may come. Where it is not
            known when it was given, the time at which the version was made stands for it.
        latest: Feedback so many seconds after its version was made comes too late to count; null means never.
    """

    neutral_rating: float = 3.0
    thumb_up: float = 1.0
    thumb_down: float = -1.0
    click: float = 1.0
    no_click: float = -1.0
    few_seconds: float = 5.0
    many_seconds: float = 60.0
    test_passed: float = 1.0
    test_failed: float = -1.0
    weights: KindWeights = field(default_factory=KindWeights)
    minimum: int = 1
    shrink: float = 1.0
    wait: float = 0.0
    latest: float | None = None

    def check(self, place: str, prefix: str) -> None:
        """See that every value is in its range.

        Raises:
            InvalidInput: Names the place, the key, which begins with `prefix`, the value and the remedy.
        """
        if not LOWEST_RATING < self.neutral_rating < HIGHEST_RATING:
            raise InvalidInput(f"{place}: {prefix}neutral_rating is {self.neutral_rating}; it must be between 1 and 5")
        for better, worse in (("thumb_up", "thumb_down"), ("click", "no_click"), ("test_passed", "test_failed")):
            high, low = getattr(self, better), getattr(self, worse)
            for name, value in ((better, high), (worse, low)):
                if not -1 <= value <= 1:
                    raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be in [-1, 1]")
            if high < low:
                raise InvalidInput(f"{place}: {prefix}{better} is {high}, below {prefix}{worse}, which is {low}; swap them")
        if not 0 <= self.few_seconds < self.many_seconds < math.inf:
            raise InvalidInput(
                f"{place}: {prefix}few_seconds is {self.few_seconds} and {prefix}many_seconds is {self.many_seconds}; the first must be "
                "the smaller, and not negative"
            )
        if self.minimum < 1:
            raise InvalidInput(f"{place}: {prefix}minimum is {self.minimum}; it must be at least 1")
        numbers = {"shrink": self.shrink, "wait": self.wait, "latest": 0.0 if self.latest is None else self.latest}
        numbers |= {f"weights.{item.name}": getattr(self.weights, item.name) for item in fields(self.weights)}
        for name, value in numbers.items():
            if not 0 <= value < math.inf:
                raise InvalidInput(f"{place}: {prefix}{name} is {value}; it must be a number, and not negative")


def appraise(feedback: Feedback, rules: FeedbackRules) -> float:
    """What a piece of feedback is worth, in [-1, 1]."""
    value = feedback.value
    match feedback.kind:
        case "rating":
            end = HIGHEST_RATING if value >= rules.neutral_rating else LOWEST_RATING
            return (value - rules.neutral_rating) / abs(end - rules.neutral_rating)
        case "seconds":
            low, here, high = map(math.log1p, (rules.few_seconds, value, rules.many_seconds))
            return min(1.0, max(-1.0, 2 * (here - low) / (high - low) - 1))
        case "thumb":
            return rules.thumb_up if value else rules.thumb_down
        case "click":
            return rules.click if value else rules.no_click
        case "test":
            return rules.test_passed if value else rules.test_failed
