"""Commands on DVC's experiments and their runs in MLflow."""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path

from titles.commands import Command, Commands, command, end_on_termination, positive
from titles.data import console, messages
from titles.models.registry import AVERAGE, CLASSIFIERS

_METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "top_3", "top_5", "loss", "calibration_error")


def add(commands: Commands) -> None:
    pruebas = command(commands, "pruebas", _pruebas, "run named experiments from a file")
    text, default = "experiments to run", "experiments/course.yaml"
    pruebas.argument("file", text, nargs="?", type=Path, default=default)
    text = "runs at once (default: cores over compute.threads)"
    pruebas.argument("--jobs", text, type=int, metavar="N")
    pruebas.argument("--md", "also write the table to PATH as Markdown", type=Path, metavar="PATH")

    table = command(commands, "table", _table, "list experiments, best first by validation")
    several = table.add_mutually_exclusive_group()
    text = "those of the last N commits"
    several.add_argument("-n", "--commits", help=text, type=positive, default=1, metavar="N")
    text = "those of all commits"
    several.add_argument("-A", "--all", dest="commits", action="store_const", const=None, help=text)
    _form(table)

    report = command(commands, "report", _report, "compare experiments on one page")
    text = "name of an experiment, a git revision, or workspace for the files as they are"
    report.argument("experiments", text, nargs="+", metavar="EXPERIMENT")
    report.argument("--out", "page to write", type=Path, default="report.html", metavar="FILE")
    text = "Markdown to write (default: beside the page, with .md for its ending)"
    report.argument("--markdown", text, type=Path, metavar="FILE")
    text = "whose categories and titles are shown"
    report.argument("--model", text, choices=CLASSIFIERS, default=AVERAGE)

    text = "summarise experiments over seeds, or compare two settings by runs with equal seeds"
    seeds = command(commands, "seeds", _seeds, text)
    text = "two experiments or revisions whose settings to compare (default: summarise all)"
    seeds.argument("experiments", text, nargs="*", metavar="EXPERIMENT")
    text = "what to summarise, measured on the test split"
    seeds.argument("--metric", text, choices=_METRICS, default=_METRICS[0])
    seeds.argument("--rev", "commit the experiments started from (default: HEAD)")
    _form(seeds)

    gate = command(commands, "gate", _gate, "fail if an experiment is surely worse than another")
    text = "name of an experiment, a git revision, or workspace"
    gate.argument("baseline", text, metavar="BASELINE")
    gate.argument("candidate", "the same", metavar="CANDIDATE")
    text = "balanced accuracy that may be lost"
    gate.argument("--within", text, type=_margin, default=0.005, metavar="MARGIN")

    verify = command(commands, "verify", _verify, "run an experiment again and compare all its outputs")
    verify.argument("experiment", "name or git revision", nargs="?", default="HEAD")
    text = "run only this stage, on the inputs that the experiment had; can be repeated"
    verify.argument("--stage", text, action="append", default=[], metavar="NAME")
    verify.argument("--keep", "keep the temporary folder", action="store_true")

    mlflow = commands.add_parser(
        "mlflow",
        help="fill MLflow from DVC, find runs, register a classifier",
        description="The runs of DVC's experiments in MLflow: in mlflow.db of this folder, or at "
        "MLFLOW_TRACKING_URI.",
    )
    actions = mlflow.add_subparsers(title="commands", required=True, metavar="COMMAND")
    command(actions, "sync", _mlflow_sync, "bring MLflow up to date with DVC")
    find = command(actions, "find", _mlflow_find, "print the runs of an experiment")
    text = "or a commit, branch, tag, or 'workspace'"
    find.argument("name", text, metavar="EXPERIMENT")
    brief = "make what `titles predict` uses a version in the model registry"
    register = command(actions, "register", _mlflow_register, brief)
    register.argument("name", f"{text} (default: the best of all)", nargs="?", metavar="EXPERIMENT")
    register.network(AVERAGE)


def _form(parser: Command) -> None:
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--md", dest="form", action="store_const", const="github", help="print Markdown")
    text = "print CSV, with all digits"
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help=text)
    parser.set_defaults(form="simple")


def _pruebas(options: argparse.Namespace) -> None:
    """Queue the experiments of a file with DVC, run them, and show their results beside published
    figures. Experiments that are finished on this commit are kept. Ctrl-C ends the queue's workers; the
    same command continues with what is missing. `dvc queue logs NAME` shows the output of an
    experiment."""
    from titles.experiments.store import head
    from titles.experiments.suite import runner, table

    end_on_termination()
    plan, experiments = runner.run(options.file, options.jobs)
    scores = {name: experiment.scores for name, experiment in experiments.items()}
    print(table.shown(plan, scores))
    if caveat := table.caveat(plan):
        print(caveat)
    if options.md:
        table.write_markdown(plan, scores, head(), options.md)


def _table(options: argparse.Namespace) -> None:
    """List the experiments on this commit: balanced accuracy on validation, by which they are sorted,
    beside that on test, with its 95 % interval, and the parameters that differ. Choose by validation:
    the best of many on test is partly luck. Those that wait, run or failed have no figures."""
    from titles.experiments import table
    from titles.experiments.store import WORKSPACE, find

    print(table.shown(table.rows(options.commits), options.form))
    if reason := table.why(find(WORKSPACE), find("HEAD")):
        print("The workspace has other figures than the commit, with equal parameters. What differs:")
        print(f"  {reason}")


def _report(options: argparse.Namespace) -> None:
    """Compare experiments, or git revisions, with the first of them: whether one is better, scores on
    validation and test, paired tests, parameters and inputs that differ, curves, categories, titles.
    Prints the answer, and makes a page that needs no network and the same as Markdown. Nothing is
    checked out; what DVC's cache lacks is read from the remote. The texts are in the language of
    TITLES_LANG (en, es, pt) or of the locale."""
    from titles.experiments.report.page import write_report
    from titles.texts import chosen, texts

    say = texts(chosen())
    markdown = options.markdown or options.out.with_suffix(".md")
    print(write_report(options.experiments, options.model, options.out, markdown, say))
    print(f"written: {options.out}, {markdown}")


def _seeds(options: argparse.Namespace) -> None:
    """Mean, standard deviation and 95 % interval (Student's t) over the experiments on this commit that
    differ only in `seed` and `prepare.split_seed`, for each network and set of other parameters; and the
    standard deviations that the seed of the training and the split add. Settings that ran once stand
    apart. Two sets of parameters are compared in pairs. To get some: dvc exp run --queue -S
    'seed=1,2,3' && dvc queue start

    With two experiments: which of their settings is better, by the mean difference over pairs of runs
    with the same seeds and its interval."""
    from titles.experiments import seeds
    from titles.experiments.store import find, head

    if not options.experiments:
        baseline = find(options.rev or "HEAD").commit or head()
        print(seeds.report(baseline, options.metric, options.form))
    elif len(options.experiments) != 2:
        raise ValueError("name two experiments to compare, or none to summarise all")
    elif options.rev:
        raise ValueError("--rev is for a summary: a comparison takes the experiments of all commits")
    else:
        one, other = options.experiments
        print(seeds.comparison(one, other, options.metric, options.form))


def _gate(options: argparse.Namespace) -> int:
    """Fail if CANDIDATE is surely worse than BASELINE: for some network or the average, all of the 95 %
    interval of the difference of balanced accuracy on the same test titles lies below the margin. One
    line for each. Exit code 0: none is surely worse; 1: some are; 2: bad usage; 3: they cannot be
    compared."""
    try:
        from titles.experiments.gate import gate

        checks, note = gate(options.baseline, options.candidate, options.within)
        if note:
            print(f"note: {note}", file=sys.stderr)
        try:
            print(*checks, sep="\n", flush=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EBADF):
                raise
            console.discard(sys.stdout)  # closed: the reader needs no more than the verdict
        return int(any(check.is_worse for check in checks))
    except Exception as error:  # also of a bug: 1 would say that the candidate is worse
        line = messages.failure(error).removeprefix("error: ")
        print(f"error: not compared: {line}", file=sys.stderr)
        return 3


def _margin(text: str) -> float:
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0 <= margin < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return margin


def _verify(options: argparse.Namespace) -> None:
    """Run an experiment again in a temporary folder, with its own code and without DVC's run cache, and
    compare the hash of each output with its dvc.lock. Exit code 0: all are the same; 1: some differ."""
    from titles.experiments import verify

    end_on_termination()
    found = verify.verify(options.experiment, options.stage, options.keep)
    print(verify.shown(found))
    if found.different:
        raise ValueError(verify.verdict(found))
    print(f"all {len(found.outputs)} outputs of {found.revision.commit[:7]} are the same")


def _mlflow_sync(options: argparse.Namespace) -> None:
    """Add to the runs in MLflow what only DVC knows: a run for each experiment and commit, in which its
    trainings and its evaluation are nested, results on the test split, the splits as datasets, and links
    to experiments and commits. Experiments that were pulled or came from the run cache have no run: they
    get one with the tag source: backfill. A second call changes nothing."""
    from titles.experiments.mlflow_sync import sync

    print(sync())


def _mlflow_find(options: argparse.Namespace) -> None:
    """Print the runs in MLflow of a DVC experiment, the addresses of their pages and the versions that
    were registered from them."""
    from titles.serve.registry import described

    print(described(options.name))


def _mlflow_register(options: argparse.Namespace) -> None:
    """Register the networks of an experiment as one model, averaged as `titles predict` does: a version
    of models:/titles. With --model cnn a single network: a version of models:/titles-cnn. The alias
    `best` goes to the version with the highest balanced accuracy on validation, of all that were
    evaluated on the same validation split."""
    from titles.serve.registry import register

    print(register(options.name, options.model))
