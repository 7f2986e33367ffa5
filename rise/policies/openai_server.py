"""An OpenAI-compatible server, asked over HTTP: what it says, or a typed error."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from fastchat.client.http import page_in, seconds_to_wait
from rise.policies import bounded, keys
from rise.policies.policy import PolicyError
from rise.policies.refusals import RefusedRequest
from rise.policies.replies import REMEDIES, Trouble, parse, trouble_in

if TYPE_CHECKING:
    import openai

REFUSAL = re.compile(
    r"support|recogni[sz]ed|unknown|unexpected|extra|additional|allow|permit|implement|enabled|"
    r"must be|only|invalid|validation|deprecated|cannot"
)
"""What a server that fails says where in truth it refuses a parameter that it names."""

LONG = 2**20
"""Bytes of a reply that takes a while to read."""


class OpenAIServer:
    """Where requests go, and with which key; `key_name` is what holds it, for who has to mend it.

    `base_url` is the URL up to and including /v1, or with a query; None for the OpenAI API.
    """

    def __init__(self, base_url: str | None, key: str, key_name: str, timeout: float):
        self.base_url = base_url
        if key != keys.NO_KEY:
            keys.remember(key)
        self._key, self._key_name = key, key_name
        self._timeout = timeout
        self._opened: openai.AsyncOpenAI | None = None

    @property
    def where(self) -> str:
        """Who is asked, and through which proxy."""
        proxy = proxy_of(self.base_url or "https://api.openai.com")
        through = f" (through the proxy {proxy})" if proxy else ""
        return f"{self.base_url or 'the OpenAI API'}{through}"

    def _client(self) -> openai.AsyncOpenAI:
        if self._opened is None:
            import httpx
            import openai

            try:
                self._opened = openai.AsyncOpenAI(
                    api_key=self._key,
                    base_url=urlsplit(self.base_url or "")._replace(query="").geturl() or None,
                    timeout=self._timeout,
                    max_retries=0,
                    default_headers=bounded.HEADERS,
                    http_client=openai.DefaultAsyncHttpxClient(
                        trust_env=not _is_loopback(self.base_url or ""),
                        event_hooks={"response": [bounded.bound]},
                    ),
                )
            except (
                ImportError,
                ValueError,
                httpx.InvalidURL,
            ) as error:  # socks without its package, a bad address
                message = " ".join(str(error).split())
                raise PolicyError("setup", f"{self.where} cannot be asked: {message}") from error
        return self._opened

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The body of the reply to one request.

        PolicyError if there is none, or one with an error status.
        """
        import httpx
        import openai

        client, query = self._client(), dict(parse_qsl(urlsplit(self.base_url or "").query))
        options["options"] = {"params": query}
        if "api-version" in query:  # Azure's deployments have a header of their own for the key
            options["options"]["headers"] = {"api-key": self._key, "Authorization": openai.Omit()}
        call = getattr(client, method)(path, cast_to=httpx.Response, **options)
        try:
            # The client's own limit is per piece: a byte now and then would never end.
            response = await asyncio.wait_for(call, self._timeout)
        except Exception as error:
            raise self._as_policy_error(error) from error
        content = response.content
        # A long stream takes a while, in which others are answered.
        is_long = len(content) > LONG
        body = await asyncio.to_thread(parse, content) if is_long else parse(content)
        if isinstance(body, str) and page_in(body):
            words = f"{trouble_in(body).words}{self._redirected(response)}"
            said = f"{words}; {REMEDIES['not_found']}"
            raise PolicyError("not_found", f"{self.where} answered with {said}")
        return body

    def _as_policy_error(self, error: Exception) -> PolicyError:
        """The typed error for an exception of the client; others are raised as they are."""
        import openai

        if isinstance(error, openai.APITimeoutError | asyncio.TimeoutError):
            return PolicyError("timeout", f"no answer from {self.where} in time")
        if isinstance(error, bounded.Oversize):
            return PolicyError("server", f"{self.where}: {error}")
        if isinstance(error, openai.APIStatusError):
            response = error.response
            trouble = trouble_in(parse(response.content), error.status_code)
            words = f"{trouble.words}{self._redirected(response)}"
            return self.typed(replace(trouble, words=words), _seconds_to_wait(response.headers))
        if isinstance(error, openai.OpenAIError):
            cause = error.__cause__ or error
            redirected = self._redirected(cause)
            message = f"{self.where}: {type(cause).__name__} {cause}{redirected}"
            return PolicyError("not_found" if redirected else "connection", message)
        raise error

    def _redirected(self, answer: Any) -> str:
        """Where a request went, and what helps, if that is not where it was sent."""
        try:  # of httpx, of whichever version
            url = str(answer.request.url).partition("?")[0]
        except (AttributeError, RuntimeError):
            return ""
        is_ours = url.startswith(str(self._client().base_url))
        is_moved = getattr(answer, "history", None) or not is_ours
        return f" (redirected to {url}: give the address that answers itself)" if is_moved else ""

    def typed(self, trouble: Trouble, retry_after: float | None = None) -> PolicyError:
        error = trouble.error(self.where, retry_after)
        if error.kind == "unauthorized":
            message = f"{error.message}; its key is read from {self._key_name}"
            return PolicyError("unauthorized", message)
        said = trouble.words.lower()
        refuses = error.kind == "bad_request" and trouble.status in (400, 404, 422)
        fails = error.kind == "server" or trouble.status == 501
        if refuses or (fails and REFUSAL.search(said)):
            error = RefusedRequest(error.kind, error.message, retry_after)
            error.said = said
        return error

    async def close(self) -> None:
        if self._opened is not None:
            await self._opened.close()
            self._opened = None


def proxy_of(url: str) -> str | None:
    """The proxy through which a URL is asked, without user and password; None without one."""
    parts, proxies = urlsplit(url), urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_loopback(url) or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return re.sub(r"(?<=//)[^/]*@", "", proxy)


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _seconds_to_wait(headers: Any) -> float | None:
    try:
        seconds = float(headers["retry-after-ms"]) / 1000
    except (KeyError, ValueError):
        return seconds_to_wait(headers)
    return seconds if 0 <= seconds < float("inf") else None
