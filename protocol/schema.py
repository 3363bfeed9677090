"""The protocol as JSON Schema, for clients in other languages."""

from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import models_json_schema

from protocol.feedback import Feedback, FeedbackBatch, FeedbackReceipt
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
from protocol.wire import Cancellation, Results, Submission, Wanted

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
    "submission": Submission,
    "wanted": Wanted,
    "results": Results,
    "cancellation": Cancellation,
    "feedback": Feedback,
    "feedback_batch": FeedbackBatch,
    "feedback_receipt": FeedbackReceipt,
    "journal_record": Record,
}


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one message; `name` is a key of `MESSAGES`."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **TypeAdapter(MESSAGES[name]).json_schema()}


def component_schemas() -> dict[str, Any]:
    """The schemas of all messages by class name, for an OpenAPI document."""
    models = [(message, "validation") for name, message in MESSAGES.items() if name != "journal_record"]
    _, schemas = models_json_schema(models, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    found: dict[str, Any] = schemas["$defs"]
    return found
