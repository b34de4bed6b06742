"""New files have the mode that the umask gives; a file that may not be read is not a missing one."""

from __future__ import annotations

import os
import stat

from hostile.harness import Place, case, cases

KIND = "permissions"


def modes(place: Place, *names: str) -> dict[str, int]:
    found = {}
    for name in names:
        top = place / name
        for path in [top, *(top.rglob("*") if top.is_dir() else ())]:
            found[str(path.relative_to(place.folder))] = stat.S_IMODE(path.stat().st_mode)
    return found


@cases(KIND, {f"umask {umask:03o}": umask for umask in (0o022, 0o002, 0o027, 0o077)})
def new_files(place: Place, umask: int) -> None:
    place.models()
    place.listing()
    place.parameters()
    for command, made in (
        (("sample", "sample.csv", "--rows", "20"), "sample.csv"),
        (("predict", "word2", "--out", "out.parquet"), "out.parquet"),
        (("explain", "word2", "--html", "why.html"), "why.html"),
        (("prepare",), "data"),
        (("prepare",), "metrics"),
    ):
        place.done(*command, umask=umask, makes=["data", "metrics", made])
        for name, mode in modes(place, made).items():
            expected = (0o777 if (place / name).is_dir() else 0o666) & ~umask
            assert mode == expected, f"{name} has {mode:03o}, not {expected:03o}"


@cases(KIND, {f"umask {umask:03o}": umask for umask in (0o022, 0o077)})
def trained_and_exported(place: Place, umask: int) -> None:
    place.listing()
    place.parameters(epochs=1)
    for stage in ("prepare", "embed", "train_mlp"):
        place.done(stage, umask=umask, makes=["data", "metrics", "models", "plots"])
    place.done("export", "onnx", "--model", "mlp", "--out", "onnx", umask=umask, makes=["onnx"])
    for name, mode in modes(place, "models", "plots", "metrics", "onnx", "data/embedded").items():
        expected = (0o777 if (place / name).is_dir() else 0o666) & ~umask
        assert mode == expected, f"{name} has {mode:03o}, not {expected:03o}"


@cases(
    KIND,
    {
        "params.yaml": (("prepare",), "params.yaml"),
        "the source": (("prepare",), "listing.csv"),
        "a listing": (("predict", "--file", "listing.csv"), "listing.csv"),
        "a test file": (("submit", "listing.csv"), "listing.csv"),
        "model.json": (("predict", "--model", "cnn", "word2"), "models/cnn/model.json"),
        "weights.safetensors": (
            ("predict", "--model", "cnn", "word2"),
            "models/cnn/weights.safetensors",
        ),
        "labels.txt": (("predict", "--model", "cnn", "word2"), "models/cnn/labels.txt"),
        "golden.json": (("predict", "--model", "cnn", "word2"), "models/cnn/golden.json"),
        "a folder of a model": (("predict", "--model", "cnn", "word2"), "models/cnn"),
        "the folder of models": (("predict", "word2"), "models"),
    },
)
def not_readable(place: Place, command: tuple[str, ...], name: str) -> None:
    place.models()
    place.listing()
    place.parameters()
    (place / name).chmod(0)
    try:
        told = place.refused_unseen(*command)
    finally:
        (place / name).chmod(0o755)
    assert "denied" in told.lower() or "not readable" in told.lower(), f"says: {told.strip()[-160:]}"
    assert "missing" not in told, f"says that it is missing: {told.strip()[-160:]}"
    assert "dvc pull" not in told, told.strip()[-160:]


@case(KIND, "a file in a folder that may not be searched")
def not_searchable(place: Place) -> None:
    place.models()
    place.write("closed/in.csv", "title\nword2\n")
    (place / "closed").chmod(0)
    try:
        told = place.refused_unseen("predict", "--file", "closed/in.csv")
        told += place.refused_unseen("predict", "word2", "--out", "closed/out.csv")
    finally:
        (place / "closed").chmod(0o755)
    assert told.count("denied") == 2, told
    assert os.listdir(place / "closed") == ["in.csv"]  # noqa: PTH208
