"""A first look at the trained networks: `marimo edit notebooks/first_look.py`, or run it as a script."""

import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="titles: a first look")

with app.setup:
    import json
    import os
    import subprocess
    from pathlib import Path

    import titles  # first: it sets what numpy and torch read

    # isort: split
    import altair as alt
    import dvc.api
    import marimo as mo
    import pandas as pd

    # Paths below are those of the project, wherever the notebook is run from.
    os.chdir(Path(__file__).resolve().parent.parent)


@app.cell(hide_code=True)
def _():
    mo.md("""
    # A first look

    The networks of `models/`, which `dvc pull` brings and `make run` trains: what they answer, why,
    and how two versions of them differ. Cells depend on each other: change a title, and all that
    follows from it is computed anew.
    """)
    return


@app.cell
def _():
    model = titles.load("models")
    mo.md(f"The average of both networks knows **{len(model.labels)}** categories.")
    return (model,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Predict

    `predict` gives the most likely categories with calibrated probabilities. `cover` gives the
    smallest set that holds the right category with a given probability: most titles get one category,
    unclear ones several.
    """)
    return


@app.cell
def _():
    listings = [
        "Funda Para Celular Samsung J7",
        "Celular Samsung J7 Con Funda",
        "Tênis De Corrida Masculino 42",
        "Juego De Sábanas Queen",
    ]
    return (listings,)


@app.cell
def _(listings, model):
    best = pd.DataFrame(
        {"title": answer.title, "category": category, "probability": probability}
        for answer in model.predict(listings, top=3)
        for category, probability in zip(answer.categories, answer.probabilities, strict=True)
    )
    best
    return (best,)


@app.cell
def _(best):
    alt.Chart(best).mark_bar().encode(
        x=alt.X("probability", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("category", sort="-x", title=None),
        row=alt.Row("title", title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
    ).resolve_scale(y="independent")
    return


@app.cell
def _(listings, model):
    pd.DataFrame(
        {"title": answer.title, "categories": ", ".join(answer.categories)}
        for answer in model.cover(listings, 0.95)
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Explain

    The effect of a word is how much the log probability of the category falls when the word is removed.
    """)
    return


@app.cell
def _(listings, model):
    explanation = model.explain(listings[0], top=2)
    effects = pd.DataFrame(
        {"word": word, "place": place, "category": category.name, "effect": effect}
        for category in explanation.categories
        for place, (word, effect) in enumerate(zip(explanation.words, category.effects, strict=True))
    )
    alt.Chart(effects).mark_bar().encode(
        x=alt.X("effect", title="decrease of the log probability without the word"),
        y=alt.Y("word", sort=alt.SortField("place"), title=None),
        row=alt.Row("category", title=None, header=alt.Header(labelAngle=0, labelAlign="left")),
    )
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Compare two experiments

    Results are in git beside the code. Here: the committed run and the one before it. Put the name of
    an experiment of `dvc exp show` in the place of either.
    """)
    return


@app.cell
def _():
    _log = ["git", "log", "-2", "--format=%h", "--", "metrics/evaluate.json"]
    revisions = subprocess.run(_log, capture_output=True, text=True, check=True).stdout.split()
    return (revisions,)


@app.cell
def _(revisions):
    scores = pd.DataFrame(
        {revision: dvc.api.metrics_show("metrics/evaluate.json", rev=revision) for revision in revisions}
    )
    scores
    return


@app.cell
def _(revisions):
    curves = pd.concat(
        pd.DataFrame(json.loads(dvc.api.read(f"plots/{network}.json", rev=revision))).assign(
            network=network, revision=revision
        )
        for revision in revisions
        for network in ("cnn", "mlp")
    )
    alt.Chart(curves).mark_line(point=True).encode(
        x="epoch:O",
        y=alt.Y(
            "validation_balanced_accuracy",
            scale=alt.Scale(zero=False),
            title="balanced accuracy on validation",
        ),
        color="network",
        strokeDash="revision",
    )
    return


if __name__ == "__main__":
    app.run()
