"""What the OpenAI API refuses, with which status, code and words, asked by OpenAI's own client.

python -m pytest tests/unit/fastchat/serve/openai/test_errors.py
"""

import openai
import pytest
import requests

from fastchat.serve import base_model_worker, controller
from fastchat.serve.openai_api_server import create_app
from tests.support.servers import CHAT, CONTEXT, KEY, TEXT, register, running

IMAGE = [{"role": "user", "content": [{"type": "image_url"}]}]


@pytest.mark.parametrize(
    ("asked", "name", "more"),
    [
        (CHAT, "temperature", {"temperature": -1}),
        (CHAT, "n", {"n": 0}),
        (CHAT, "tools", {"tools": [{"type": "function"}]}),
        (CHAT, "logprobs", {"logprobs": 0}),
        (CHAT, "top_logprobs", {"top_logprobs": 2}),
        (CHAT, "frequency_penalty", {"frequency_penalty": 2.5}),
        (CHAT, "response_format", {"response_format": {"type": "json_object"}}),
        (CHAT, "tempurature", {"tempurature": 1}),
        (CHAT, "stream_options", {"stream_options": {"include_usage": True}}),
        (CHAT, "messages", {"messages": []}),
        (CHAT, "messages.0.content.0.type", {"messages": IMAGE}),
        (CHAT, "messages.0", {"messages": [{"role": "tool", "content": "4"}]}),
        (TEXT, "prompt", {"prompt": 5}),
        (TEXT, "prompt", {"prompt": []}),
        (TEXT, "max_tokens", {"max_tokens": 0}),
        (TEXT, "max_tokens", {"max_tokens": 0, "echo": True}),
        (TEXT, "logprobs", {"logprobs": 21}),
        (TEXT, "logprobs", {"logprobs": True}),
    ],
)
def test_bad_parameters_are_refused_by_name(client, asked, name, more):
    completions = client.chat.completions if asked is CHAT else client.completions
    with pytest.raises(openai.BadRequestError) as refused:
        completions.create(**asked, extra_body=more)
    assert refused.value.param == name and name in refused.value.message
    assert refused.value.type == "invalid_request_error"


def test_embeddings_are_left_out_by_name(client):
    with pytest.raises(openai.NotFoundError, match="no worker here makes embeddings") as refused:
        client.embeddings.create(model="tiny-llama", input="Hi")
    assert refused.value.code == "not_supported"


LONG = "word " * CONTEXT


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_context_has_its_own_code(client, worker, stream):
    messages = [{"role": "user", "content": LONG}]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="tiny-llama", messages=messages, stream=stream)
    assert refused.value.code == "context_length_exceeded"
    for prompt in (LONG, worker.template.plain_prompt_ids(LONG)):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="tiny-llama", prompt=prompt, stream=stream)
        assert refused.value.code == "context_length_exceeded"


def test_a_wrong_key_is_401_everywhere(api_url):
    for key in ("wrong", "right", KEY + "s"):
        with openai.OpenAI(base_url=f"{api_url}/v1", api_key=key, max_retries=0) as client:
            for call in (client.models.list, lambda: client.completions.create(**TEXT)):
                with pytest.raises(openai.AuthenticationError) as refused:
                    call()
                assert refused.value.code == "invalid_api_key"
                assert KEY not in str(refused.value)
    assert requests.get(f"{api_url}/v1/models", timeout=10).status_code == 401


def test_unknown_models_and_paths_are_404(client, api_url):
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(**{**CHAT, "model": "gpt-9"})
    assert refused.value.code == "model_not_found"
    assert "'gpt-9'" in refused.value.message and "tiny-llama" in refused.value.message
    reply = requests.post(f"{api_url}/v1/responses", timeout=10)
    said = reply.json()["error"]["message"]
    assert reply.status_code == 404 and "/v1/responses" in said and "/v1/chat/completions" in said


def test_bodies_over_the_limit_or_without_json_have_openais_shape(api_url):
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    sent = {"url": f"{api_url}/v1/completions", "headers": headers, "timeout": 30}
    large = requests.post(data=b"x" * (17 * 2**20), **sent)
    assert large.status_code == 413 and "larger than" in large.json()["error"]["message"]
    assert requests.post(data=b"{", **sent).json()["error"]["type"] == "invalid_request_error"


def test_a_controller_or_a_worker_that_is_gone_is_503(worker):
    with running(controller.create_app()) as lonely:
        with running(create_app("http://localhost:9")) as api_url, client_of(api_url) as client:
            for call in (client.models.list, lambda: client.completions.create(**TEXT)):
                with pytest.raises(openai.InternalServerError) as failed:
                    call()
                assert failed.value.status_code == 503
        with running(create_app(lonely)) as api_url, client_of(api_url) as client:
            with running(base_model_worker.create_app(worker)) as short_lived:
                register(lonely, short_lived, worker)
                answer = client.completions.create(**TEXT, seed=1)
                assert answer.usage.completion_tokens == 16
            for _ in range(2):
                with pytest.raises(openai.APIStatusError) as failed:
                    client.completions.create(**TEXT)
            assert failed.value.status_code == 404


def client_of(api_url):
    return openai.OpenAI(base_url=f"{api_url}/v1", api_key="any", max_retries=0)
