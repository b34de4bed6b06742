"""The page: a script that Streamlit reruns for each visitor and each change."""

from __future__ import annotations

import streamlit as st

from titles.predict.explain_page import macros
from titles.serve.demo.comparison import loaded

EXAMPLES = (
    "Funda Para Celular Samsung J7",
    "Celular Samsung J7 + Funda De Regalo",
    "Capa Para Celular Samsung J7",
    "Tênis Feminino Para Corrida",
)
NO_TITLE = "Type a title and press Enter, or choose an example."
NO_WORD = "This title has no words: there is nothing to classify."
NO_KNOWN_WORD = "None of these words is in the vocabulary: this is only a guess from their letters."


def main() -> None:
    """Draw the page for one visitor, with the current title."""
    st.set_page_config(page_title="titles demo", layout="wide")
    st.html(macros().demo_style())
    st.header("Category of a title", anchor=False)
    title = st.text_input("Title, in Spanish or Portuguese", key="title", autocomplete="off")
    with st.container(horizontal=True):
        for example in EXAMPLES:
            st.button(example, on_click=st.session_state.update, kwargs={"title": example})
    if not title:
        st.info(NO_TITLE)
        return
    (comparison,) = loaded
    found = comparison.explain(title)
    longest = comparison.max_title_chars
    if len(title) > longest:
        st.info(f"The title has {len(title):,} characters; only the first {longest:,} are read.")
    if not found:
        st.warning(NO_WORD)
        return
    (first, *_) = found.values()
    if not any(first.known):
        st.warning(NO_KNOWN_WORD)
    for column, (heading, explanation) in zip(st.columns(len(found)), found.items(), strict=True):
        column.html(macros().answer(heading, explanation))
    st.html(macros().demo_legend(first))


if __name__ == "__main__":
    main()
