import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from titles.data import EncodedTitles
from titles.params import Text

# Of time that a test takes nothing follows where others run beside it.
hypothesis.settings.register_profile("beside others", deadline=None)
hypothesis.settings.load_profile("beside others")

# A shell that runs the tests in the background ignores Ctrl-C; so would what tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Each process of pytest keeps compiled loops of its own: two at once could mix up numba's cache."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        os.environ["NUMBA_CACHE_DIR"] = str(config.cache.mkdir(f"numba-{worker}"))


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
        lines=np.arange(count, dtype=np.int64) + 2,
        unknown_words=list(unknown_words),
    )


@pytest.fixture
def encode():
    """Builds encoded titles from lists of word ids; -1 is the first of `unknown_words`."""
    return encoded


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
