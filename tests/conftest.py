import titles  # noqa: F401, first: numpy and torch read the settings that it makes

# isort: split
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import numba
import numpy as np
import pytest
from filelock import FileLock, Timeout
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

import small_project
from titles.data.encoded import EncodedTitles
from titles.params import Text

# Files in the order in which they start, so that no process is left with a long one at the end. Those
# that are not named follow, and files whose tests start nothing come last.
LONGEST_FIRST = (
    "test_queue",
    "test_search_pipeline",
    "test_crashes",  # to be done while another process builds what most others copy
    "test_doctor",
    "test_recipes",
    "test_mlflow_store",
    "test_mlflow_registry",
    "test_remotes",
    "test_resume_pipeline",
    "test_pipeline",
    "test_concurrency",
    "test_determinism",
    "test_report_pipeline",
    "test_objects",
    "test_serving",
    "test_demo",
    "test_distributed",
)
# Seconds for a test of `make test-all` alone; for others see pyproject.toml.
LONG = 3000

# What tests expect is in English, on a machine of any language.
os.environ["TITLES_LANG"] = "en"

# Of time that a test takes nothing follows where others run beside it.
hypothesis.settings.register_profile("beside others", deadline=None)
hypothesis.settings.load_profile("beside others")

# A shell that runs the tests in the background ignores Ctrl-C; so would what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Each process of pytest keeps compiled loops in a folder of its own, the first that no other uses:
    two at once could mix up numba's cache. What a test starts keeps them beside its code.
    """
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        pytest.exit(f"error: tests need a folder to write to; name one with TMPDIR: {error}", 4)
    for number in count():
        try:
            place = config.cache.mkdir(f"numba-{number}")
            lock = FileLock(place / "in-use.lock", blocking=False)
            lock.acquire()
        except Timeout:
            continue
        except OSError:  # a checkout that cannot be written to
            place = Path(tempfile.mkdtemp(prefix="numba-", dir=folder))
        else:
            config.add_cleanup(lock.release)
        numba.config.CACHE_DIR = str(place)
        return


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files of which no test is wanted are not even imported, which takes seconds for some."""
    unwanted = re.fullmatch(r"not (\w+)(?: and not (\w+))*", config.option.markexpr)
    if not collection_path.match("test_*.py") or not unwanted:
        return None
    marks = re.findall(r"^pytestmark = .*", collection_path.read_text(encoding="utf-8"), re.M)
    return any(f"pytest.mark.{mark}" in " ".join(marks) for mark in unwanted.groups() if mark) or None


def pytest_itemcollected(item: pytest.Item) -> None:
    """Browsers are for `make test-all`, whose tests have more time."""
    if "browser" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.endures)
    if item.get_closest_marker("endures") and not item.get_closest_marker("timeout"):
        item.add_marker(pytest.mark.timeout(LONG))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, those that start nothing last."""
    starting = {item.path for item in items if item.get_closest_marker("pipeline")}

    def place(item: pytest.Item) -> tuple[bool, int]:
        name = item.path.stem
        rank = LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)
        return item.path not in starting, rank

    items.sort(key=place)


class Scheduler(LoadFileScheduling):
    """Gives the tests of a file, which share what is made for them, to one process; and no test again to
    another process that one has died of: xdist does, until no process is left."""

    def remove_node(self, node: WorkerController) -> str | None:
        files = self.assigned_work.get(node, {})
        left = [(file, test) for file in files for test, done in files[file].items() if not done]
        if not left:
            super().remove_node(node)
            return None
        file, dying = left[0]
        files[file][dying] = True
        for name in [name for name, tests in files.items() if all(tests.values())]:
            del files[name]  # another process would wait for the end of nothing
        super().remove_node(node)
        return str(dying)


@pytest.hookimpl(optionalhook=True)  # without xdist there is none
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduler | None:
    return Scheduler(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True, scope="module")
def same_folder() -> Iterator[None]:
    """A file of tests leaves the current folder as it was: others depend on it."""
    before = Path.cwd()
    yield
    assert Path.cwd() == before


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project, run; one for all processes, changed by none: see `small_project.make_base`."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    return small_project.once(place / "base", small_project.make_base)


@pytest.fixture
def text_settings():
    """Settings under which words stay nearly as they were written."""
    return Text(
        strip_accents=True, digits="keep", drop_seller_noise=False, max_title_chars=60, max_words=7
    )


def encoded(rows, labels=None, unknown_words=()):
    count = len(rows)
    return EncodedTitles(
        word_ids=np.array([number for row in rows for number in row], np.int32),
        ends=np.cumsum([len(row) for row in rows], dtype=np.int64),
        labels=np.array(labels if labels is not None else [0] * count, np.int32),
        languages=np.arange(count, dtype=np.uint8) % 3,
        qualities=np.arange(count, dtype=np.uint8) % 2,
        keys=np.arange(count, dtype=np.uint64) + 77,
        files=np.zeros(count, np.uint32),
        lines=np.arange(count, dtype=np.int64) + 2,
        unknown_words=list(unknown_words),
        file_names=["listing.csv"],
    )


@pytest.fixture
def encode():
    """Builds encoded titles from lists of word ids; -1 is the first of `unknown_words`."""
    return encoded


@pytest.fixture(scope="module")
def synced(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project whose experiments MLflow has, and what `titles mlflow sync` said."""
    import mlflow_project

    project = mlflow_project.unheard(base, tmp_path_factory.mktemp("mlflow"))
    return project, mlflow_project.titles(project, "mlflow", "sync")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    missing = "NOT RUN in a browser: install chromium, and playwright with pip, to include it"
    playwright = pytest.importorskip("playwright.sync_api", reason=missing)
    with playwright.sync_playwright() as started:
        own = started.chromium.executable_path
        names = ("chromium", "chromium-browser", "google-chrome")
        found = own if Path(own).exists() else next(filter(None, map(shutil.which, names)), None)
        if found is None:
            pytest.skip(missing)
        browser = started.chromium.launch(executable_path=found)
        yield browser
        browser.close()
