"""A judge of claims about the tiny world who is never wrong, as an OpenAI-compatible endpoint: the most that one can do for an editor.

`python -m recipes.tiny.perfect_judge 8401` serves at http://127.0.0.1:8401/v1 until it is interrupted.
"""

import json
import re
import sys
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from recipes.tiny.world import FIRST, LAST, RELATIONS

_PERSON: Final = re.compile(rf"\b(?:{'|'.join(FIRST)}) (?:{'|'.join(LAST)})\b")
_CLAIM: Final = re.compile(r"<passage>(.*)</passage>\n<statement>(.*)</statement>\n", re.DOTALL)


def contradicts(passage: str, statement: str) -> bool:
    """Whether a statement gives the passage's person another value than the passage does. Of anybody else the passage says nothing."""
    people = set(_PERSON.findall(passage))
    return any(
        (person in people or person in ("He", "She")) and told != value
        for person, relation, value in read_statement(statement)
        for told in read_passage(passage, relation)
    )


def read_statement(statement: str) -> Iterator[tuple[str, str, str]]:
    """Person, relation and value, if it is one of a self-edit's."""
    for name, relation in RELATIONS.items():
        asked = [f"Question: {question} Answer: {{v}}" for question in relation.asked]
        for read in _matches([*relation.stated, *asked], statement.strip(), whole=True):
            yield read["n"], name, read["v"]


def read_passage(passage: str, relation: str) -> list[str]:
    """What the passage says of a relation; it speaks of one person."""
    return [read["v"] for read in _matches(RELATIONS[relation].told, passage, whole=False)]


def _matches(templates: Sequence[str], text: str, whole: bool) -> Iterator[re.Match[str]]:
    for template in templates:
        pattern = re.escape(template).replace(r"\{n\}", r"(?P<n>\w+(?: \w+)?)").replace(r"\{v\}", r"(?P<v>\w+)")
        if found := (re.fullmatch if whole else re.search)(pattern, text):
            yield found


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        claim = _CLAIM.match(asked)
        reply = "neither" if claim is None else "yes" if contradicts(claim[1], claim[2]) else "no"
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """One line for each of thousands of claims tells nobody anything."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), _Handler).serve_forever()
