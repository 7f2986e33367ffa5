"""A GPU that fails for good ends its worker; one whose memory is full does not.

python -m pytest tests/processes/test_gpu_errors.py
"""

import logging

import pytest
import requests
import torch

from fastchat.constants import ErrorCode, RequestError
from fastchat.serve.engine.engine import SlotEngine
from fastchat.serve.engine.gpu_errors import is_full, is_lost
from fastchat.serve.engine.request import EngineRequest, SamplingParams, as_request_error
from tests.support.losing_worker import LONG, MESSAGE
from tests.support.servers import free_port, post, process, wait_for

AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)
GREEDY = SamplingParams(temperature=0.0)


@pytest.mark.parametrize(
    ("error", "full", "lost"),
    [
        (AcceleratorError("CUDA error: device-side assert triggered\nCUDA kernel"), False, True),
        (RuntimeError(MESSAGE), False, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling x"), False, True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"), True, False),
        (AcceleratorError("CUDA error: out of memory"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling x"), True, False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling x"), True, False),
        (RuntimeError("shape mismatch after a CUDA error"), False, False),
        (ValueError(MESSAGE), False, False),
    ],
)
def test_errors_say_whether_the_gpu_is_full_or_lost(error, full, lost):
    assert (is_full(error), is_lost(error)) == (full, lost)
    code = ErrorCode.CUDA_OUT_OF_MEMORY if full else ErrorCode.INTERNAL_ERROR
    assert as_request_error(error).code == code


@pytest.mark.parametrize("place", ["forward", "sample"])
def test_a_lost_gpu_ends_every_request_and_the_thread(model, tokenizer, monkeypatch, caplog, place):
    def fails(*_):
        raise AcceleratorError(MESSAGE)

    engine = SlotEngine(model, tokenizer, max_rows=2, max_length=128)
    # Kernels run behind the calls: their errors come where a result is waited for.
    target = engine.model if place == "forward" else "fastchat.serve.engine.engine"
    monkeypatch.setattr(*([target, place] if place == "forward" else [f"{target}.{place}"]), fails)
    lost = []
    engine.on_lost = lambda: lost.append(True)
    requests = [EngineRequest([5, 6, i], GREEDY, 8) for i in range(7, 11)]
    for request in requests:
        engine.submit(request)
    with caplog.at_level(logging.WARNING):
        engine.start()
        for request in requests:
            with pytest.raises(RequestError, match="illegal memory access"):
                request.done.result(30)
        engine._thread.join(30)
    assert lost == [True] and not engine._thread.is_alive()
    [record] = caplog.records
    assert "cpu is lost" in record.message and record.exc_info is None
    with pytest.raises(RequestError, match="shutting down"):
        engine.submit(EngineRequest([5], GREEDY, 8))


def test_a_worker_with_a_lost_gpu_answers_what_runs_and_ends_with_code_1(checkpoint):
    port = free_port()
    url = f"http://localhost:{port}"
    options = ["--model-path", checkpoint(), "--port", port, "--no-register", "--device", "cpu"]
    with process("tests.support.losing_worker", *options) as worker:
        # It listens before its model is loaded.
        wait_for(lambda: requests.post(f"{url}/worker_get_status", timeout=5).ok)
        ask = {"temperature": 0, "max_new_tokens": 4}
        short, long = ({**ask, "prompt_token_ids": [size] * size} for size in (LONG - 1, LONG))
        assert post(f"{url}/worker_generate", short)["error_code"] == 0
        failed = post(f"{url}/worker_generate", long)
        assert failed["error_code"] == ErrorCode.INTERNAL_ERROR and MESSAGE in failed["text"]
        assert worker.wait(20) == 1
        said = [line for line in worker.stderr.read().splitlines() if "ERROR" in line]
        assert len(said) == 1 and "cpu is lost" in said[0] and MESSAGE in said[0]
