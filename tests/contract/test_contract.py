"""schemathesis against a running installation: what is answered to anything is in the API document, and as it says."""

import random
from typing import Any

import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.parameters import ParameterLocation

from apps.gateway.openapi.document import FILE
from tests.acceptance.installing import Installation
from tests.acceptance.scale import sized

pytestmark = pytest.mark.installation
EXAMPLES = sized(30, 300)
"""Of each operation and kind; the seeds are fixed."""
CHAT = "POST /chat/completions"
OWN_MODEL = "truth-echo"
MODEL_OF = {
    CHAT: OWN_MODEL,
    "POST /responses": OWN_MODEL,
    "POST /messages": OWN_MODEL,
    "POST /messages/count_tokens": OWN_MODEL,
    "POST /completions": OWN_MODEL,
    "POST /embeddings": "sandbox-embedding",
}
"""Operations that ask a model -> one that can do it."""
NEVER_GOOD = ("GET /generation", "POST /responses/{response_id}/cancel")
"""What nobody can ask rightly by chance, and what is always refused."""

load_all_checks()
SCHEMA = schemathesis.openapi.from_dict(orjson.loads(FILE.read_bytes()))
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}
CONFORMANCE = CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    ]
)
each_operation = pytest.mark.parametrize("label", sorted(OPERATIONS))
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


class Caller:
    """Sends cases to an installation with its key, and keeps what came back."""

    def __init__(self, installation: Installation) -> None:
        self.url = installation.api
        self.key = installation.api_key
        self.statuses: list[int] = []

    def send(self, case: Any, **headers: str) -> Any:
        for name in [name for name in case.headers or () if name.lower() in ("authorization", "x-api-key")]:
            del case.headers[name]
        given_headers = headers or {"authorization": f"Bearer {self.key}"}
        response = case.call_and_validate(base_url=self.url, headers=given_headers, checks=CONFORMANCE, timeout=30)
        self.statuses.append(response.status_code)
        return response


@pytest.fixture
def caller(installation: Installation) -> Caller:
    return Caller(installation)


def stored_response(caller: Caller) -> str:
    """The id of an answer that is stored for the caller."""
    body = {"model": OWN_MODEL, "input": "one two"}
    answered = caller.send(OPERATIONS["POST /responses"].Case(body=body, media_type="application/json"))
    caller.statuses.clear()
    return str(answered.json()["id"])


def kept_conversation(caller: Caller) -> dict[str, str]:
    """The ids of a conversation of the caller's and of its item, by the names of their parameters."""
    body = {"items": [{"role": "user", "content": "one"}]}
    made = caller.send(OPERATIONS["POST /conversations"].Case(body=body, media_type="application/json")).json()["id"]
    listed = OPERATIONS["GET /conversations/{conversation_id}/items"].Case(path_parameters={"conversation_id": made})
    item = caller.send(listed).json()["data"][0]["id"]
    caller.statuses.clear()
    return {"conversation_id": str(made), "item_id": str(item)}


@each_operation
def test_whatever_is_asked_rightly_is_answered_as_documented(label: str, caller: Caller) -> None:
    operation = OPERATIONS[label]
    dice = random.Random(label)
    own = stored_response(caller) if "{response_id}" in label else ""
    kept = kept_conversation(caller) if "{conversation_id}" in label else {}

    @seed(1)
    @bounded
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        if label in MODEL_OF and isinstance(case.body, dict) and dice.random() < 0.8:
            case.body["model"] = MODEL_OF[label]
            for field in ("models", "provider", "functions", "function_call", "tool_choice"):
                case.body.pop(field, None)
        if "model_id" in (case.path_parameters or {}) and dice.random() < 0.5:
            case.path_parameters["model_id"] = OWN_MODEL
        if own and dice.random() < 0.5:
            case.path_parameters["response_id"] = own
        if kept and dice.random() < 0.5:
            case.path_parameters |= {name: kept[name] for name in case.path_parameters}
        caller.send(case)

    ask()
    if label not in NEVER_GOOD:
        assert 200 in caller.statuses


@each_operation
def test_whatever_is_asked_wrongly_is_answered_as_documented(label: str, caller: Caller) -> None:
    operation = OPERATIONS[label]
    wrong_bodies: list[Any] = []

    @seed(2)
    @bounded
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def ask(case: Any) -> None:
        has_wrong_body = label in MODEL_OF and (
            case.meta.components[ParameterLocation.BODY].mode is GenerationMode.NEGATIVE
        )
        if has_wrong_body:
            case.headers.pop("Idempotency-Key", None)  # one that was used before would be 409
        response = caller.send(case)
        if has_wrong_body:
            wrong_bodies.append(case.body)
            assert response.status_code == 400, case.body

    ask()
    assert len(wrong_bodies) >= EXAMPLES // 3 or label not in MODEL_OF


@each_operation
def test_strangers_are_answered_as_documented(label: str, caller: Caller) -> None:
    @seed(3)
    @settings(bounded, max_examples=3)
    @given(case=OPERATIONS[label].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def ask(case: Any) -> None:
        for headers in ({"x-nobody": "1"}, {"x-api-key": "ak_wrong"}, {"authorization": "Basic eA=="}):
            caller.send(case, **headers)

    ask()
    assert set(caller.statuses) == ({200} if label == "GET /openapi.json" else {401})


def test_a_receipt_is_as_documented(caller: Caller) -> None:
    case = OPERATIONS[CHAT].Case(
        body={"model": OWN_MODEL, "messages": [{"role": "user", "content": "one two"}]}, media_type="application/json"
    )
    answered = caller.send(case)
    assert answered.status_code == 200
    request_id = answered.headers["x-crun-generation-id"][0]
    receipt = caller.send(OPERATIONS["GET /generation"].Case(query={"id": request_id}))
    assert receipt.status_code == 200
    assert receipt.json()["data"]["request_id"] == request_id
    assert receipt.json()["data"]["receipt"]["attempts"]
