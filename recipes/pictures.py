"""Pictures of contexts and what was answered about them, where a domain has pictures: in the run folder, the first in the terminal."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocol.messages import Context
from recipes.domains import RecipeDomain
from recipes.terminal import console


def save_pictures(domain: RecipeDomain, contexts: Sequence[Context], answers: Sequence[Mapping[str, Sequence[str]]], folder: Path) -> None:
    """Draw each context with its answers, by condition, and show the first."""
    pictures = [domain.picture(context, own) for context, own in zip(contexts, answers, strict=True)]
    drawn = [(context, picture) for context, picture in zip(contexts, pictures, strict=True) if picture]
    if not drawn:
        return
    folder.mkdir(exist_ok=True)
    for number, (context, picture) in enumerate(drawn):
        picture.save(folder / f"{number:03d}-{re.sub('[^A-Za-z0-9]+', '-', context.title)[:60]}.png")
    console.print(drawn[0][1])
    console.print(f"pictures: {folder}")
