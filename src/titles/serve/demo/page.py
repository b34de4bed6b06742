"""The page: a script that Streamlit reruns for each visitor and each change."""

from __future__ import annotations

import streamlit as st

from titles.models.registry import AVERAGE
from titles.predict.explain_page import legend, macros
from titles.serve.demo.comparison import Comparison, loaded
from titles.texts import LANGUAGES, Texts, chosen, texts


def main() -> None:
    """Draw the page for one visitor, in the visitor's language, with the current title."""
    st.set_page_config(page_title="titles demo", layout="wide")
    st.html(macros().demo_style())
    (comparison,) = loaded
    st.session_state.setdefault("language", chosen(st.context.locale or ""))
    say = texts(st.session_state["language"])
    st.radio(
        say("demo.language"),
        list(LANGUAGES),
        format_func=lambda code: LANGUAGES[code],
        key="language",
        horizontal=True,
        label_visibility="collapsed",
    )
    st.header(say("demo.heading"), anchor=False)
    title = _title(comparison, say)
    if not title:
        st.info(say("demo.no_title_examples" if comparison.examples.titles else "demo.no_title"))
        return
    found = comparison.explain(title)
    longest = comparison.max_title_chars
    if len(title) > longest:
        st.info(say("demo.too_long", characters=f"{len(title):,}", longest=f"{longest:,}"))
    if not found:
        st.warning(say("demo.no_word"))
        return
    shown = {say("words.average") if name == AVERAGE else name.upper(): name for name in found}
    explanations = [answer.explanation for answer in found.values()]
    if not any(explanations[0].known):
        st.warning(say("demo.no_known_word"))
    for column, (heading, name) in zip(st.columns(len(shown)), shown.items(), strict=True):
        # The groups of words of the average are those of the CNN beside it.
        column.html(macros().answer(heading, *found[name], say, groups=name != AVERAGE))
    rules = {heading: found[name].threshold for heading, name in shown.items()}
    st.html(macros().demo_legend(legend(explanations, rules, say), say))


def _title(comparison: Comparison, say: Texts) -> str:
    """The title that the visitor has typed or chosen."""
    languages = [say(f"languages.{name}") for name in comparison.examples.languages]
    label = (
        say("demo.title_in", languages=say.listed(languages, "or")) if languages else say("demo.title")
    )
    title = st.text_input(label, key="title", autocomplete="off")
    if comparison.examples.titles:
        st.caption(say("demo.examples"))
        with st.container(horizontal=True):
            for number, example in enumerate(comparison.examples.titles):
                st.button(
                    markdown_escaped(example),
                    key=f"example {number}",
                    on_click=st.session_state.update,
                    kwargs={"title": example},
                )
    return title


def markdown_escaped(text: str) -> str:
    """A title of anybody as the label of a button, which Streamlit reads as Markdown."""
    return "".join(f"\\{c}" if c.isascii() and not c.isalnum() and c != " " else c for c in text)


if __name__ == "__main__":
    main()
