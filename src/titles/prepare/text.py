"""Titles to words, as pure functions: the same code serves training chunks and single predictions."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

from titles.params import Text

# Words are runs of letters and digits; a point or comma stays between two digits, so that 2.5 and 2,5
# are one word each. Newlines separate titles and stay. \w is looked up letter by letter; a class that
# lists the first 256 characters takes a third of the time.
_SYMBOLS = re.compile(
    "[" + "".join(re.escape(c) for c in map(chr, range(256)) if not (c.isalnum() or c in "\n ,.")) + "]+"
)
_BEYOND_LATIN = re.compile("[^\x00-\xff]+")
_LONE_POINT = re.compile(r"[,.](?:(?<!\d[,.])|(?!\d))")

# Marks that NFD splits off Latin letters. Those of other scripts, such as vowels of Devanagari, are
# parts of letters and stay; one that follows no letter goes.
_ACCENTS = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_MARKS = "".join(c for c in map(chr, range(0x100, 0x20000)) if unicodedata.category(c) in ("Mn", "Mc"))
_SYMBOLS_BEYOND_LATIN = re.compile(rf"[^\w{_MARKS}]+")
_LONE_MARKS = re.compile(rf"(?<=[\s\d,.])[{_MARKS}]+")

# Soft hyphens, zero-width characters, marks of direction and variants of emoji are not seen: they do not
# part a word.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]"
)
# Compatible folding would make trade marks the letters tm, sm, r and so on, at the end of a name.
# Fillers of Hangul are letters for Unicode and blanks for readers.
_SPACE_LIKE = frozenset("™℠ⒸⓇⓒⓡ🄫🄬🅪🅫🅬\u115f\u1160\u3164\uffa0")
# Characters that fold to digits, such as ² and ½. Beside other digits they are numbers of their own: 10²
# is not 102, and 2½ is not 21 / 2.
_DIGITS = frozenset(
    chr(code)
    for code in range(0x80, 0x20000)
    if unicodedata.category(chr(code)) in ("No", "So")
    and unicodedata.normalize("NFKD", chr(code))[0].isdigit()
)
# All that can be one of these: as a class of single characters it would take four times as long.
_UNUSUAL = re.compile(
    "[^" + "".join(re.escape(c) for c in map(chr, range(256)) if c not in _DIGITS | {"\xad"}) + "]"
)
# With its semicolon, as HTML has them; "R&D" and "&copy" are no entities.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

# Phrases that sellers add to any product, without information on the category. Vowels match with and
# without accents: the patterns serve both settings of strip_accents. They are grouped by first letter:
# the regex engine then skips most words after one comparison. `\d(?<!\.\d)` is a digit that is not the
# fraction of a price.
_SELLER_NOISE = re.compile(
    r"\b(?:"
    r"e(?:nv[ií]os?(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)|ntrega inmediata"
    r"|m at[eé] \d{1,2} ?x)"
    r"|frete(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)"
    r"|gr[aá]tis (?:env[ií]o|frete)"
    r"|\d(?<!\.\d)\d? ?(?:x (?:sem juros|sin inter[eé]s)"
    r"|(?<= )(?:cuotas|parcelas)(?: (?:fijas|fixas))?)"
    r"|c(?:uotas sin inter[eé]s|om (?:nf e|nf|nota fiscal)| (?:nf e|nf|nota fiscal|factura)|on factura)"
    r"|s(?:in inter[eé]s|em juros|uper (?:oferta|promo[cç][aã]o|promoci[oó]n))"
    r"|m(?:ercado ?(?:pago|livre|libre|env[ií]os?)|ega (?:oferta|promo[cç][aã]o|promoci[oó]n)"
    r"|elhor pre[cç]o|ejor precio)"
    r"|p(?:ronta entrega|romo(?:[cç][aã]o|[cç][oõ]es|ci[oó]n|ciones)?|arcelas sem juros)"
    r"|o(?:fertas?|portunidade?)"
    r"|n(?:f e|ota fiscal)"
    r"|imperdible"
    r"|aprov(?:eite|ech[aá])"
    rf")\b(?![{_MARKS}])"
)
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[\d.]+")  # once words are found, a point is always between two digits
_SPACES = re.compile(r"  +")


def normalise(text: str, settings: Text) -> str:
    """Lower-case words with spaces between them; titles stay separated by newlines."""
    if "&" in text:
        # Twice: catalogues that were copied from pages are often escaped twice.
        text = _ENTITY.sub(_character, _ENTITY.sub(_character, text))
    if not text.isascii():
        text = _UNUSUAL.sub(_usual, text)
    # The K also folds compatible characters: full-width letters, ligatures, ².
    if settings.strip_accents:
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).lower())
        text = unicodedata.normalize("NFC", text)
    else:
        text = unicodedata.normalize("NFKC", text).lower()
    text = _BEYOND_LATIN.sub(_words_beyond_latin, _SYMBOLS.sub(" ", text))
    text = _LONE_POINT.sub(" ", text).replace(",", ".")
    if settings.drop_seller_noise:
        text = without_noise(_SPACES.sub(" ", text))
    if settings.digits == "zero":
        text = _DIGIT.sub("0", text)
    elif settings.digits == "drop":
        text = _NUMBER.sub(" ", text)
    return text


def without_noise(text: str) -> str:
    """Words with single spaces between them, as `normalise` finds them, without sellers' phrases."""
    return _SELLER_NOISE.sub(" ", text)


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0]).replace("\n", " ")


def _usual(found: re.Match[str]) -> str:
    """What stands for an unusual character: nothing, a space, or itself, apart from digits beside it."""
    character, text, (start, end) = found[0], found.string, found.span()
    if character in _DIGITS:
        before, after = text[start - 1 : start], text[end : end + 1]
        # Two such characters are one number, as in 10¹², unless the second is a fraction.
        is_fraction = unicodedata.numeric(character, 0.0) % 1 > 0
        parted = before.isdecimal() or (before in _DIGITS and is_fraction)
        return " " * parted + character + " " * after.isdecimal()
    if character in _SPACE_LIKE:
        return " "
    return "" if _INVISIBLE.match(character) else character


def _words_beyond_latin(run: re.Match[str]) -> str:
    before = run.string[run.start() - 1] if run.start() else " "
    return _LONE_MARKS.sub("", before + _SYMBOLS_BEYOND_LATIN.sub(" ", run[0]))[1:]


def words_of(titles: Sequence[str], settings: Text) -> list[list[str]]:
    """`tokenise` of untrusted titles, cut at `max_title_chars` characters to bound the cost of each."""
    return tokenise([title[: settings.max_title_chars] for title in titles], settings)


def tokenise(titles: Sequence[str], settings: Text) -> list[list[str]]:
    """Words of each title, at most `max_words`; none for a title without words."""
    if not titles:
        return []  # joined, an empty list would look like one empty title
    # One pass over all titles joined costs far less than one per title.
    joined = normalise("\n".join([title.replace("\n", " ") for title in titles]), settings)
    rows = [line.split() for line in joined.split("\n")]
    if max(map(len, rows)) > settings.max_words:
        rows = [row[: settings.max_words] for row in rows]
    return rows
