"""Stage embed: word vectors for the vocabulary, trained on train or read from a file."""

from pathlib import Path

from titles.data import inputs, processor
from titles.data.announcement import note_without_effect
from titles.data.contract import EMBEDDED, METRICS, PREPARED, TEXT, VOCABULARY
from titles.data.encoded import EncodedTitles
from titles.data.files import atomic_folder, write_json
from titles.data.vocabulary import Vocabulary
from titles.embed.vectors import coverage, read_pretrained, train
from titles.models.registry import load_params
from titles.params import Text
from titles.prepare.text import normalise
from titles.stages import entry_point
from titles.tracking.tracked import note_inputs


@entry_point
def main() -> None:
    params = load_params()
    note_inputs(params.embed)
    processor.check(params.compute.portable)
    words = Vocabulary.read(VOCABULARY)
    text = Text.read(TEXT)
    note_without_effect("embed", params.embed.without_effect())
    if params.embed.method == "pretrained":
        vectors = read_pretrained(
            Path(params.embed.pretrained),
            words,
            params.embed.dimension,
            params.seed,
            lambda word: normalise(word, text),
        )
    else:
        titles = EncodedTitles.open(PREPARED / "train")
        vectors = train(titles, words, params.embed, params.seed)
    with atomic_folder(EMBEDDED) as folder:
        vectors.write(folder)
        inputs.check()
    covered = coverage(vectors, words)
    write_json(
        METRICS / "embed.json",
        {"dimension": params.embed.dimension, "coverage": covered},
    )
    print(
        f"embed: {len(words)} words of {params.embed.dimension} dimensions ({params.embed.method}); "
        f"vectors for {covered['words']:.1%} of words and {covered['tokens']:.1%} of train's tokens"
    )


if __name__ == "__main__":
    main()
