"""Golden examples: titles with the words and ids that they had when a model was written.

A model answers worse, and nothing fails, if a rule of prepare/text.py or the hash of data/subwords.py
changes after its training. The examples are read again whenever the model is loaded. They show a change
of any rule that a test takes away, not every change that is possible.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from titles.data.contract import SPECIAL_WORDS, UNK, VOCABULARY_FILE
from titles.data.documents import read_json
from titles.data.files import atomic_file
from titles.data.subwords import Subwords
from titles.data.vocabulary import Vocabulary
from titles.params import Text
from titles.prepare.text import words_of

GOLDEN_FILE = "golden.json"

# For each pattern of prepare/text.py, phrase of sellers and invisible character, a title that is read
# otherwise without it: tests/test_golden.py takes them away one by one. Escapes are characters that
# cannot be seen or told apart.
TITLES = (
    "Funda Para Celular SAMSUNG-S10+ (128GB)",
    "Teléfono Câmera Ação Ñandú Pingüino Maçã",
    "cafe\u0301 man\u0303ana ac\u0327a\u0303o",
    "Televisor 4K 55'' 2.5 2,5 .5 5. 1.000,50 12,5cm",
    "Tubo 3/4 x 1/2 ½ ¼ 10\u00b2 m\u00b3 CO\u2082",
    "Silla ENVÍO GRATIS 12x sin interés Oferta",
    "Cadeira FRETE GRÁTIS em até 12x sem juros com nota fiscal",
    "Mesa 6 cuotas sin interés Mercado Pago promoción imperdible",
    "Panela pronta entrega promoção melhor preço aproveite",
    "Sofá envío es gratis envios e gratuito envío é incluído gratis envío",
    "Estante frete es gratis frete e gratuito frete é incluído grátis frete",
    "Lámpara envío - gratis entrega inmediata 12 x sin interés 3x sem juros Cabo 1.5x sem juros",
    "Fogão 3 parcelas 6 cuotas fijas 9 parcelas fixas cuotas sin interés parcelas sem juros",
    "Fone com nf com nf e com nota fiscal c/ nf c/ nf-e c/ nota fiscal c/ factura con factura",
    "Tv sin interés nf-e nota fiscal sem juros",
    "Rack super oferta super promoção super promoción mega oferta mega promoção mega promoción",
    "Mochila Mercado Livre Mercado Libre Mercado Envíos mejor precio",
    "Bota promoções promociones oportunidade aprovechá oferta\u093f",
    "Kit C&A 100% $99 #1 @casa ¡¿Nuevo?! *** 50°C R$ 20 €5 £3",
    "O'Neill D\u2019Ángelo \u201cRock\u201d \u2014 L\u2032Oreal",
    "a.b a_b c,d x-y 10-20 v2.0.1",
    "\uff26\uff55\uff4e\uff44\uff41 \uff11\uff12\uff18\uff27\uff22 \uff0b",
    "\ufb01lme o\ufb03ce \u0133zer \u01c6ep",
    "Lego\u2122City Pro\u2120 Nike\u00aeAir Sony\u00a9 n\u00ba 5 1\u00aa \u2116 7 \u24c7",
    'Caf&eacute; R&B &amp; Rock&#39;n 2\u00bd" 10\u00b9\u00b2kg x\u00b25 uno\u3164dos',
    "Barra &#x2f; &#243; &#9731; 12\u00b9\u00bd 5\u093f a",
    "co\u00adche zapa\u200btilla bici\u200dcleta mo\u200cto re\ufefflo\u2060j",
    "direc\u200eción de\u200frecha",
    # Every single one has a letter on either side.
    "o".join(
        ["", *map(chr, (0x34F, 0x61C, 0x180E, *range(0x202A, 0x202F), *range(0x2061, 0x2070))), ""]
    ),
    "o".join(["", *map(chr, (*range(0xFE00, 0xFE10), 0xFFF9, 0xFFFA, 0xFFFB)), ""]),
    "o".join(["", *"℠ⒸⓇⓒⓡ🄫🄬🅪🅫🅬\u115f\u1160\uffa0", ""]),
    "uno\u00a0dos\u2003tres\u3000cuatro\u2028cinco",
    "uno\ndos\r\ntres\tcuatro\x00cinco\x85seis\x1cseite",
    "किताब हिन्दी मोबाइल",
    "كتاب هاتف محمول \u0663.\u0665 \u06f1\u06f2",
    "קפה \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "Книга й ё Телефон",
    "ΟΔΟΣ Ελλάδα σκύλος",
    "手机壳 苹果 スマホ カ\u3099ス 한국어 \u1112\u1161\u11ab",
    "\U00020bb7野家 \U0001d400\U0001d401 \u2460\u2461 \u2163",
    "Gorra 😀 👍\U0001f3fd 👨\u200d👩\u200d👧 ❤\ufe0f 🇧🇷 5\u20e3Azul",
    "\u0130stanbul \u0131\u015f\u0131k IŞIK",
    "Straße STRASSE Æsir Ørsted Łódź Œuvre",
    "ไทย ภาษา Tiếng Việt",
    "o 7 x",
    "electroencefalografista Donaudampfschifffahrtsgesellschaft",
    " ¡¡!! ... \u2014 ",
    "",
    " ".join(f"palabra{number}" for number in range(40)),
    " ".join(["desproporcionadamentelarguisimas"] * 34),
)
_KNOWN = 8  # words from either end of the vocabulary, whose ids are compared
_REASON = 300  # characters of a list of words in a message

_UNCHECKED = (
    "warning: {} is of an older format, without examples of titles: it is not certain that titles are "
    "read as in its training"
)


def write(folder: Path, text: Text, vocabulary: Vocabulary, subwords: Subwords | None) -> None:
    """Write the number of examples and the examples as they are read now, into the folder of a model."""
    words = vocabulary.words[len(SPECIAL_WORDS) :]
    titles = [*TITLES, " ".join(words[:_KNOWN]), " ".join(words[-_KNOWN:])]
    lines = map(json.dumps, [len(titles), *_read(titles, text, vocabulary, subwords)])
    with atomic_file(folder / GOLDEN_FILE) as partial:
        partial.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="ascii")


def check(
    folder: Path,
    text: Text,
    vocabulary: Vocabulary,
    subwords: Subwords | None,
    remedy: str = "train again with `dvc repro`",
) -> None:
    """Read the examples of a folder again.

    Args:
        remedy: how the folder is made anew.

    Raises:
        ValueError: they are missing or damaged, one is read otherwise than when it was written (the
            message has the first of those), or words have other ids.
    """
    path = folder / GOLDEN_FILE
    try:
        count, *told = read_json(path)
        titles = [example["title"] for example in told]
        again = _read(titles, text, vocabulary, subwords)
        if count != len(told):
            raise ValueError(f"{len(told)} examples of {count!r}")
        if not told or any(was.keys() != now.keys() for was, now in zip(told, again, strict=True)):
            raise ValueError("not a list of examples")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc pull`, or {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {repr(error)[:_REASON]}") from None
    for part in ("words", "buckets", "ids"):
        for was, now in zip(told, again, strict=True):
            if was[part] != now[part]:
                before, after = str(was[part])[:_REASON], str(now[part])[:_REASON]
                differs = f"of {was['title'][:80]!r} the {part} were {before} and are {after}"
                if part == "ids":  # of the same words
                    raise ValueError(
                        f"{folder / VOCABULARY_FILE} is damaged, or of another model: {differs}: run "
                        f"`dvc pull`, or {remedy}"
                    )
                raise ValueError(
                    f"{folder} was trained with titles read otherwise than now: {differs}: {remedy}, or "
                    "use the version of titles that wrote it"
                )


def warn_unchecked(folder: Path) -> None:
    """Say on stderr that a folder of an older format has no examples."""
    print(_UNCHECKED.format(folder), file=sys.stderr)


def _read(
    titles: Sequence[str], text: Text, vocabulary: Vocabulary, subwords: Subwords | None
) -> list[dict[str, Any]]:
    """The words of each title, their ids, and the buckets of the n-grams of the first word."""
    rows = words_of(titles, text)
    wanted = {word for row in rows for word in row}
    ids = {word: number for number, word in enumerate(vocabulary.words) if word in wanted}
    buckets: Iterable[list[int]] = ([] for _ in rows)
    if subwords:
        found = subwords.of([row[0] if row else "" for row in rows])
        buckets = (part.tolist() for part in np.split(found.buckets, found.ends[:-1]))
    return [
        {"title": title, "words": row, "ids": [ids.get(word, UNK) for word in row], "buckets": own}
        for title, row, own in zip(titles, rows, buckets, strict=True)
    ]
