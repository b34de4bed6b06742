"""Settings by which results are the same on every processor, and the products that depend on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from networks import NAMES, vocabulary, write_prepared
from processors import ROOT, SHAPES, of_parts, of_products, shapes
from saved_models import LETTERS, model
from titles.data import processor
from titles.data.processor import settle
from titles.data.subwords import Subwords
from titles.experiments import commands
from titles.models.parts import products
from titles.predict.classifier import Classifier

CAPPED = pytest.mark.skipif(not processor.portable(), reason="NOT RUN: needs x86-64 with AVX2")
SETTINGS = processor._SETTINGS


def python(code: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a shell's environment, without what this process was given."""
    passed = {k: v for k, v in os.environ.items() if k not in SETTINGS and k != "TITLES_PORTABLE"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=passed | variables,
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_are_made_where_they_are_wanted_and_can_be() -> None:
    environment = {"HOME": "/h"}
    assert settle(environment, True, True, []) == (True, ())
    assert {k: environment[k] for k in SETTINGS} == SETTINGS
    for wanted, capable in ((False, True), (True, False), (False, False)):
        untouched = {"HOME": "/h"}
        assert settle(untouched, wanted, capable, ["numpy"]) == (False, ())
        assert untouched == {"HOME": "/h"}


def test_settings_that_a_process_before_made_are_taken_back() -> None:
    environment = {"HOME": "/h"}
    settle(environment, True, True, [])
    settle(environment, True, True, [])  # of a process that this one starts
    assert settle(environment, False, True, []) == (False, ())
    assert environment == {"HOME": "/h"}


def test_settings_of_the_user_are_not_taken_back() -> None:
    given = {"MKL_CBWR": "AUTO", "OPENBLAS_CORETYPE": SETTINGS["OPENBLAS_CORETYPE"]}
    environment = dict(given)
    settle(environment, True, True, [])
    assert environment.keys() > SETTINGS.keys()
    assert processor.without(environment) == given
    assert settle(environment, False, True, []) == (False, ())
    assert environment == given


@CAPPED
def test_runs_of_older_code_get_no_settings() -> None:
    assert os.environ.items() >= SETTINGS.items()
    assert not commands.environment().keys() & {*SETTINGS, "TITLES_PORTABLE"}


@pytest.mark.parametrize("name", [*SETTINGS, "NPY_ENABLE_CPU_FEATURES"])
def test_settings_of_the_user_are_named_and_stay(name: str) -> None:
    environment = {name: "of the user"}
    found = settle(environment, True, True, [])
    assert found == (True, (f"{name}=of the user is set in the environment",))
    assert environment[name] == "of the user"
    assert len(environment) == len(SETTINGS) + 1  # numpy refuses both of its variables at once
    without = {name: "of the user"}
    assert settle(without, False, True, []) == (False, ())
    assert without == {name: "of the user"}


def test_a_setting_of_the_user_commands_no_terminal() -> None:
    (told,) = settle({"MKL_CBWR": "\x1b[2J"}, True, True, []).conflicts
    assert told == r"MKL_CBWR=\x1b[2J is set in the environment"


def test_an_import_before_ours_is_named_unless_the_settings_were_there() -> None:
    environment: dict[str, str] = {}
    told = ("numpy was imported before titles", "torch was imported before titles")
    assert settle(environment, True, True, ["torch", "numpy", "os"]).conflicts == told
    assert settle(environment, True, True, ["torch", "numpy", "os"]).conflicts == ()


@CAPPED
@pytest.mark.parametrize(
    ("code", "variables", "told"),
    [
        ("import titles", {}, ""),
        ("import titles, numpy, torch", {}, ""),
        ("import numpy, titles", {}, "numpy was imported before titles"),
        ("import torch, titles", {}, "torch was imported before titles"),
        ("import titles", {"MKL_CBWR": "AUTO"}, "MKL_CBWR=AUTO is set in the environment"),
        ("import numpy, titles", SETTINGS, ""),
    ],
)
def test_every_import_settles_the_process(
    code: str, variables: dict[str, str], told: str, tmp_path: Path
) -> None:
    shown = f"{code}, os, json; from titles.data import processor; print(json.dumps([dict(os.environ), "
    done = python(f"{shown}processor.portable()]))", tmp_path, **variables)
    environment, portable = json.loads(done.stdout)
    assert portable
    assert {k: environment[k] for k in SETTINGS} == SETTINGS | variables
    assert (told in done.stderr, bool(done.stderr)) == (True, bool(told))


@pytest.mark.parametrize(
    ("params", "portable"),
    [
        ("compute:\n  portable: false\n", False),
        ("compute: {threads: 1, portable: false}", False),
        ("compute:\n  portable: true\n", True),
        ("compute: []", True),
        ("compute: {portable: ", True),
        ("a: &a [*a, *a]", True),
        ("\x00", True),
    ],
)
def test_the_project_decides(params: str, portable: bool, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(params)
    done = python("from titles.data import processor as p; print(p._wanted())", tmp_path)
    assert (done.stdout.strip(), done.stderr) == (str(portable), "")


@CAPPED
def test_torch_and_numpy_keep_to_the_settings(tmp_path: Path) -> None:
    """A library that ignores its variable is noticed where that can be asked."""
    code = (
        "import titles, torch, numpy as np; print(torch.backends.cpu.get_cpu_capability(), "
        "np.show_config(mode='dicts')['SIMD Extensions']['found'])"
    )
    assert python(code, tmp_path).stdout.split() == ["AVX2", "['X86_V3']"]


@CAPPED
@pytest.mark.parametrize("stage", ["embed", "train_mlp", "evaluate"])
def test_a_stage_refuses_what_would_give_other_bytes(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    write_prepared()
    code = f"import runpy; runpy.run_module('titles.stages.{stage}', run_name='__main__')"
    done = python(code, tmp_path, OPENBLAS_CORETYPE="Zen", TITLES_MLFLOW="off")
    assert done.returncode == 1
    told = "error: OPENBLAS_CORETYPE=Zen is set in the environment: with compute.portable"
    assert done.stderr.splitlines()[-1].startswith(told)
    assert not list((tmp_path / "models").glob("mlp*"))


def test_what_is_promised_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "_has_avx2", lambda: True)
    monkeypatch.setattr(processor, "_settled", processor.Settled(False))
    with pytest.raises(ValueError, match=r"started has compute\.portable: false"):
        processor.check(True)
    processor.check(False)
    monkeypatch.setattr(processor, "_settled", processor.Settled(True, ("numpy was first",)))
    with pytest.raises(ValueError, match="numpy was first: with compute"):
        processor.check(True)
    processor.check(False)
    monkeypatch.setattr(processor, "_has_avx2", lambda: False)
    monkeypatch.setattr(processor, "_settled", processor.Settled(False))
    processor.check(True)  # training works, with bytes of its own


def test_the_class_of_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(processor, "model_name", lambda: "AMD EPYC 9")
    monkeypatch.setattr(processor, "flags", lambda: frozenset({"avx2", "avx512f", "sse"}))
    monkeypatch.setattr(processor, "_has_avx2", lambda: True)
    assert processor.machine(True) == "x86-64 with AVX2"
    assert processor.machine(False) == "x86_64, AMD EPYC 9, avx2, avx512f"
    assert processor.machine(True, "NVIDIA H200") == "GPU NVIDIA H200"
    monkeypatch.setattr(processor, "_has_avx2", lambda: False)
    assert processor.machine(True) == "x86_64, AMD EPYC 9, avx2, avx512f"


@pytest.mark.parametrize(
    ("flags", "avx2", "portable", "where"),
    [
        ({"avx512_bf16"}, True, False, ""),
        ({"amx_bf16"}, True, False, ""),
        ({"amx_bf16"}, True, True, "with compute.portable"),
        ({"avx2"}, True, False, "by this processor"),
        ({"bf16"}, False, True, ""),  # ARM
        (set(), False, True, "by this processor"),
    ],
)
def test_where_bfloat16_is_emulated(
    flags: set[str], avx2: bool, portable: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "flags", lambda: frozenset(flags))
    monkeypatch.setattr(processor, "_has_avx2", lambda: avx2)
    assert processor.emulates_bfloat16(portable) == where


def test_this_processor_is_read_the_same_by_the_c_library_and_the_kernel() -> None:
    if {"avx2", "fma"} <= processor.flags():
        assert processor._has_avx2()
    assert processor.machine(False).startswith(processor.platform.machine())


# -- products


def matrices(seed: int, rows: int, inputs: int, outputs: int) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    sizes = [(rows, inputs), (outputs, inputs), (outputs,), (rows, outputs)]
    return [torch.from_numpy(random.standard_normal(size, np.float32)) for size in sizes]


@pytest.mark.parametrize("seed", range(20))
def test_products_and_their_gradients_are_right(seed: int) -> None:
    _, *sizes = next(shapes(seed, 1))
    given, weight, bias, gradient = matrices(seed, *sizes)
    expected = [value.double().requires_grad_() for value in (given, weight, bias)]
    F.linear(*expected).backward(gradient.double())
    leaves = [value.clone().requires_grad_() for value in (given, weight, bias)]
    found = products.linear(*leaves)
    found.backward(gradient)
    torch.testing.assert_close(
        found.detach(), F.linear(*expected).detach().float(), rtol=1e-4, atol=1e-4
    )
    for leaf, right in zip(leaves, expected, strict=True):
        torch.testing.assert_close(leaf.grad, right.grad.float(), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        assert torch.equal(products.linear(given, weight, bias), found.detach())
        assert torch.equal(products.linear(given[0], weight, bias), found[0].detach())


def test_only_gradients_that_are_needed_are_computed() -> None:
    given, weight, *_ = matrices(1, 3, 4, 5)
    products.linear(given, weight.requires_grad_()).sum().backward()
    assert given.grad is None
    assert weight.grad is not None


@CAPPED
def test_products_do_not_depend_on_the_number_of_threads() -> None:
    found = of_products(0, SHAPES)
    assert len(found) >= 50
    assert [shape for shape, hashes in found.items() if " " in hashes] == []
    parts = of_parts()
    assert [name for name in parts if parts[name] != parts[name.replace(" 3", " 1")]] == []


@CAPPED
@pytest.mark.parametrize("seed", range(40))
def test_a_row_of_a_product_does_not_depend_on_the_others(seed: int) -> None:
    _, *sizes = next(shapes(seed, 1))
    given, weight, *_ = matrices(seed, *sizes)
    whole = products.linear(given, weight)
    for part in (slice(0, 1), slice(len(given) // 2, None), slice(0, 2)):
        assert torch.equal(products.linear(given[part], weight), whole[part])


@CAPPED
@pytest.mark.parametrize("columns", [slice(0, 3), slice(2, 5), slice(0, 6, 2)], ids=str)
def test_parts_of_matrices_are_multiplied_as_their_copies_are(
    columns: slice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For rows with gaps oneDNN has code that is right, but takes hundreds of times as long."""
    operator, seen = products._onednn(), []

    def seeing(*given: torch.Tensor | None) -> torch.Tensor:
        seen.append(given[1])
        return operator(*given)

    monkeypatch.setattr(products, "_onednn", lambda: seeing)
    given, weight, bias, gradient = matrices(0, 5, 6, 7)
    found = []
    for part in (lambda values: values[:, columns], lambda values: values[:, columns].clone()):
        leaves = [part(given).requires_grad_(), part(weight).requires_grad_(), bias.requires_grad_()]
        products.linear(*leaves).backward(gradient)
        found.append([products.linear(*leaves), *(leaf.grad for leaf in leaves[:2])])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert len(seen) == 8
    assert all(right.is_contiguous() or right.t().is_contiguous() for right in seen)


@pytest.mark.parametrize("sizes", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
def test_products_of_nothing(sizes: tuple[int, int, int]) -> None:
    given, weight, bias, _ = matrices(0, *sizes)
    assert torch.equal(products.linear(given, weight, bias), F.linear(given, weight, bias))


@pytest.mark.parametrize(
    "operators",
    [
        SimpleNamespace(),
        SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=lambda x, w: x @ w.t())),
        SimpleNamespace(mkldnn=SimpleNamespace(_linear_pointwise=lambda x, w, *_: x @ w)),
    ],
    ids=["missing", "other arguments", "other product"],
)
def test_a_torch_without_the_operator_is_slower_and_right(
    operators: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, weight, bias, gradient = matrices(0, 5, 6, 7)
    monkeypatch.setattr(processor, "_settled", processor.Settled(True))
    monkeypatch.setattr(products.torch, "ops", operators)
    products._onednn.cache_clear()
    try:
        weight.requires_grad_()
        found = [products.linear(given, weight, bias) for _ in range(3)]
        found[0].backward(gradient)
    finally:
        products._onednn.cache_clear()
    torch.testing.assert_close(found[0], F.linear(given, weight, bias))
    torch.testing.assert_close(weight.grad, gradient.t() @ given)
    told = capsys.readouterr().err
    assert told.count("operator of torch") == 1
    assert "two to four times as long" in told


@pytest.mark.parametrize("columns", [1, 2, 3, 33])
def test_gradients_of_biases_do_not_depend_on_the_number_of_threads(columns: int) -> None:
    given, weight, bias, gradient = matrices(columns, 50_000, 3, columns)
    found = set()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            leaves = [bias.clone().requires_grad_() for _ in range(2)]
            products.linear(given, weight, leaves[0]).backward(gradient)
            products.plus_bias(gradient, leaves[1]).backward(gradient)
            found |= {leaf.grad.numpy().tobytes() for leaf in leaves}
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    torch.testing.assert_close(leaves[1].grad, gradient.double().sum(dim=0).float(), atol=1e-2, rtol=0)


def test_sums_do_not_depend_on_the_number_of_threads() -> None:
    values = torch.from_numpy(np.random.default_rng(0).standard_normal(100_000, np.float32))
    weight = torch.tensor([0.3, 0.7])
    found = set()
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 4):
            torch.set_num_threads(threads)
            found.add(float(products.total(values)))
    finally:
        torch.set_num_threads(before)
    assert len(found) == 1
    assert found.pop() == pytest.approx(float(values.double().sum()), abs=1e-2)
    mean = products.weighted_sum(weight, [values, 2 * values])
    torch.testing.assert_close(mean, 1.7 * values)


# -- whole networks


@CAPPED
@pytest.mark.parametrize("subwords", [None, LETTERS])
def test_a_title_has_the_same_probabilities_alone_and_among_others(subwords: Subwords | None) -> None:
    classifier = Classifier([model(name, subwords) for name in NAMES], torch.device("cpu"))
    words = [*vocabulary().words[2:7], "xyz", "nada"]
    titles = [" ".join(some) for length in (1, 2, 3, 4) for some in product(words, repeat=length)]
    threads = torch.get_num_threads()
    among = classifier.top(titles, 3)
    try:
        for number, count in ((1, 1), (2, 2), (3, 300)):
            torch.set_num_threads(number)
            alone = classifier.top(titles[:count], 3)
            assert np.array_equal(alone.probabilities_NK, among.probabilities_NK[:count])
            assert np.array_equal(alone.categories_NK, among.categories_NK[:count])
    finally:
        torch.set_num_threads(threads)
