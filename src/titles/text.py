"""Titles to words. Pure: the same code serves a chunk of training titles and a single prediction."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from titles.params import Text

# Words are runs of letters and digits; a point or comma stays between two digits, so that 2.5 and 2,5
# are one word each. Newlines separate titles and are left alone.
_NOT_WORD = re.compile(r"(?:[^\w\n ,.]|_|(?<!\d)[,.]|[,.](?!\d))+")

# Marks that NFD splits off Latin letters; those of other scripts are no ornaments and stay.
_ACCENTS = re.compile("[\u0300-\u036f]+")

# What sellers add to any product; it says nothing of the category. Vowels are matched with and without
# accents because the same patterns serve both settings of strip_accents. Each alternative opens with a
# literal or a digit: the regex engine then rejects most words by their first letter, which halves the
# time. Hence also `\d(?<!\.\d)`, a digit that is not the fraction of a price.
_SELLER_NOISE = re.compile(
    r"\b(?:"
    r"env[ií]os?(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)"
    r"|frete(?: (?:es|e|é))? (?:gr[aá]tis|gratuito|inclu[ií]do)"
    r"|gr[aá]tis (?:env[ií]o|frete)"
    r"|em at[eé] \d{1,2} ?x(?: sem juros)?"
    r"|\d(?<!\.\d)\d? ?x (?:sem juros|sin inter[eé]s)"
    r"|\d(?<!\.\d)\d? (?:cuotas|parcelas)(?: (?:sin inter[eé]s|sem juros|fijas|fixas))?"
    r"|cuotas sin inter[eé]s|parcelas sem juros|sin inter[eé]s|sem juros"
    r"|mercado ?(?:pago|livre|libre|env[ií]os?)"
    r"|pronta entrega|entrega inmediata"
    r"|super (?:oferta|promo[cç][aã]o|promoci[oó]n)|mega (?:oferta|promo[cç][aã]o|promoci[oó]n)"
    r"|ofertas?|promo|promo[cç][aã]o|promo[cç][oõ]es|promoci[oó]n|promociones|imperdible"
    r"|oportunidade?"
    r"|com (?:nf e|nf|nota fiscal)|c (?:nf e|nf|nota fiscal|factura)|con factura|nf e|nota fiscal"
    r"|melhor pre[cç]o|mejor precio|aproveite|aprovech[aá]"
    r")\b"
)
_DIGIT = re.compile(r"\d")
_NUMBER = re.compile(r"[\d.]+")  # once words are found, a point is always between two digits
_SPACES = re.compile(r"  +")


def normalise(text: str, settings: Text) -> str:
    """Lower-case words with spaces between them; titles stay separated by newlines."""
    # KC also folds what looks different but reads the same: full-width letters, ligatures, ².
    text = unicodedata.normalize("NFKC", text).lower()
    if settings.strip_accents and not text.isascii():
        text = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    text = _NOT_WORD.sub(" ", text).replace(",", ".")
    if settings.drop_seller_noise:
        text = _SELLER_NOISE.sub(" ", _SPACES.sub(" ", text))
    if settings.digits == "zero":
        text = _DIGIT.sub("0", text)
    elif settings.digits == "drop":
        text = _NUMBER.sub(" ", text)
    return text


def tokenise(titles: Sequence[str], settings: Text) -> list[list[str]]:
    """Words of each title, at most `max_words`; none for a title that holds no word."""
    if not titles:
        return []  # joined, no title would look like one empty title
    # One pass over all titles joined costs far less than a pass a title.
    joined = normalise("\n".join([title.replace("\n", " ") for title in titles]), settings)
    return [line.split()[: settings.max_words] for line in joined.split("\n")]
