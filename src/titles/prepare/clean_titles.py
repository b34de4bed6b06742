"""Titles to words and identities in compiled code, where it reads them as `text` and `identity` do.

These are titles of letters of ASCII and Latin-1 without entities and without words of sellers' phrases,
which are most. All others go to `text` and `identity`, which stay the definition.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain, count, islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from titles.data.compiled import compiled
from titles.params import Text
from titles.prepare import blake2, identity
from titles.prepare.split import Keys
from titles.prepare.text import normalise, tokenise, without_noise

# What a character becomes: a space, one or two bytes, a point if it stands between digits; OTHER leaves
# the title to `text`.
_SPACE, _ONE, _TWO, _OTHER, _POINT = range(5)
_LETTERS = 256  # characters of Latin-1
# At least one of them is a word of each sellers' phrase of `text`: titles without them have none.
_A_NOISE_WORD = re.compile(
    r"gr[aá]tis|gratuito|inclu[ií]do|inmediata|at[eé]|juros|inter[eé]s|cuotas|parcelas|nf|f|fiscal"
    r"|factura|ofertas?|oportunidade?|imperdible|aproveite|aprovech[aá]|pronta|melhor|mejor"
    r"|mercado(?:pago|livre|libre|env[ií]os?)?|promo(?:[cç][aã]o|[cç][oõ]es|ci[oó]n|ciones)?"
)


class Encoded(NamedTuple):
    """Titles in UTF-8, concatenated: N of them, each with its end."""

    text: bytes
    ends_N: NDArray[np.int64]

    @staticmethod
    def of(titles: Sequence[str]) -> Encoded:
        encoded = [title.encode() for title in titles]
        return Encoded(b"".join(encoded), np.cumsum(list(map(len, encoded)), dtype=np.int64))

    def titles(self, rows: NDArray[np.int64]) -> list[str]:
        """The titles of these rows."""
        ends = self.ends_N[rows].tolist()
        starts = np.where(rows > 0, self.ends_N[rows - 1], 0).tolist()
        return [self.text[start:end].decode() for start, end in zip(starts, ends, strict=True)]


def has_noise(word: str) -> bool:
    """Whether a sellers' phrase may be around a word; a title without such words has none."""
    return bool(_A_NOISE_WORD.fullmatch(word))


def read(
    titles: Encoded, settings: Text
) -> tuple[list[str], NDArray[np.int32], NDArray[np.int64], Keys]:
    """The distinct words in the order in which they appear, the position in them of each word, (W,),
    the words of each title, (N,), and its key, (N,): as `text.tokenise` and `identity.title_keys`."""
    size, text = len(titles.ends_N), np.frombuffer(titles.text, np.uint8)
    most = (len(text) + size) // 2 + 1  # words
    other_N = np.zeros(size, np.bool_)
    lengths_N = np.zeros(size, np.int64)
    word_ids_W = np.empty(most, np.int32)
    store = np.empty(len(text) + most + 1, np.uint8)
    folded = np.empty(len(text) + size, np.uint8)
    folded_ends_N = np.empty(size, np.int64)
    found = np.zeros(2, np.int64)
    spelling = _spelling(settings.strip_accents, settings.digits)
    ends_V, hashes_V = np.empty(most + 1, np.int64), np.empty(most, np.int64)
    _scan(
        text,
        titles.ends_N,
        spelling,
        _folding(),
        other_N,
        lengths_N,
        word_ids_W,
        store,
        ends_V,
        hashes_V,
        folded,
        folded_ends_N,
        found,
    )
    distinct, total = found.tolist()
    words = store[: ends_V[distinct]].tobytes().decode().split("\n")[:distinct]
    keys_N = np.empty(size, np.uint64)
    blake2.digests(folded, folded_ends_N, keys_N)
    read_N = lengths_N, word_ids_W[:total]
    if len(others := np.flatnonzero(other_N)):
        left = titles.titles(others)
        keys_N[others] = identity.title_keys(left)
        read_N = _replaced(words, *read_N, others, tokenise(left, settings))
    if settings.drop_seller_noise:
        is_noise_V = np.fromiter(map(has_noise, words), np.bool_, len(words))
        lengths_N, word_ids_W = read_N
        noisy_N = np.zeros(size, np.bool_)
        noisy_N[np.repeat(np.arange(size), lengths_N)[is_noise_V[word_ids_W]]] = True
        noisy_N &= ~other_N
        if len(noisy := np.flatnonzero(noisy_N)):
            if settings.digits == "keep":
                ends = np.cumsum(lengths_N)
                spans = zip((ends - lengths_N)[noisy].tolist(), ends[noisy].tolist(), strict=True)
                ids = word_ids_W.tolist()
                joined = "\n".join([" ".join([words[i] for i in ids[a:b]]) for a, b in spans])
                rows = [line.split() for line in without_noise(joined).split("\n")]
            else:
                rows = tokenise(titles.titles(noisy), settings)
            read_N = _replaced(words, *read_N, noisy, rows)
    lengths_N, word_ids_W = read_N
    if lengths_N.max(initial=0) > settings.max_words:
        starts_N = np.cumsum(lengths_N) - lengths_N
        place_W = np.arange(len(word_ids_W)) - np.repeat(starts_N, lengths_N)
        word_ids_W = word_ids_W[place_W < settings.max_words]
        lengths_N = np.minimum(lengths_N, settings.max_words)
    return *_in_order(words, word_ids_W), lengths_N, keys_N


def _replaced(
    words: list[str],
    lengths_N: NDArray[np.int64],
    word_ids_W: NDArray[np.int32],
    chosen: NDArray[np.int64],
    rows: list[list[str]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Lengths and words of all titles, with those of `rows` for the chosen ones. New words are appended
    to `words`."""
    numbers: defaultdict[str, int] = defaultdict(count(len(words)).__next__, zip(words, count()))
    is_new_N = np.zeros(len(lengths_N), np.bool_)
    is_new_N[chosen] = True
    old_W = word_ids_W[np.repeat(~is_new_N, lengths_N)]
    lengths_N[chosen] = np.fromiter(map(len, rows), np.int64, len(rows))
    of_new_W = np.repeat(is_new_N, lengths_N)
    merged_W = np.empty(len(of_new_W), np.int32)
    merged_W[~of_new_W] = old_W
    merged_W[of_new_W] = np.fromiter(map(numbers.__getitem__, chain.from_iterable(rows)), np.int32)
    words.extend(islice(numbers, len(words), None))
    return lengths_N, merged_W


def _in_order(words: list[str], word_ids_W: NDArray[np.int32]) -> tuple[list[str], NDArray[np.int32]]:
    """Words that occur, numbered as they first do."""
    first_V = np.full(len(words), len(word_ids_W), np.int64)
    # Of several values for a place, the last stays.
    first_V[word_ids_W[::-1]] = np.arange(len(word_ids_W))[::-1]
    order = np.argsort(first_V, kind="stable")[: np.count_nonzero(first_V < len(word_ids_W))]
    new_ids = np.empty(len(words), np.int32)
    new_ids[order] = np.arange(len(order), dtype=np.int32)
    return [words[old] for old in order.tolist()], new_ids[word_ids_W]


@cache
def _spelling(strip_accents: bool, digits: str) -> NDArray[np.uint8]:
    """What `text.normalise` makes of each character of Latin-1, (256, 3): its kind, and the bytes."""
    settings = Text(
        strip_accents=strip_accents,
        digits="keep",
        drop_seller_noise=False,
        max_title_chars=1,
        max_words=1,
    )

    table = _table(lambda title: normalise(title, settings))
    table[ord("&"), 0] = _OTHER  # of an entity
    table[list(b",.")] = _POINT, ord("."), 0
    if digits == "zero":
        table[list(b"0123456789"), 1] = ord("0")
    elif digits == "drop":
        table[list(b"0123456789,."), 0] = _SPACE
    return table


@cache
def _folding() -> NDArray[np.uint8]:
    """What `identity.folded` makes of each character of Latin-1, (256, 3)."""

    return _table(lambda title: identity.folded([title])[0].decode())


def _table(read: Callable[[str], str]) -> NDArray[np.uint8]:
    """What a reader of titles makes of each character; OTHER where that depends on its neighbours, such
    as a letter or a digit, or takes more bytes than it did."""
    table = np.zeros((_LETTERS, 3), np.uint8)
    for code, character in enumerate(map(chr, range(_LETTERS))):
        if character == "\n":  # which parts titles, and in one is a space
            continue
        made = read(character).strip()
        written = made.encode()
        is_apart = all(read(f"{c}{character}{c}") == f"{c}{made or ' '}{c}" for c in "a1")
        if is_apart and len(written) <= len(character.encode()):
            table[code, : 1 + len(written)] = len(written), *written
        else:
            table[code, 0] = _OTHER
    return table


@compiled
def _scan(
    text: NDArray[np.uint8],
    ends_N: NDArray[np.int64],
    spelling: NDArray[np.uint8],
    folding: NDArray[np.uint8],
    other_N: NDArray[np.bool_],
    lengths_N: NDArray[np.int64],
    word_ids_W: NDArray[np.int32],
    store: NDArray[np.uint8],
    ends_V: NDArray[np.int64],
    hashes_V: NDArray[np.int64],
    folded: NDArray[np.uint8],
    folded_ends_N: NDArray[np.int64],
    found: NDArray[np.int64],
) -> None:
    """Read the titles; all arrays after `folding` are written. found: distinct words, all words."""
    table = np.full(1 << 15, -1, np.int32)  # of places in ends_V, by hash
    mask = len(table) - 1
    distinct, total, folded_at, start = 0, 0, 0, 0
    ends_V[0] = 0
    for title in range(len(ends_N)):
        stop = ends_N[title]
        at, first_word, first_folded = start, total, folded_at
        start = stop
        begin = end = ends_V[distinct]  # of the word, in `store`
        hashed = np.int64(-3750763034362895579)  # FNV-1a
        after_digit, gap = False, False
        while at <= stop:
            if at < stop:
                code = np.int64(text[at])
                at += 1
                if code >= 0x80:
                    if code > 0xC3:  # beyond Latin-1
                        other_N[title] = True
                        break
                    code = ((code & 3) << 6) | (np.int64(text[at]) & 63)
                    at += 1
                kind, fold = spelling[code, 0], folding[code, 0]
                if kind == 3 or fold == 3:
                    other_N[title] = True
                    break
                if fold == 0:
                    gap = folded_at > first_folded
                else:
                    if gap:
                        folded[folded_at] = 32
                        folded_at += 1
                        gap = False
                    for place in range(fold):
                        folded[folded_at] = folding[code, 1 + place]
                        folded_at += 1
                if kind == 4:  # a point
                    kind = 1 if after_digit and at < stop and 48 <= text[at] <= 57 else 0
                after_digit = bool(48 <= code <= 57)
                if kind > 0:
                    for place in range(kind):
                        letter = spelling[code, 1 + place]
                        store[end] = letter
                        end += 1
                        hashed = (hashed ^ np.int64(letter)) * np.int64(1099511628211)
                    continue
            else:
                at += 1
            if begin == end:
                continue
            slot = (hashed ^ (hashed >> 29)) & mask
            while True:
                word = table[slot]
                if word < 0:
                    table[slot] = word = distinct
                    hashes_V[word] = hashed
                    distinct += 1
                    store[end] = 10
                    ends_V[distinct] = end + 1
                    break
                if hashes_V[word] == hashed and ends_V[word + 1] - ends_V[word] == end - begin + 1:
                    differs = 0
                    for place in range(end - begin):
                        if store[ends_V[word] + place] != store[begin + place]:
                            differs = 1
                            break
                    if not differs:
                        break
                slot = (slot + 1) & mask
            word_ids_W[total] = word
            total += 1
            begin = end = ends_V[distinct]
            hashed = np.int64(-3750763034362895579)
            if 2 * distinct > mask:
                table = np.full(2 * len(table), -1, np.int32)
                mask = len(table) - 1
                for known in range(distinct):
                    slot = (hashes_V[known] ^ (hashes_V[known] >> 29)) & mask
                    while table[slot] >= 0:
                        slot = (slot + 1) & mask
                    table[slot] = known
        if other_N[title]:
            total, folded_at = first_word, first_folded
        lengths_N[title] = total - first_word
        folded_ends_N[title] = folded_at
    found[0], found[1] = distinct, total
