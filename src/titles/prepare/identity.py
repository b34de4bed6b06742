"""The identity of a title: which titles are the same, and in which split one belongs.

It follows from the raw title by one fixed folding of case, accents, punctuation and spaces. No parameter
changes it: experiments that read titles differently have the same test titles. A change of this file
changes every split.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from titles.prepare.split import Keys

_ACCENTS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_BEYOND_ASCII = re.compile("[^\x00-\x7f]+")
# Soft hyphens, zero-width characters, marks of direction and variants of emoji are not seen.
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]+"
)
_KEPT = re.compile(r"[^\W_]")
_SPACES = bytes(
    code if chr(code).isalnum() or code >= 0x80 or code == ord("\n") else ord(" ") for code in range(256)
)


def title_keys(titles: Sequence[str]) -> Keys:
    """A 64-bit key per title, (N,); 0 for a title without letters and digits.

    Among 20 million titles, the probability that two different ones share a key is about 1 in 90,000.
    """
    if not titles:
        return np.empty(0, np.uint64)
    digests = [
        hashlib.blake2b(letters, digest_size=8).digest() if letters else bytes(8)
        for letters in folded(titles)
    ]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def folded(titles: Sequence[str]) -> list[bytes]:
    """Letters and digits of each title, in UTF-8, with single spaces in place of all else."""
    text = "\n".join([title.replace("\n", " ") for title in titles])
    if not text.isascii():
        # Not NFKD, which would make 10² the title 102.
        text = _ACCENTS.sub("", unicodedata.normalize("NFD", _INVISIBLE.sub("", text)))
    text = text.casefold()
    if not text.isascii():
        text = _BEYOND_ASCII.sub(_letters, text)
    # Most of the text is ASCII, where translating bytes is much faster than a regular expression.
    lines = text.encode().translate(_SPACES).split(b"\n")
    return [b" ".join(line.split()) for line in lines]


def _letters(run: re.Match[str]) -> str:
    # Marks of other scripts, such as vowels of Devanagari, are parts of letters; accents are gone.
    return "".join(
        c if _KEPT.match(c) or unicodedata.category(c) in ("Mn", "Mc") else " " for c in run[0]
    )
