"""The networks of the project. Each is named here and nowhere else in the code.

To add a network: write models/<name>.py with a subclass of `Network`, name it below, give params.yaml a
section and dvc.yaml a stage. CONTRIBUTING.md walks through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from titles.models.parts.network import Network
    from titles.params import Params

_CLASSES = {
    "cnn": "titles.models.cnn:TitleCNN",
    "mlp": "titles.models.mlp:TitleMLP",
}


class _Networks(Mapping[str, "type[Network]"]):
    """Classes by name, each imported on access: no module imports a network that it does not use, and
    names are listed without importing torch."""

    def __getitem__(self, name: str) -> type[Network]:
        found: type[Network] = resolve_name(_CLASSES[name])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(_CLASSES)

    def __len__(self) -> int:
        return len(_CLASSES)


# Nothing is imported until a network is used: `titles doctor` runs without any package.
NETWORKS: Mapping[str, type[Network]] = _Networks()
AVERAGE = "average"
# Names of all that classifies titles: the networks and their average.
CLASSIFIERS = (*NETWORKS, AVERAGE)


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml, with a section for each network.

    Raises:
        ValueError: see `params.read`.
    """
    from titles import params

    return params.read(path, _schema())


def parse_params(values: dict[str, Any], name: str = "params") -> Params:
    """Check parameters that are already a mapping; `name` opens the error message.

    Raises:
        ValueError: see `params.parse`.
    """
    from titles import params

    return params.parse(values, name, _schema())


@cache
def _schema() -> type[Params]:
    from titles import params

    return params.schema({name: network.Section for name, network in NETWORKS.items()})
