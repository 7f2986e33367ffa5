"""Log-probabilities in words: how tokens are spelled, and where each begins in the text."""

import codecs
from collections.abc import Sequence
from typing import Any

from fastchat.protocol.worker_protocol import Logprobs
from fastchat.serve.engine.request import Score


def _byte_alphabet() -> dict[str, int]:
    """The characters in which byte-level tokenizers write bytes."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    letters = {chr(256 + i): byte for i, byte in enumerate(others)}
    return {chr(byte): byte for byte in shown} | letters


_BYTES = _byte_alphabet()


class Speller:
    """Tells the tokens of a text one after the other, in FastChat's form.

    Args:
        tokenizer: whose tokens they are.
        top: how many of the likeliest tokens are told at each place.
        echo: the text of a prompt that is told first; its special tokens count where it shows them.
    """

    def __init__(self, tokenizer: Any, top: int, echo: str = ""):
        self._tokenizer = tokenizer
        self._top = top
        self._hidden = set(tokenizer.all_special_ids)
        blank = tokenizer.convert_tokens_to_ids("Ġ")
        self._byte_level = isinstance(blank, int) and tokenizer.decode([blank]) == " "
        self._known: dict[int, bytes | None] = {}
        self._offset = 0
        self._new = Logprobs()
        self.begin(echo)

    def begin(self, echo: str = "") -> None:
        """What follows is a text of its own behind the one before."""
        self.told = 0
        self._echo = echo
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at_start = True

    def tell(self, tokens: Sequence[int], scores: Sequence[Score | None]) -> None:
        """Add tokens."""
        for token, score in zip(tokens, scores, strict=True):
            word = self.word(token)
            self._new.tokens.append(word)
            self._new.token_logprobs.append(None if score is None else score.logprob)
            self._new.top_logprobs.append(None if score is None else self._likeliest(word, score))
            self._new.text_offset.append(self._offset)
            self._offset += self._width(token)
        self.told += len(tokens)

    def _likeliest(self, word: str, score: Score) -> dict[str, float]:
        top: dict[str, float] = {}
        for other, logprob in score.top[: self._top]:
            top.setdefault(self.word(other), logprob)
        top.setdefault(word, score.logprob)
        return top

    def take(self) -> Logprobs:
        """What was told since this was asked last."""
        new, self._new = self._new, Logprobs()
        return new

    def word(self, token: int) -> str:
        """Its text; where that is no text, `bytes:` and its bytes as OpenAI writes them."""
        raw = self._raw(token)
        if raw is None:
            return f"token_id:{token}"
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _width(self, token: int) -> int:
        """Characters of the text that are known by now and were not before this token."""
        raw = self._raw(token)
        if raw is None:
            return 0
        if token in self._hidden:
            word = self.word(token)
            return len(word) if self._echo.startswith(word, self._offset) else 0
        # Decoders of SentencePiece leave out the blank before the first word.
        if self._at_start and raw[:1] == b" ":
            raw = raw[not self._tokenizer.decode([token]).startswith(" ") :]
        self._at_start = False
        return len(self._decoder.decode(raw))

    def _raw(self, token: int) -> bytes | None:
        """Its bytes; None where the vocabulary has a gap."""
        if token not in self._known:
            piece = self._tokenizer.convert_ids_to_tokens(token)
            self._known[token] = None if piece is None else self._bytes_of(piece)
        return self._known[token]

    def _bytes_of(self, piece: str) -> bytes:
        if self._byte_level:
            # Added tokens are written as they are.
            inside = all(letter in _BYTES for letter in piece)
            return bytes(_BYTES[letter] for letter in piece) if inside else piece.encode()
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes.fromhex(piece[3:5])
        return piece.replace("▁", " ").encode()
