"""The official OpenAI SDK for Python at the other endpoints of a running installation: embeddings, completions."""

import base64
from array import array
from collections.abc import Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from crun.sandbox.embeddings import vector_of
from tests.acceptance.installing import Installation
from tests.acceptance.upstream import fault_model

pytestmark = pytest.mark.installation


@pytest.fixture(scope="module")
def client(installation: Installation) -> Iterator[OpenAI]:
    with OpenAI(base_url=installation.api, api_key=installation.api_key, max_retries=0) as made:
        yield made


def _user(content: Any) -> list[Any]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_are_vectors_in_the_order_of_their_texts(client: OpenAI, encoding: str | None) -> None:
    """Without a word the SDK asks for base64 and unpacks it."""
    asked = {"model": "sandbox-embedding", "input": ["one two", "three"], "dimensions": 16}
    answer = client.embeddings.create(**asked, **({"encoding_format": encoding} if encoding else {}))
    expected = [vector_of(text, 16) for text in asked["input"]]
    if encoding == "base64":
        assert [array("f", base64.b64decode(each.embedding)).tolist() for each in answer.data] == expected
    else:
        assert [each.embedding for each in answer.data] == expected
    assert [(each.index, each.object) for each in answer.data] == [(0, "embedding"), (1, "embedding")]
    assert (answer.object, answer.model) == ("list", "sandbox-embedding")
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)
    assert answer.usage.cost > 0


def test_embeddings_of_token_ids_and_what_gives_none(client: OpenAI) -> None:
    assert len(client.embeddings.create(model="sandbox-embedding", input=[[1, 2], [3]]).data) == 2
    with pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model="truth-echo", input="Hello")
    assert (refused.value.code, refused.value.param) == ("unsupported_modality", "model")
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(model="sandbox-embedding", messages=_user("Hello"))
    assert refused.value.code == "unsupported_modality"


def test_a_text_completion(client: OpenAI) -> None:
    answer = client.completions.create(model="truth-echo", prompt="one two three", n=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["one two threeone two three"] * 2
    assert (answer.object, answer.model, answer.choices[1].finish_reason) == ("text_completion", "truth-echo", "stop")
    assert answer.usage is not None and answer.usage.total_tokens == 9
    short = client.completions.create(model="truth-echo", prompt=" ".join(["word"] * 40))
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None and short.usage.completion_tokens == 16
    with pytest.raises(BadRequestError) as refused:
        client.completions.create(model="truth-echo", prompt=["one", "two"])
    assert refused.value.param == "prompt"


def test_a_text_completion_streams(client: OpenAI) -> None:
    with client.completions.create(model="truth-echo", prompt="one two three", stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one two three"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].usage is not None and chunks[-1].usage.total_tokens == 6
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("text_completion", "truth-echo")}
    with (
        pytest.raises(Exception, match="broke off"),
        client.completions.create(model=fault_model("cut-3"), prompt="one two three four", stream=True) as stream,
    ):
        list(stream)
