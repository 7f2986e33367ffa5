"""The OpenAI API, asked by OpenAI's own client, over a real controller and a real worker.

python -m pytest tests/unit/fastchat/serve/test_openai_api_server.py
"""

import asyncio
import contextlib

import openai
import pytest
import requests

from rise.policies.openai_api import OpenAIPolicy
from tests.support.servers import CHAT, CONTEXT, KEY, TEXT, post, scrape, wait_for
from tests.support.serving import slow_down


def by_worker(worker_url, **body):
    common = {"messages": CHAT["messages"], "echo": False, "max_new_tokens": 12}
    reply = post(f"{worker_url}/worker_generate", {**common, **body})
    assert reply["error_code"] == 0
    return reply


def test_the_models_are_those_of_the_controller(client):
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == ("tiny-llama", CONTEXT)
    assert client.models.retrieve("tiny-llama").id == "tiny-llama"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_chat_says_what_the_worker_says(client, worker_url):
    expected = by_worker(worker_url, n=3, seed=7)
    reply = client.chat.completions.create(**CHAT, n=3, seed=7, max_tokens=12, temperature=1.0)
    assert [choice.message.content for choice in reply.choices] == expected["text"]
    assert [choice.finish_reason for choice in reply.choices] == expected["finish_reason"]
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert reply.usage.model_dump(exclude_none=True) == expected["usage"]
    assert len(set(expected["text"])) == 3
    third = client.chat.completions.create(**CHAT, seed=9, max_completion_tokens=12)
    assert third.choices[0].message.content == expected["text"][2]


def test_without_a_length_an_answer_takes_what_the_context_leaves(client):
    reply = client.chat.completions.create(**CHAT, temperature=0, extra_body={"top_k": 5})
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage.total_tokens == CONTEXT
    assert client.completions.create(**TEXT, temperature=0).usage.completion_tokens == 16


def test_the_samples_of_a_run_are_the_same_in_a_stream(api_url):
    async def samples(*left_out):
        model = {"model": "tiny-llama", "base_url": f"{api_url}/v1", "key": KEY}
        policy = OpenAIPolicy("t", **model, left_out=left_out)
        settings = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 12, "problem": {}}
        try:
            return await policy.sample(CHAT["messages"], n=3, seed=7, **settings)
        finally:
            await policy.close()

    whole, streamed = asyncio.run(samples()), asyncio.run(samples("stream=false"))
    assert streamed == whole and len({sample.text for sample in whole}) == 3
    assert all(sample.token_ids for sample in whole)


def test_a_stream_carries_every_choice_and_the_usage(client):
    options = {"n": 2, "seed": 3, "max_tokens": 200}
    whole = client.chat.completions.create(**CHAT, **options)
    stream = client.chat.completions.create(
        **CHAT, **options, stream=True, stream_options={"include_usage": True}
    )
    texts, reasons, usages, roles = ["", ""], [None, None], [], []
    for chunk in stream:
        assert chunk.id.startswith("chatcmpl-") and chunk.model == "tiny-llama"
        usages.append(chunk.usage)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason or reasons[choice.index]
            roles.append(choice.delta.role)
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [choice.finish_reason for choice in whole.choices]
    assert usages[-1] == whole.usage and set(usages[:-1]) == {None}
    assert len(usages) > 8 and roles.count("assistant") == 2


def test_a_stream_without_usage_ends_as_the_protocol_says(api_url):
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {**TEXT, "stream": True, "max_tokens": 4, "temperature": 0}
    reply = requests.post(f"{api_url}/v1/completions", json=body, headers=headers, timeout=30)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith('data: {"id": "cmpl-') for event in events[:-1])
    assert "usage" not in reply.text


def test_completions_take_texts_and_token_ids(client, worker):
    ids = worker.template.plain_prompt_ids(TEXT["prompt"])
    options = {"temperature": 0, "max_tokens": 6}
    both = ["Hello there", "Goodbye"]
    texts = client.completions.create(model="tiny-llama", prompt=both, **options)
    assert [choice.index for choice in texts.choices] == [0, 1]
    bodies = {"extra_body": {"return_token_ids": True}}
    by_ids = client.completions.create(model="tiny-llama", prompt=ids, **options, **bodies)
    assert by_ids.choices[0].text == texts.choices[0].text
    assert by_ids.choices[0].prompt_token_ids == ids
    assert len(by_ids.choices[0].token_ids) == by_ids.usage.completion_tokens == 6
    echoed = client.completions.create(**TEXT, **options, echo=True)
    assert echoed.choices[0].text == "Hello there" + by_ids.choices[0].text
    goodbye = len(worker.template.plain_prompt_ids("Goodbye"))
    assert texts.usage.prompt_tokens == len(ids) + goodbye


def test_token_ids_of_a_stream_are_those_of_the_whole_answer(client):
    options = {"n": 2, "seed": 5, "max_tokens": 9, "extra_body": {"return_token_ids": True}}
    whole = client.completions.create(**TEXT, **options)
    tokens, prompts = [[], []], [None, None]
    for chunk in client.completions.create(**TEXT, **options, stream=True):
        for choice in chunk.choices:
            tokens[choice.index] += getattr(choice, "token_ids", [])
            prompts[choice.index] = getattr(choice, "prompt_token_ids", prompts[choice.index])
    assert tokens == [choice.token_ids for choice in whole.choices]
    assert prompts == [choice.prompt_token_ids for choice in whole.choices]


def test_log_probabilities_of_a_chat_are_those_of_the_worker(client, worker_url):
    options = {"n": 2, "seed": 3, "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**CHAT, **options)
    told = by_worker(worker_url, n=2, seed=3, logprobs=2)["logprobs"]
    for choice, expected in zip(whole.choices, told, strict=True):
        content = choice.logprobs.content
        assert [one.logprob for one in content] == expected["token_logprobs"]
        raw = b"".join(bytes(one.bytes) for one in content)
        assert raw.decode(errors="replace").startswith(choice.message.content)
        assert all(len(one.top_logprobs) == 2 for one in content)
        assert all(one.top_logprobs[0].logprob >= one.logprob for one in content)
    streamed = [[], []]
    for chunk in client.chat.completions.create(**CHAT, **options, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert streamed == [choice.logprobs.content for choice in whole.choices]
    bare = client.chat.completions.create(**CHAT, max_tokens=2, seed=3, logprobs=True)
    assert [one.top_logprobs for one in bare.choices[0].logprobs.content] == [[], []]
    assert client.chat.completions.create(**CHAT, max_tokens=2).choices[0].logprobs is None


def test_completions_score_prompts_as_harnesses_ask_for_it(client, worker):
    texts = ["Hello there", "Goodbye"]
    prompts = [worker.template.plain_prompt_ids(text) for text in texts]
    options = {"model": "tiny-llama", "temperature": 0, "echo": True, "logprobs": 1}
    one = client.completions.create(prompt=prompts, max_tokens=1, seed=1234, **options)
    none = client.completions.create(prompt=texts, max_tokens=0, **options)
    for text, ids, more, bare in zip(texts, prompts, one.choices, none.choices, strict=True):
        assert bare.text == text and more.text.startswith(text)
        assert len(bare.logprobs.token_logprobs) == len(more.logprobs.tokens) - 1 == len(ids)
        assert bare.logprobs.token_logprobs == close(more.logprobs.token_logprobs[:-1])
        assert more.logprobs.text_offset[len(ids)] == len(text)
        # Greedy: the answer's token is the likeliest.
        top = more.logprobs.top_logprobs[-1]
        assert more.logprobs.token_logprobs[-1] == max(top.values()) and len(top) == 1
    assert one.usage.completion_tokens == 2 and none.usage.completion_tokens == 0
    chunks = client.completions.create(prompt=texts, max_tokens=1, stream=True, **options)
    told = [[], []]
    for chunk in chunks:
        for choice in chunk.choices:
            told[choice.index] += choice.logprobs.token_logprobs if choice.logprobs else []
    assert told == [close(choice.logprobs.token_logprobs) for choice in one.choices]


def close(logprobs):
    return pytest.approx(logprobs, abs=1e-4)


def test_penalties_and_stop_texts_reach_the_worker(client, worker_url):
    plain = by_worker(worker_url, temperature=0, max_new_tokens=40)["text"]
    settings = {"presence_penalty": 2.0, "frequency_penalty": 2.0, "repetition_penalty": 1.5}
    for name, value in (settings | {"stop": plain[10:12]}).items():
        expected = by_worker(worker_url, temperature=0, max_new_tokens=40, **{name: value})
        options = {"temperature": 0, "max_tokens": 40, "extra_body": {name: value}}
        [choice] = client.chat.completions.create(**CHAT, **options).choices
        assert choice.message.content == expected["text"] != plain
        assert choice.finish_reason == expected["finish_reason"]


def test_parts_developer_messages_and_sent_back_answers_are_understood(client, worker_url):
    system, asked = {"role": "system", "content": "Be brief."}, CHAT["messages"][0]
    again = {"role": "user", "content": "Why?"}
    answer = client.chat.completions.create(**CHAT, max_tokens=5, seed=1).choices[0].message
    plain = [system, asked, {"role": "assistant", "content": answer.content}, again]
    parts = [{"type": "text", "text": "2 + "}, {"type": "text", "text": "2?"}]
    typed = [{**system, "role": "developer"}, {"role": "user", "content": parts}, answer, again]
    options = {"model": "tiny-llama", "temperature": 0, "max_tokens": 12}
    reply = client.chat.completions.create(messages=typed, **options)
    expected = by_worker(worker_url, messages=plain, temperature=0)
    assert reply.choices[0].message.content == expected["text"]


def test_fields_that_change_nothing_are_read_over(client):
    neutral = {"user": "me", "frequency_penalty": 0, "logprobs": False}
    neutral |= {"tools": [], "logit_bias": {}, "prompt_cache_retention": "24h"}
    options = {"temperature": 0, "max_tokens": 5}
    plain = client.chat.completions.create(**CHAT, **options)
    reply = client.chat.completions.create(**CHAT, **options, **neutral)
    assert reply.choices == plain.choices


def test_fifty_clients_at_the_same_time_get_their_own_answers(api_url, worker):
    async def ask_all():
        async with openai.AsyncOpenAI(base_url=f"{api_url}/v1", api_key=KEY) as client:
            create = client.chat.completions.create
            alone = [await create(**CHAT, seed=i, max_tokens=8) for i in range(3)]
            plain = [create(**CHAT, seed=i, max_tokens=8) for i in range(25)]
            streams = [stream_text(create, i) for i in range(25)]
            replies = await asyncio.gather(*plain, *streams)
            return [r.choices[0].message.content for r in alone], replies

    alone, replies = asyncio.run(ask_all())
    plain = [reply.choices[0].message.content for reply in replies[:25]]
    assert plain[:3] == alone and plain == replies[25:]
    assert len(set(plain)) > 20


async def stream_text(create, seed):
    stream = await create(**CHAT, seed=seed, max_tokens=8, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_stops_the_generation(client, api_url, worker, monkeypatch, stream):
    slow_down(worker, monkeypatch)
    code = "rise_api_requests_total{hung_up}{/v1/chat/completions}"
    hung_up, generated = scrape(api_url).get(code, 0), worker.engine.stats.generated_tokens
    options = {**CHAT, "temperature": 0, "stream": stream}
    with contextlib.suppress(openai.APITimeoutError):
        reply = client.with_options(timeout=0.5).chat.completions.create(**options)
        next(reply)
        reply.close()
    client.close()
    wait_for(lambda: worker.in_flight == 0 and worker.engine.load()["running"] == 0)
    assert worker.engine.stats.generated_tokens - generated < 150
    wait_for(lambda: scrape(api_url).get(code, 0) == hung_up + 1)
    assert scrape(api_url)["rise_api_in_flight"] == 0
