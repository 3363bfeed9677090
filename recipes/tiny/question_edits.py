"""Writes `question_edits.jsonl`: another teacher's self-edits about held-out people, all in questions and answers, as a file."""

import json
import random
from pathlib import Path

from protocol.files import write_text
from recipes.tiny import world
from recipes.tiny.source import FACTS_SEED

if __name__ == "__main__":
    rows = [
        {"title": world.TITLE, "context": story.passage, "completions": ["\n".join(world.questions(random.Random(index), story))]}
        for index, story in enumerate(world.stories("held_out", 128, FACTS_SEED))
    ]
    write_text(Path(__file__).with_suffix(".jsonl"), "".join(json.dumps(row) + "\n" for row in rows))
