"""What each token of a vocabulary adds to a text, as UTF-8 bytes.

Bytes and not characters, because byte-level vocabularies cut inside a character; in UTF-8 one text stands in another
exactly where its bytes do.
"""

import re
from typing import Any

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_UNREADABLE = "\N{REPLACEMENT CHARACTER}"


def token_bytes(tokenizer: Any) -> list[bytes]:
    """The bytes of every token id from 0, as behind other text (leading spaces stay); special tokens too."""
    size = len(tokenizer)
    anchor = list(tokenizer.encode("a", add_special_tokens=False))[-1:]
    before, *texts = _decode_all(tokenizer, [anchor, *([*anchor, token] for token in range(size))])
    if not all(text.startswith(before) for text in texts):
        before, texts = "", _decode_all(tokenizer, [[token] for token in range(size)])
    added = [text[len(before) :] for text in texts]
    return [
        _exact(tokenizer, token, text) if _UNREADABLE in text else text.encode() for token, text in enumerate(added)
    ]


def _decode_all(tokenizer: Any, sequences: list[list[int]]) -> list[str]:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return fast.decode_batch(sequences, skip_special_tokens=False)
    return [tokenizer.decode(ids) for ids in sequences]


def _exact(tokenizer: Any, token: int, text: str) -> bytes:
    """The bytes of a token that holds a part of a character, by the two spellings in use: `<0xE2>` and GPT-2's."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    piece = convert(token) if convert is not None else None
    if not isinstance(piece, str):
        return text.encode()
    named = _BYTE_PIECE.fullmatch(piece)
    if named:
        return bytes([int(named[1], 16)])
    if all(character in _LETTERS for character in piece):
        return bytes(_LETTERS[character] for character in piece)
    return text.encode()


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level vocabularies write bytes as: itself if visible, else the next free one from 256."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_LETTERS = _byte_letters()
