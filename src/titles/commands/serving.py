"""Trained networks outside the project: exports, an HTTP server, the demo page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from titles.commands import Commands, command, end_on_termination, positive, probability
from titles.models.registry import AVERAGE, NETWORKS

_port = partial(positive, kind="a port: expected 1 to 65535", most=65535)


def add(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write a trained network for other tools",
        description="Write a trained network as a folder that other tools load.",
    )
    kinds = export.add_subparsers(title="formats", required=True, metavar="FORMAT")
    onnx = command(kinds, "onnx", _export_onnx, "for ONNX Runtime and other readers of ONNX")
    onnx.models("cnn")
    mlflow = command(kinds, "mlflow", _export_mlflow, "for mlflow.pyfunc and `mlflow models`")
    mlflow.models()
    hub = command(kinds, "hub", _export_hub, "for the Hugging Face Hub, with code to predict")
    hub.models()
    text = "output folder; it appears when it is complete, and replaces an earlier export"
    for kind in (onnx, mlflow, hub):
        kind.argument("--out", text, type=Path, required=True, metavar="FOLDER")

    epilog = (
        "Example: curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
        '-d \'{"inputs": ["Funda Para Celular Samsung J7"]}\''
    )
    serve = command(commands, "serve", _serve, "classify titles over HTTP", epilog)
    serve.models()
    serve.argument("--host", "address to listen on", default="127.0.0.1")
    serve.argument("--port", "", type=_port, default=5001)
    serve.argument(
        "--allowed-host",
        "name that requests may ask for in their Host header, or * for any; may be repeated. Loopback "
        "names, --host and the address that was reached are allowed as well, and the names in the "
        "environment variable TITLES_ALLOWED_HOSTS, separated by commas",
        action="append",
        default=[],
        metavar="HOST",
    )
    demo = command(commands, "demo", _demo, "try titles on a page")
    demo.models()
    text = (
        "probability from which an answer is marked as sure (default: for each network its threshold in "
        "metrics/details.json, beside the folder of the models)"
    )
    demo.argument("--at-least", text, type=probability, metavar="P")
    demo.argument("--port", "", type=_port, default=8501)


def _folders(options: argparse.Namespace) -> list[Path]:
    names = NETWORKS if options.model == AVERAGE else [options.model]
    return [options.models / name for name in names]


@contextmanager
def _exported(out: Path, mark: str) -> Iterator[Path]:
    """An `atomic_folder` that replaces only an earlier export.

    Args:
        mark: the file that marks an export of this kind.

    Raises:
        ValueError: something else exists there, or the path is not writable.
    """
    end_on_termination()
    from titles.data.files import atomic_folder

    if out.exists() and not (out.is_dir() and ((out / mark).exists() or not any(out.iterdir()))):
        raise ValueError(f"{out} exists and is not an earlier export: name another folder")
    if (out / ".git").exists():
        raise ValueError(
            f"{out} is a git repository, which an export would replace: name another folder"
        )
    with atomic_folder(out) as made:
        yield made


def _export_onnx(options: argparse.Namespace) -> None:
    """Write a network as ONNX with the files that turn titles into its inputs: model.onnx,
    encoding.json, vocabulary.tsv and labels.txt. See docs/serving.md."""
    from titles.serve import onnx_model

    with _exported(options.out, onnx_model.MARK) as made:
        onnx_model.write(options.models / options.model, made)
    print(f"{options.out} holds the {options.model} as ONNX", file=sys.stderr)


def _export_mlflow(options: argparse.Namespace) -> None:
    """Write an MLflow model that includes its code, for mlflow.pyfunc.load_model, `mlflow models serve`
    or `mlflow models build-docker`."""
    from titles.serve import mlflow_model
    from titles.tracking.mlflow import as_default

    with _exported(options.out, mlflow_model.MARK) as made, as_default():
        mlflow_model.write(_folders(options), made)
    print(f"{options.out} is an MLflow model: {options.model}", file=sys.stderr)


def _export_hub(options: argparse.Namespace) -> None:
    """Write a folder for the Hugging Face Hub: the networks, a model card with their results, and
    predict.py, which predicts without this package. Nothing is uploaded. See docs/serving.md."""
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported

    # isort: split
    from titles.serve.hub import folder

    with _exported(options.out, folder.MARK) as made:
        folder.write(_folders(options), made)
    print(f"{options.out} is ready for the Hub: {options.model}", file=sys.stderr)


def _serve(options: argparse.Namespace) -> None:
    """Serve predictions over HTTP with MLflow's model server, until interrupted. There is no login:
    everyone who can reach the address can use it."""
    from titles.serve.http import serve

    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported

    serve(_folders(options), options.host, options.port, options.allowed_host)


def _demo(options: argparse.Namespace) -> None:
    """Serve a page, on this machine only, until interrupted: type a title and see the prediction of each
    network, whether it is sure, and the words that decided. The page is in the language of TITLES_LANG
    (en, es, pt) or of the browser, and has a switch."""
    from titles.serve.demo import server
    from titles.serve.http import check_free

    check_free(server.HOST, options.port, "--port")
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported

    server.serve(_folders(options), options.port, options.at_least)
