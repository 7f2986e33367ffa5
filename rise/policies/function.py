"""A Python function as a model: `FILE.py:FUNCTION`."""

import asyncio
import inspect
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rise.episodes.episode import Message
from rise.policies.policy import Policy, PolicyError, Sample

T = TypeVar("T")


class FunctionPolicy(Policy):
    """A Python function in a thread of its own, a coroutine function on the event loop."""

    def __init__(self, name: str, request_timeout: float = 1800.0):
        self.name = name
        self.function = load_function(name)
        self.request_timeout = request_timeout

    async def sample(
        self, messages, *, n, seed, temperature, top_p, max_new_tokens, problem
    ) -> list[Sample]:
        texts = [await self._call(dict(problem), [dict(m) for m in messages]) for _ in range(n)]
        return [Sample(text, "stop") for text in texts]

    async def check(self) -> None:
        """Nothing can fail before the first call: the file was loaded."""

    async def close(self) -> None:
        """There is nothing to close."""

    async def _call(self, problem: dict[str, Any], messages: list[Message]) -> str:
        if inspect.iscoroutinefunction(self.function):
            answer = self.function(problem, messages)
        else:
            answer = in_daemon_thread(self.function, problem, messages)
        # Not wait_for: a TimeoutError of the function's own would look like ours.
        call = asyncio.ensure_future(answer)
        try:
            await asyncio.wait({call}, timeout=self.request_timeout)
            if not call.done():
                message = f"{self.name} gave no answer within {self.request_timeout:g} s"
                raise PolicyError("function", message)
        finally:
            call.cancel()
        try:
            text = call.result()
        except Exception as error:
            message = f"{self.name} raised {type(error).__name__}: {error}{_where(error)}"
            raise PolicyError("function", message) from error
        if not isinstance(text, str):
            message = f"{self.name} returned {type(text).__name__}, not str: let it return a text"
            raise PolicyError("setup", message)
        return text


def load_function(name: str) -> Callable[..., Any]:
    file, _, function_name = name.rpartition(":")
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"{name}: there is no file {file}")
    from envs.plugins import load_file

    try:
        module = load_file(path)
    except Exception as error:
        message = f"{name}: {file} raised {type(error).__name__}: {error}{_where(error)}"
        raise ValueError(message) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = (n for n, value in vars(module).items() if inspect.isfunction(value))
        has = ", ".join(n for n in own if not n.startswith("_")) or "none"
        raise ValueError(f"{name}: {file} has no function {function_name}; it has {has}")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return function  # one written in C may have none that can be read
    try:
        signature.bind({}, [])
    except TypeError as error:
        raise ValueError(
            f"{name} is called as {function_name}(problem, messages), and its arguments are "
            f"{signature}: {error}; write def {function_name}(problem, messages)"
        ) from error
    return function


def _where(error: Exception) -> str:
    if isinstance(error, SyntaxError):
        return ""  # its text names the line
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f" ({frame.filename}, line {frame.lineno})"


async def in_daemon_thread(function: Callable[..., T], *args: Any) -> T:
    """Run a function in a thread that, unlike the default executor's, is not joined at exit."""
    loop = asyncio.get_running_loop()
    finished: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not finished.done():
            finished.set_result((result, error))

    def work() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (function(*args), None)
        except BaseException as error:  # sys.exit() in a thread would leave us waiting
            outcome = (None, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, daemon=True, name="rise-function").start()
    result, error = await finished
    if error is not None:
        raise error if isinstance(error, Exception) else RuntimeError(repr(error))
    return result
