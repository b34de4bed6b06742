"""Titles to words, as pure functions: the same code serves training chunks and single predictions."""

from __future__ import annotations

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
_SYMBOLS_BEYOND_LATIN = re.compile(r"\W+")
_LONE_POINT = re.compile(r"[,.](?:(?<!\d[,.])|(?!\d))")

# Marks that NFD splits off Latin letters; those of other scripts are part of the letter and stay.
_ACCENTS = re.compile("[\u0300-\u036f]+")

# Phrases that sellers add to any product, without information on the category. Vowels match with and
# without accents: the patterns serve both settings of strip_accents. They are grouped by first letter:
# the regex engine then skips most words after one comparison. `\d(?<!\.\d)` is a digit that is not the
# fraction of a price.
_SELLER_NOISE = re.compile(
    r"\b(?:"
    r"e(?:nv[ií]os?(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)|ntrega inmediata"
    r"|m at[eé] \d{1,2} ?x(?: sem juros)?)"
    r"|frete(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)"
    r"|gr[aá]tis (?:env[ií]o|frete)"
    r"|\d(?<!\.\d)\d? ?(?:x (?:sem juros|sin inter[eé]s)"
    r"|(?<= )(?:cuotas|parcelas)(?: (?:sin inter[eé]s|sem juros|fijas|fixas))?)"
    r"|c(?:uotas sin inter[eé]s|om (?:nf e|nf|nota fiscal)| (?:nf e|nf|nota fiscal|factura)|on factura)"
    r"|s(?:in inter[eé]s|em juros|uper (?:oferta|promo[cç][aã]o|promoci[oó]n))"
    r"|m(?:ercado ?(?:pago|livre|libre|env[ií]os?)|ega (?:oferta|promo[cç][aã]o|promoci[oó]n)"
    r"|elhor pre[cç]o|ejor precio)"
    r"|p(?:ronta entrega|romo(?:[cç][aã]o|[cç][oõ]es|ci[oó]n|ciones)?|arcelas sem juros)"
    r"|o(?:fertas?|portunidade?)"
    r"|n(?:f e|ota fiscal)"
    r"|imperdible"
    r"|aprov(?:eite|ech[aá])"
    r")\b"
)
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[\d.]+")  # once words are found, a point is always between two digits
_SPACES = re.compile(r"  +")


def normalise(text: str, settings: Text) -> str:
    """Lower-case words with spaces between them; titles stay separated by newlines."""
    # The K also folds compatible characters: full-width letters, ligatures, ².
    if settings.strip_accents:
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).lower())
        text = unicodedata.normalize("NFC", text)
    else:
        text = unicodedata.normalize("NFKC", text).lower()
    text = _BEYOND_LATIN.sub(lambda run: _SYMBOLS_BEYOND_LATIN.sub(" ", run[0]), _SYMBOLS.sub(" ", text))
    text = _LONE_POINT.sub(" ", text).replace(",", ".")
    if settings.drop_seller_noise:
        text = _SELLER_NOISE.sub(" ", _SPACES.sub(" ", text))
    if settings.digits == "zero":
        text = _DIGIT.sub("0", text)
    elif settings.digits == "drop":
        text = _NUMBER.sub(" ", text)
    return text


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
