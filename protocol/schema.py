"""The protocol as JSON Schema, for clients in other languages."""

from typing import Any

from pydantic import TypeAdapter

from protocol.journal import Record
from protocol.messages import (
    Answers,
    AskRequest,
    CommitRequest,
    Context,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    StudentCard,
    VersionCard,
)

MESSAGES: dict[str, Any] = {
    "context": Context,
    "self_edit": SelfEdit,
    "reward_request": RewardRequest,
    "reward": Reward,
    "ask_request": AskRequest,
    "answers": Answers,
    "refusal": Refusal,
    "commit_request": CommitRequest,
    "version_card": VersionCard,
    "student_card": StudentCard,
    "journal_record": Record,
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message; `name` is a key of `MESSAGES`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(MESSAGES[name]).json_schema()}
