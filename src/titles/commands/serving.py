"""Trained networks outside the project: exports, an HTTP server, the demo page."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from titles.commands import add_model, add_models, add_network, end_on_termination
from titles.models.registry import AVERAGE, NETWORKS

if TYPE_CHECKING:
    from titles.commands import Commands


def add(commands: Commands) -> None:
    export = commands.add_parser(
        "export",
        help="write a trained network for other tools",
        description="Write a trained network as a folder that other tools load.",
    )
    kinds = export.add_subparsers(title="formats", required=True, metavar="FORMAT")
    onnx = kinds.add_parser(
        "onnx",
        help="for ONNX Runtime and other readers of ONNX",
        description="Write a network as ONNX with the files that turn titles into its inputs: "
        "model.onnx, encoding.json, vocabulary.tsv and labels.txt. See docs/serving.md.",
    )
    add_network(onnx, "cnn")
    _add_places(onnx)
    onnx.set_defaults(run=_export_onnx)
    mlflow = kinds.add_parser(
        "mlflow",
        help="for mlflow.pyfunc and `mlflow models`",
        description="Write an MLflow model that includes its code, for mlflow.pyfunc.load_model, "
        "`mlflow models serve` or `mlflow models build-docker`.",
    )
    add_model(mlflow)
    _add_places(mlflow)
    mlflow.set_defaults(run=_export_mlflow)
    serve = commands.add_parser(
        "serve",
        help="classify titles over HTTP",
        description="Serve predictions over HTTP with MLflow's server, `mlflow models serve`, until "
        "interrupted. There is no login: everyone who can reach the address can use it.",
        epilog="Example: curl http://127.0.0.1:5001/invocations -H 'Content-Type: application/json' "
        '-d \'{"inputs": ["Funda Para Celular Samsung J7"]}\'',
    )
    add_model(serve)
    add_models(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=5001, help="(default: %(default)s)")
    serve.set_defaults(run=_serve)
    demo = commands.add_parser(
        "demo",
        help="try titles on a page",
        description="Serve a page, on this machine only, until interrupted: type a title and see the "
        "prediction of each network, and the words that decided.",
    )
    add_model(demo)
    add_models(demo)
    demo.add_argument("--port", type=_port, default=8501, help="(default: %(default)s)")
    demo.set_defaults(run=_demo)


def _add_places(command: argparse.ArgumentParser) -> None:
    add_models(command)
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="output folder; it appears when it is complete, and replaces an earlier export",
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: expected 1 to 65535")
    return int(text)


def _folders(options: argparse.Namespace) -> list[Path]:
    names = NETWORKS if options.model == AVERAGE else [options.model]
    return [options.models / name for name in names]


def _export_onnx(options: argparse.Namespace) -> None:
    from titles.serve import onnx_model
    from titles.serve.exports import exported

    with exported(options.out, onnx_model.MARK) as made:
        onnx_model.write(options.models / options.model, made)
    print(f"{options.out} holds the {options.model} as ONNX", file=sys.stderr)


def _export_mlflow(options: argparse.Namespace) -> None:
    from titles.serve import mlflow_model
    from titles.serve.exports import exported

    with exported(options.out, mlflow_model.MARK) as made:
        mlflow_model.write(_folders(options), made)
    print(f"{options.out} is an MLflow model: {options.model}", file=sys.stderr)


def _serve(options: argparse.Namespace) -> None:
    from titles.serve.http import serve

    end_on_termination()
    serve(_folders(options), options.host, options.port)


def _demo(options: argparse.Namespace) -> None:
    from titles.serve.demo import server
    from titles.serve.http import check_free

    check_free(server.HOST, options.port, "--port")
    end_on_termination()
    import titles.stages  # noqa: F401  settings that torch reads when it is imported

    server.serve(_folders(options), options.port)
