"""The domains a recipe or a request may name."""

from protocol.domain import Domain
from recipes.domains.knowledge import Knowledge

DOMAINS: dict[str, Domain] = {"knowledge": Knowledge()}
