"""The tokens that a request asks a worker to continue."""

import logging
import threading
from copy import copy, deepcopy

from fastchat.constants import ErrorCode, RequestError, no_room
from fastchat.conversation import ChatTemplate, Message
from fastchat.protocol.worker_protocol import GenerateRequest
from fastchat.serve.stopping import decode

_SHOWN = 5000
"""Characters of the first prompt that the log shows."""


class Prompts:
    """Renders requests with the chat template of a worker's model.

    The logger is told how the first dialogue is rendered.
    """

    def __init__(self, template: ChatTemplate, logger: logging.Logger):
        self._template = template
        self._own = threading.local()
        self.logger = logger
        self._showed_a_prompt = False

    @property
    def template(self) -> ChatTemplate:
        """The template with a tokenizer for this thread: they are not safe to share."""
        if threading.current_thread() is threading.main_thread():
            return self._template
        if not hasattr(self._own, "template"):
            self._own.template = copy(self._template)
            self._own.template.tokenizer = deepcopy(self._template.tokenizer)
        return self._own.template

    def fitted(self, request: GenerateRequest, limit: int) -> tuple[list[int], int]:
        """The prompt's tokens and the longest answer, together no more than `limit` tokens.

        A `prompt` string loses its beginning, as FastChat's clients expect it; messages, token ids
        and a prompt that is scored are never cut, their answer is shortened instead. RequestError
        if the template refuses the messages; 40303 if no room is left.
        """
        ids, wanted = self._ids(request), request.max_new_tokens
        if len(ids) + wanted <= limit:
            return ids, wanted
        if request.prompt is not None and wanted < limit - 1 and not request.scores_prompt:
            return ids[-(limit - wanted - 1) :], wanted
        if len(ids) < limit:
            return ids, limit - len(ids)
        raise RequestError(ErrorCode.CONTEXT_OVERFLOW, no_room(len(ids), limit))

    def echo(self, request: GenerateRequest) -> str:
        """The text that stands in front of every answer, "" unless the request asks for it."""
        if not request.echo:
            return ""
        if request.prompt_token_ids is not None:
            return decode(self.template.tokenizer, request.prompt_token_ids)
        if request.prompt is not None:
            return request.prompt
        return self.template.render_prompt(plain_messages(request), request.date)

    def _ids(self, request: GenerateRequest) -> list[int]:
        if request.prompt_token_ids is not None:
            return request.prompt_token_ids
        if request.prompt is not None:
            return self.template.plain_prompt_ids(request.prompt)
        messages = plain_messages(request)
        try:
            if not self._showed_a_prompt:
                # A wrong template is found by looking at one prompt, and hardly otherwise.
                self._showed_a_prompt = True
                text = self.template.render_prompt(messages, request.date)
                self.logger.info("the first dialogue is rendered as %r", text[:_SHOWN])
            return self.template.prompt_ids(messages, request.date)
        except ValueError as error:
            raise RequestError(ErrorCode.VALIDATION_TYPE_ERROR, str(error)) from error


def plain_messages(request: GenerateRequest) -> list[Message]:
    return [message.model_dump() for message in request.messages or ()]
