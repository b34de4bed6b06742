"""The same results to the byte on every x86-64 processor with AVX2, and the class of machine of a run.

Numpy, torch and their libraries choose the fastest code for the processor that they find, and each
choice rounds differently. With compute.portable they are kept to code that all these processors have.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Collection, Mapping, MutableMapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from titles.data.messages import printable

# Read by the libraries when they are imported or first used, never again.
_SETTINGS = {
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its matrix products, see models/parts/products.py
    "MKL_CBWR": "COMPATIBLE",  # its exp and log; processors not of Intel ignore AVX2 here
    "OPENBLAS_CORETYPE": "Haswell",  # products of numpy, and those of scipy, by which gensim trains
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # numpy's own loops
}
# Numpy refuses to be imported if both are set.
_RIVALS = {"NPY_DISABLE_CPU_FEATURES": "NPY_ENABLE_CPU_FEATURES"}
# Names the settings that this process, or one before it, has put into the environment.
_MARK = "TITLES_PORTABLE"

PORTABLE_CLASS = "x86-64 with AVX2"


class Settled(NamedTuple):
    """portable: whether results are those of `PORTABLE_CLASS`, as far as this process decides.
    conflicts: why they may not be, though it is wanted."""

    portable: bool
    conflicts: tuple[str, ...] = ()


def settle(
    environment: MutableMapping[str, str], wanted: bool, capable: bool, loaded: Collection[str]
) -> Settled:
    """Put the settings into an environment, or take out those that a process before put there.

    Args:
        wanted: compute.portable. capable: whether the processor has AVX2 and FMA; others crash with
            these settings. loaded: modules that are imported already.
    """
    if not (wanted and capable):
        for name in environment.pop(_MARK, "").split():
            environment.pop(name, None)
        return Settled(False)
    conflicts = []
    passed = all(environment.get(name) == value for name, value in _SETTINGS.items())
    if not passed:
        early = [name for name in ("numpy", "torch") if name in loaded]
        conflicts += [f"{name} was imported before titles" for name in early]
    for name, value in _SETTINGS.items():
        given = next((n for n in (name, _RIVALS.get(name, "")) if n in environment), None)
        if given and environment[given] != value:
            conflicts.append(f"{given}={printable(environment[given])} is set in the environment")
        elif not given:
            environment[name] = value
            environment[_MARK] = f"{environment.get(_MARK, '')} {name}".strip()
    return Settled(True, tuple(conflicts))


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment as it was before the settings: for code of an older version, which makes none."""
    kept = dict(environment)
    settle(kept, wanted=False, capable=False, loaded=())
    return kept


def portable() -> bool:
    """Whether this process computes as all processors of `PORTABLE_CLASS` do."""
    return _settled.portable


def check(wanted: bool) -> None:
    """Refuse to compute outputs that would not be those that compute.portable promises.

    Raises:
        ValueError: the process was started with other settings; the message names them.
    """
    problems = list(_settled.conflicts)
    if wanted and not _settled.portable and _has_avx2():
        problems.append("params.yaml in the folder where Python started has compute.portable: false")
    if wanted and problems:
        raise ValueError(
            f"{'; '.join(problems)}: with compute.portable results must not depend on that. Undo it, or "
            "set compute.portable to false"
        )


def conflicts() -> tuple[str, ...]:
    """Why results of this process may not be those of `PORTABLE_CLASS`, though it is wanted."""
    return _settled.conflicts


def machine(wanted: bool, gpu: str = "") -> str:
    """The class of machines that give the same results as this one, to the byte.

    Args:
        wanted: compute.portable. gpu: name of the GPU that computes, "" if the processor does.
    """
    if gpu:
        return f"GPU {gpu}"
    if wanted and _has_avx2():
        return PORTABLE_CLASS
    kinds = [kind for kind in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if kind in flags()]
    return ", ".join(dict.fromkeys([platform.machine(), model_name(), *kinds]))


def emulates_bfloat16(wanted: bool) -> str:
    """Why matrix products in bfloat16 are emulated, which makes them slow; "" if they are not.

    Args:
        wanted: compute.portable.
    """
    if wanted and _has_avx2():
        return "with compute.portable"
    return "" if flags() & {"avx512_bf16", "amx_bf16", "bf16"} else "by this processor"


@cache
def _has_avx2() -> bool:
    """Whether the processor has AVX2 and FMA."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        # glibc 2.33 and later ask the processor. /proc/cpuinfo is that of the host in an emulator.
        leaf = ctypes.CDLL(None).__x86_get_cpuid_feature_leaf
        leaf.restype = ctypes.POINTER(ctypes.c_uint32 * 8)  # eax, ebx, ecx, edx; then those in use
        return bool(leaf(0).contents[6] >> 12 & 1 and leaf(1).contents[5] >> 5 & 1)
    except (AttributeError, OSError, TypeError, ValueError):
        return {"avx2", "fma"} <= flags()


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def flags() -> frozenset[str]:
    """The extensions of the processor, by the names of Linux; empty where they are not known."""
    found = _cpuinfo()
    return frozenset((found.get("flags") or found.get("Features", "")).split())


def model_name() -> str:
    """The processor's name, as far as it is known."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def _wanted() -> bool:
    """compute.portable of the project in the current folder; true, its default, if there is none."""
    try:
        from titles.data.documents import read_yaml  # `titles doctor` runs without yaml

        return bool(read_yaml(Path("params.yaml"))["compute"]["portable"])
    except Exception:  # that the file is missing or wrong is for those who read all of it
        return True


def _settle_this_process() -> Settled:
    found = settle(os.environ, _wanted(), _has_avx2(), sys.modules.keys())
    if found.conflicts:
        warnings.warn(
            f"{'; '.join(found.conflicts)}: results can differ in their last digits from those of other "
            "processors",
            RuntimeWarning,
            stacklevel=3,
        )
    return found


_settled = _settle_this_process()
