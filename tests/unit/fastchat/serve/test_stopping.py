"""Stop texts end an answer, and clients never see them.

python -m pytest tests/unit/fastchat/serve/test_stopping.py
"""

import pytest

from fastchat.serve.stopping import contains_stop, cut_at_stop, hold_back
from tests.support.tiny import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("stop", ["\n\n", "Question:", "§é", "x"])
def test_a_stop_is_found_with_the_token_that_completes_it(tokenizer, stop):
    tokens = ids_of(tokenizer, "a long enough answer " * 5 + stop)
    assert contains_stop(tokenizer, tokens, ["never", stop])
    assert not contains_stop(tokenizer, tokens[:-1], ["never", stop])


def test_text_is_cut_at_the_earliest_stop_and_a_stream_holds_back_what_may_become_one():
    assert cut_at_stop("one two three two", ["three", "two"]) == "one "
    assert cut_at_stop("one", ["two"]) == "one"
    assert hold_back("answer: 42\nQues", ["Question"]) == "answer: 42\n"
    assert hold_back("answer aab", ["aabb", "bc"]) == "answer "
    assert hold_back("answer", ["Question"]) == "answer"
    assert hold_back("half a character \ufffd\ufffd", []) == "half a character "
    assert hold_back("done END more", ["END"]) == "done "
