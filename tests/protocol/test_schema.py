import jsonschema
import pytest

from protocol.messages import Example, SelfEdit
from protocol.schema import MESSAGES, json_schema


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_has_a_valid_schema(name: str) -> None:
    schema = json_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")


def test_the_schema_accepts_what_the_model_writes_and_refuses_unknown_keys() -> None:
    edit = SelfEdit(examples=(Example(completion="x"),)).model_dump(mode="json")
    jsonschema.validate(edit, json_schema("self_edit"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**edit, "command": "x"}, json_schema("self_edit"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"update": {"epochs": 0}}, json_schema("self_edit"))
