"""Requests to end a process that come while it starts others: none of those runs on unnoticed."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from joblib.externals.loky import process_executor

from titles.data.interrupts import undisturbed
from titles.datasets.sample import write_csv
from titles.doctor import probes
from titles.experiments import commands, verify
from titles.experiments.search import task as tasks
from titles.prepare.workers import pool

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(params=SIGNALS, ids=lambda number: number.name)
def asked(request):
    """A signal whose handler raises KeyboardInterrupt in the main thread, as that of SIGINT does."""
    before = signal.signal(request.param, signal.default_int_handler)
    yield request.param
    signal.signal(request.param, before)


@pytest.fixture
def started(monkeypatch, asked):
    """The processes that Popen has started; the signal comes as soon as each of them runs."""
    found = []

    class Interrupted(subprocess.Popen):
        def _execute_child(self, *given, **named):
            super()._execute_child(*given, **named)
            found.append(psutil.Process(self.pid))
            signal.raise_signal(asked)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    return found


def assert_ended(started):
    assert started
    assert psutil.wait_procs(started, 5)[1] == []


# -- undisturbed


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_the_block(number):
    told = []
    before = signal.signal(number, lambda *_: told.append("handled"))
    try:
        with undisturbed():
            signal.raise_signal(number)
            told.append("work")
        assert told == ["work", "handled"]
        signal.raise_signal(number)
        assert told == ["work", "handled", "handled"]
    finally:
        signal.signal(number, before)


def test_an_error_of_the_block_gives_way_to_the_request_and_stays_its_context(asked):
    def work():
        with undisturbed():
            signal.raise_signal(asked)
            raise OSError("from the block")

    with pytest.raises(KeyboardInterrupt) as caught:
        work()
    assert isinstance(caught.value.__context__, OSError)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with undisturbed():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_signals_alone():
    def work():
        with undisturbed():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(work).result() is signal.getsignal(signal.SIGINT)


# -- processes that have just started


def test_a_trial_that_has_just_started_is_ended(started, monkeypatch, tmp_path):
    monkeypatch.setattr(tasks, "_START", "import time; time.sleep(60)")
    task = tasks.Task("t", tmp_path, "HEAD", [], tmp_path / "t")
    with pytest.raises(KeyboardInterrupt):
        list(tasks.together(iter([task, None]).__next__, 1, lambda _: None))
    assert_ended(started)


def test_dvc_that_has_just_started_is_waited_for(started):
    with pytest.raises(KeyboardInterrupt):
        commands.dvc("version")
    assert all(not process.is_running() for process in started)


def test_a_verification_that_has_just_started_is_ended(started, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        verify._repro([], tmp_path)
    assert_ended(started)


def test_a_probe_that_has_just_started_is_ended(started, monkeypatch):
    monkeypatch.setitem(probes.TIMEOUTS, "sleep", 60.0)
    with pytest.raises(KeyboardInterrupt):
        probes.run(None, "sleep", "60")
    assert_ended(started)


# -- pools of workers


@pytest.fixture
def starting(monkeypatch, asked):
    """The signal comes while the thread that watches over a pool's workers starts."""
    start = process_executor._ExecutorManagerThread.start

    def interrupted(self):
        signal.raise_signal(asked)
        start(self)

    monkeypatch.setattr(process_executor._ExecutorManagerThread, "start", interrupted)


@pytest.mark.usefixtures("starting")
def test_a_pool_that_starts_ends_whole():
    with pytest.raises(KeyboardInterrupt), pool() as (executor, _):
        executor.submit(int).result()


@pytest.mark.usefixtures("starting")
def test_a_sample_whose_workers_start_ends_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_csv(100_000, 1, tmp_path / "out.csv", progress=False, workers=2)
    assert list(tmp_path.iterdir()) == []
