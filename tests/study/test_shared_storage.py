"""A study that hosts share on PostgreSQL: exact accounting, lost workers, a server that restarts, secrets kept."""

import multiprocessing
import os
import resource
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from optuna.trial import TrialState
from sqlalchemy import event, make_url, text
from trivial import Integers, Order, values, work

from memcontrol.errors import MemControlError, RunError
from memcontrol.run import RunFolder
from memcontrol.study import shared as shared_module
from memcontrol.study.claims import LostClaimError
from memcontrol.study.execution import Execution
from memcontrol.study.storage import has_password, name_storage, shown_url

QUICK = {"heartbeat_s": 1, "grace_s": 30}


pytestmark = pytest.mark.usefixtures("errors_only")


@pytest.fixture
def order(tmp_path, storage, request):
    """Hosts that share nothing but the server."""
    name = request.node.name.replace("[", "-").rstrip("]")[-90:]
    RunFolder(tmp_path / "run").prepare()
    return Order(tmp_path / "run", budget=6, size=100, execution=Execution(name, **QUICK))


@pytest.fixture
def local(tmp_path):
    """The same in a folder."""
    RunFolder(tmp_path / "run").prepare()
    return Order(tmp_path / "run", budget=6, size=100, execution=Execution(**QUICK))


def heard(trial):
    return SimpleNamespace(trial=trial)


def finish(study, trial):
    return study.end(heard(trial), {"worker": 0}, values(trial.params["x"]))


def states(study):
    return [trial.state.name for trial in study.trials()]


def fall_silent(study, trial):
    """As if a worker had not been heard of for a minute: its beat lies in the past."""
    shift = {"sqlite": "datetime(heartbeat, '-60 seconds')", "postgresql": "heartbeat - interval '60 seconds'"}
    engine = study.database.storage.engine
    with engine.begin() as connection:
        statement = f"UPDATE trial_heartbeats SET heartbeat = {shift[engine.name]} WHERE trial_id = :trial"
        connection.execute(text(statement), {"trial": trial._trial_id})


# The same on a server and in a folder


@pytest.mark.parametrize("kind", ["order", "local"])
def test_a_lost_workers_trial_is_tried_again_and_its_late_result_dropped(kind, request):
    study = Integers(request.getfixturevalue(kind))
    lost, other = study.claim(), study.claim()
    fall_silent(study, lost)
    again = study.claim()
    assert (again.number, again.params) == (2, lost.params)
    assert not finish(study, lost), "another worker has it"
    assert finish(study, other)
    assert finish(study, again)
    assert finish(study, again), "said twice, as after a broken connection, it is counted once"
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize("kind", ["order", "local"])
def test_a_trial_that_takes_its_workers_with_it_is_given_up(kind, request):
    study = Integers(request.getfixturevalue(kind))
    poison = study.claim()
    for _ in range(shared_module.RETRIES):
        fall_silent(study, poison)
        before, poison = poison.params, study.claim()
        assert poison.params == before
    fall_silent(study, poison)
    following = study.claim()
    assert following.params["x"] == poison.params["x"] + 1, "it does not come again, not even as a new proposal"
    assert states(study) == ["FAIL"] * 4 + ["RUNNING"]


@pytest.mark.parametrize("kind", ["order", "local"])
def test_a_slow_worker_that_beats_keeps_its_trial(kind, request):
    study = Integers(request.getfixturevalue(kind))
    trial = study.claim()
    fall_silent(study, trial)
    with study.working_on(heard(trial)) as beat:
        time.sleep(3)
        beat.check()
        assert Integers(study.order).claim().params != trial.params
    assert finish(study, trial)


def test_what_was_enqueued_by_hand_comes_first_and_once(local):
    study = Integers(local)
    study.enqueue([{"x": 7}, {"x": 5}, {"x": 7}])
    study.study.enqueue_trial({"x": 5})
    taken = [study.claim() for _ in range(3)]
    assert [trial.params["x"] for trial in taken] == [7, 5, 0]
    assert "for the same candidate" in study.trials()[2].user_attrs["error"]


# On a server


def test_hosts_at_once_run_exactly_the_budget_and_nothing_twice(order):
    Integers(order)

    def work_until_none(number):
        study = Integers(order)
        while (trial := study.claim()) is not None:
            finish(study, trial)
        study.database.rest()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work_until_none, range(4)))
    study = Integers(order)
    assert states(study) == ["COMPLETE"] * order.budget
    assert len({trial.params["x"] for trial in study.trials()}) == order.budget
    assert study.claim() is None


def test_who_lost_the_lock_writes_nothing_more(order, server):
    study = Integers(order)
    other = Integers(order)
    with study.lock:
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        trial = other.claim()  # the lock is free again
        with pytest.raises(LostClaimError):
            study.queue({"x": 50}, study.distributions(), {})
    assert [one.params["x"] for one in study.trials()] == [trial.params["x"]]
    assert study.claim().params["x"] == 1


def test_a_claim_outlasts_a_restart_of_the_server(order, server):
    study = Integers(order)
    first = study.claim()
    server.restart()
    second = study.claim()
    server.restart()
    assert finish(study, first)
    assert finish(study, second)
    assert states(study) == ["COMPLETE"] * 2


def test_killed_and_stopped_workers_lose_nothing_and_count_nothing_twice(order, server):
    """Four workers: one is killed, one stopped past its grace and continued; the server restarts."""
    execution = Execution(order.execution.study, heartbeat_s=1, grace_s=4)
    order = Order(order.folder, budget=12, size=12, seconds=0.6, execution=execution)
    study, context = Integers(order), multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(order, n, "cpu", print_nothing), daemon=True) for n in range(4)]
    for process in workers:
        process.start()
    for process, kind in zip(workers, (signal.SIGKILL, signal.SIGSTOP), strict=False):
        wait_until(lambda pid=process.pid: pid in running_of(study))
        os.kill(process.pid, kind)
    wait_until(lambda: not running_of(study) & {workers[0].pid, workers[1].pid})
    server.restart()
    os.kill(workers[1].pid, signal.SIGCONT)
    for process in workers:
        process.join(timeout=120)
    assert [process.exitcode for process in workers] == [-signal.SIGKILL, 0, 0, 0]
    done = [trial for trial in study.trials() if trial.state == TrialState.COMPLETE]
    assert sorted(trial.params["x"] for trial in done) == list(range(12))
    assert all(trial.values == values(trial.params["x"]) for trial in done)
    assert states(study).count("FAIL") >= 2


def test_workers_on_one_file_outlive_one_of_them_with_an_exact_budget(local):
    """Four workers on SQLite, one killed inside a trial: what it had is scored by another."""
    order = replace(local, budget=10, size=40, seconds=0.5, execution=Execution(heartbeat_s=1, grace_s=4))
    study, context = Integers(order), multiprocessing.get_context("spawn")
    workers = [context.Process(target=work, args=(order, n, "cpu", print_nothing), daemon=True) for n in range(4)]
    for process in workers:
        process.start()
    killed = workers[0].pid
    wait_until(lambda: killed in running_of(study))
    os.kill(killed, signal.SIGKILL)
    for process in workers:
        process.join(timeout=120)
    assert [process.exitcode for process in workers] == [-signal.SIGKILL, 0, 0, 0]
    trials = study.trials()
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert len(done) == len({trial.params["x"] for trial in done}) == order.budget
    assert all(trial.values == values(trial.params["x"]) for trial in done)
    [lost] = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert lost.user_attrs["claimed by"].endswith(f":{killed}")
    assert lost.params["x"] in {trial.params["x"] for trial in done}


def print_nothing(event):
    pass


def running_of(study):
    """The processes that have a trial."""
    by = [trial.user_attrs.get("claimed by") for trial in study.trials() if trial.state == TrialState.RUNNING]
    return {int(name.partition(":")[2]) for name in by if name}


def wait_until(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_another_identity_is_refused_by_study_and_place(order, server):
    Integers(order)
    with pytest.raises(RunError, match="seed was 0, now 1") as refused:
        Integers(order, {"seed": "1"})
    assert f"study {order.execution.study} in postgresql://127.0.0.1:{server.port}/postgres holds" in str(refused.value)


def test_a_server_that_refuses_is_one_line_without_the_password(order, server, monkeypatch):
    monkeypatch.setattr("memcontrol.study.storage.PATIENCE_S", 0.0)
    url = make_url(server.url)
    monkeypatch.setenv("OPTUNA_STORAGE", url.set(password="wrong-word").render_as_string(hide_password=False))
    with pytest.raises(RunError, match="cannot use the study in postgresql://127") as refused:
        Integers(order)
    assert "wrong-word" not in str(refused.value)
    assert "\n" not in str(refused.value)


# Secrets and names


def test_a_storage_is_named_by_option_file_or_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://env/db")
    assert name_storage(None).host == "env"
    (tmp_path / "url").write_text("postgresql+psycopg://me:word@filed/db\n")
    assert name_storage(None, tmp_path / "url").host == "filed"
    assert name_storage("postgres://given:5432/db").drivername == "postgresql+psycopg"
    assert os.environ["OPTUNA_STORAGE"] == "postgresql+psycopg://given:5432/db", "for processes that are started later"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///secret.db", "a storage of kind sqlite: hosts share a study through PostgreSQL"),
        ("secret", "the storage is no database URL: expected postgresql"),
        ("postgresql://u:secret@host:port/db", "the storage is no database URL"),
        ("", "the storage is no database URL"),
    ],
)
def test_a_storage_that_hosts_cannot_share_is_refused_without_repeating_it(url, message, monkeypatch):
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    with pytest.raises(MemControlError, match=message) as refused:
        name_storage(url)
    assert "secret" not in str(refused.value)


def test_what_is_shown_of_a_url_holds_no_secret():
    url = make_url("postgresql+psycopg://user:word@host:99/db?password=other&sslmode=require")
    assert shown_url(url) == "postgresql://host:99/db"
    assert has_password("postgresql://u:p@h/d")
    assert has_password("postgresql://h/d?password=p")
    assert not has_password("postgresql://u@h/d")


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 101])
def test_a_studys_name_is_a_plain_one(name):
    with pytest.raises(MemControlError, match=r"--study .*: expected letters"):
        Execution(name)


def test_a_study_that_cannot_be_written_is_one_line(local):
    study = Integers(local)
    study.claim()
    study.database.storage.engine.dispose()
    local.folder.joinpath("study.db").write_bytes(b"this is no database any more" * 200)
    with pytest.raises(RunError, match=r"cannot use the study in .*study\.db \(.*not a database"):
        study.claim()


# A storage that cannot be written


@contextmanager
def full_disk(study):
    """No file may grow beyond the study's size: as on a full disk, writes fail."""
    size = study.order.folder.joinpath("study.db").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_free_page(study):
    """SQLite may not take another page, which it calls a full disk."""

    def limit(connection, _record):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    with on_connect(study, limit):
        yield


@contextmanager
def read_only(study):
    """SQLite may not write."""
    with on_connect(study, lambda connection, _record: connection.execute("PRAGMA query_only = on")):
        yield


@contextmanager
def on_connect(study, act):
    engine = study.database.storage.engine
    study.database.storage.remove_session()
    engine.dispose()
    event.listen(engine, "connect", act)
    try:
        yield
    finally:
        event.remove(engine, "connect", act)
        study.database.storage.remove_session()
        engine.dispose()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (full_disk, "disk I/O error|database or disk is full"),
        (no_free_page, "database or disk is full"),
        (read_only, "attempt to write a readonly database"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line_and_the_study_goes_on_later(local, broken, why):
    study = Integers(local)
    finish(study, study.claim())
    with broken(study), pytest.raises(RunError, match=why) as refused:
        finish_with_much_to_say(study)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"cannot use the study in {local.folder / 'study.db'} (")
    later = Integers(replace(local, budget=3))
    assert states(later) in (["COMPLETE"], ["COMPLETE", "WAITING"], ["COMPLETE", "RUNNING"])
    later.release_running()
    while (trial := later.claim()) is not None:
        assert finish(later, trial)
    complete = [trial for trial in later.trials() if trial.state == TrialState.COMPLETE]
    assert sorted(trial.params["x"] for trial in complete) == [0, 1, 2]
    assert all(trial.values == values(trial.params["x"]) for trial in complete)


def finish_with_much_to_say(study):
    study.end(heard(trial := study.claim()), {"told": "much" * 50_000}, values(trial.params["x"]))


def test_a_server_that_takes_no_writes_is_one_line_and_the_study_goes_on_later(order, server):
    study = Integers(order)
    finish(study, study.claim())
    server.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        study.database.rest()
        began = time.monotonic()
        with pytest.raises(RunError, match=r"cannot use the study in postgresql://.*read-only transaction"):
            study.claim()
        assert time.monotonic() - began < 60, "nothing that passes by itself is waited for"
    finally:
        server.execute("BEGIN READ WRITE; ALTER DATABASE postgres RESET default_transaction_read_only; COMMIT")
    study.database.rest()
    later = Integers(order)
    while (trial := later.claim()) is not None:
        assert finish(later, trial)
    assert states(later) == ["COMPLETE"] * order.budget


def test_a_claim_reads_all_trials_only_after_a_change(local, monkeypatch):
    study, reads = Integers(replace(local, budget=50)), []
    for _ in range(4):
        finish(study, study.claim())
    read = study.trials

    def counted():
        reads.append(1)
        return read()

    monkeypatch.setattr(study, "trials", counted)
    study.claim()
    assert len(reads) <= 4
