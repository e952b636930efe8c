"""Searches that hosts share: what is written where, what is kept of a lost trial, and what the options refuse."""

import json
import logging
import resource
import threading
import time
import urllib.request
from types import SimpleNamespace
from typing import ClassVar
from wsgiref.simple_server import WSGIRequestHandler, make_server

import numpy as np
import optuna
import pytest
from sqlalchemy.pool import NullPool
from trivial import Integers, Order, values, work
from typer.testing import CliRunner

from memcontrol.cli import app
from memcontrol.errors import MemControlError, RunError
from memcontrol.run import RunFolder
from memcontrol.study import search as search_module
from memcontrol.study import worker as worker_module
from memcontrol.study.artifacts import artifact_store
from memcontrol.study.cluster import Cluster, ClusterWorker, run_on_cluster
from memcontrol.study.events import Finished, Note
from memcontrol.study.execution import Execution
from memcontrol.study.heartbeat import TrialTimeoutError
from memcontrol.study.kept_training import KeptTraining
from memcontrol.study.ledger import open_ledger
from memcontrol.study.search import search
from memcontrol.study.shared import was_interrupted
from memcontrol.study.status import status_of
from memcontrol.study.telling import Teller
from memcontrol.study.trial import Laboratory
from memcontrol.study.worker import Worker

NOTHING = {"trajectory_rates": ()}


def run(*args, **environment):
    return CliRunner().invoke(app, [str(arg) for arg in args], env=environment or None)


def changed(config, **values):
    return config.model_copy(update={"search": config.search.model_copy(update={**NOTHING, **values})})


def unconfirmed(config):
    return config.model_copy(update={"confirm": config.confirm.model_copy(update={"seeds": 0})})


def ignored(event):
    pass


# A whole search on a server


@pytest.fixture(scope="module")
def shared(small_config, server, tmp_path_factory):
    """Two hosts, one after the other, that share no folder; the second finds the first half done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTUNA_STORAGE", server.url)
        hosts = [tmp_path_factory.mktemp("host") for _ in range(2)]
        execution = Execution("shared", artifacts=str(tmp_path_factory.mktemp("artifacts")))
        heard = []
        for budget, folder in zip((2, 4), hosts, strict=True):
            config = changed(small_config, budget=budget)
            result = search(config, folder / "run", workers=1, execution=execution, listener=heard.append)
        yield SimpleNamespace(
            hosts=hosts, result=result, heard=heard, execution=execution, server=server, config=config
        )


def test_a_host_that_joins_goes_on_to_the_same_total(shared, small_config, tmp_path):
    alone = search(changed(small_config, budget=4), tmp_path / "alone", workers=1)
    assert shared.result.front["trials"] == {"complete": 4}
    for key in ("front", "hypervolume", "reference_point"):
        ours, theirs = (json.loads(json.dumps(front[key])) for front in (shared.result.front, alone.front))
        assert ours == theirs
    masks = sorted(path.name for path in (shared.hosts[1] / "run" / "masks").iterdir())
    assert masks == [f"trial-{number:03d}.json" for number in range(4)], "those that the other host trained, too"
    assert (shared.hosts[1] / "run" / "references" / "freeze.json").exists()


def test_no_password_stands_in_any_file_of_a_run(shared):
    secret = shared.server.password.encode()
    files = [path for folder in shared.hosts for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        content = path.read_bytes()
        assert secret not in content
        assert b"postgresql" not in content
    assert not any(shared.server.password in str(event) for event in shared.heard)


def test_pictures_are_kept_as_artifacts(shared):
    storage = optuna.storages.RDBStorage(shared.server.url, engine_kwargs={"poolclass": NullPool})
    study = optuna.load_study(study_name="shared", storage=storage)
    [meta] = optuna.artifacts.get_all_artifact_meta(study_or_trial=study.trials[0], storage=storage)
    with artifact_store(shared.execution.artifacts).open_reader(meta.artifact_id) as kept:
        assert kept.read() == (shared.hosts[0] / "run" / "samples" / "trial-000.png").read_bytes()


def test_status_of_a_shared_study_says_how_far_it_is(shared, monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", shared.server.url)
    found = status_of(RunFolder(shared.hosts[0]), shared.execution)
    assert (found.budget, found.trials, found.references) == (4, {"complete": 4}, {"complete": 1})
    assert found.objectives == shared.config.scoring.objectives
    assert {number for number, _ in found.front} == {member["trial"] for member in shared.result.front["front"]}
    assert found.seconds_left == 0
    told = run("status", "--study", "shared")
    assert told.exit_code == 0, told.output
    assert "trials: 4 of 4 done (4 complete)" in told.stdout
    assert f"study shared in postgresql://127.0.0.1:{shared.server.port}/postgres" in told.stdout
    assert json.loads(run("status", "--study", "shared", "--json").stdout)["trials"] == {"complete": 4}
    missing = run("status", "--study", "another")
    assert missing.exit_code == 1
    assert "no study another in postgresql://127.0.0.1" in missing.stderr
    assert "(studies: " in missing.stderr


def test_optunas_dashboard_shows_the_study_and_its_front(shared):
    dashboard = pytest.importorskip("optuna_dashboard")
    storage = optuna.storages.RDBStorage(shared.server.url, engine_kwargs={"poolclass": NullPool})
    served = make_server("127.0.0.1", 0, dashboard.wsgi(storage), handler_class=SilentHandler)
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    try:
        base = f"http://127.0.0.1:{served.server_port}/api/studies"
        named = {study["study_name"]: study["study_id"] for study in answered(base)["study_summaries"]}
        study = answered(f"{base}/{named['shared']}?after=0")
    finally:
        served.shutdown()
        served.server_close()
        thread.join()
    assert {trial["number"] for trial in study["best_trials"]} == {
        member["trial"] for member in shared.result.front["front"]
    }
    assert study["objective_names"] == list(shared.config.scoring.objectives)


class SilentHandler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


def answered(url):
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.loads(answer.read())


# A trial that is tried again


class StopAtError(Exception):
    pass


def test_a_trial_that_is_tried_again_goes_on_to_the_same_scores(laboratory, tmp_path):
    groups = laboratory.candidates.trained((1, 1, 0))

    def evaluated(kept, until=None):
        seen = []

        def told(phase, done, total):
            if phase == "tune":
                seen.append(done)
            if done == until:
                raise StopAtError

        try:
            return laboratory.evaluate(groups, 1e-3, 6, told, kept=kept), seen
        except StopAtError:
            return None, seen

    whole, _ = evaluated(None)
    identity, make = {"candidate": "110"}, laboratory.accelerator
    lost = KeptTraining(tmp_path / "kept", "trial-000", identity, make, every_s=1e-9)
    assert evaluated(lost, until=5) == (None, [1, 2, 3, 4, 5])
    again = KeptTraining(tmp_path / "kept", "trial-001", identity, make, every_s=1e-9)
    assert again.step == 4
    resumed, seen = evaluated(again)
    assert seen == [4, 5, 6], "the step that was kept is told once more"
    assert resumed.scores == whole.scores
    assert (resumed.loss, resumed.steps) == (whole.loss, whole.steps)
    assert np.array_equal(resumed.images, whole.images)
    again.clear()
    assert not (tmp_path / "kept").exists()


def test_a_lost_worker_costs_no_more_than_since_the_last_checkpoint(small_config, laboratory, tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    shared = {"frozen": laboratory.frozen, "dataset": laboratory.dataset}
    laboratory = Laboratory(changed(small_config, budget=1), cache=laboratory.frozen.cache, device="cpu", **shared)
    execution, steps = Execution(checkpoint_every_s=1e-9), []
    evaluate = Laboratory.evaluate

    def killed(self, *args, **options):
        def dying(phase, done, total):
            if phase == "tune" and done == 4:
                raise KeyboardInterrupt

        return evaluate(self, *args[:3], dying, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Laboratory, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            Worker(laboratory, folder, 0, ignored, execution).run()

    def counted(self, *args, **options):
        def told(phase, done, total):
            if phase == "tune":
                steps.append(done)

        return evaluate(self, *args[:3], told, **options)

    monkeypatch.setattr(Laboratory, "evaluate", counted)
    heard = []
    Worker(laboratory, folder, 0, heard.append, execution).run()
    assert steps == [3, 4, 5, 6]
    assert "trial 1 goes on from step 3" in [event.text for event in heard if isinstance(event, Note)]
    book = open_ledger(laboratory, folder, execution)
    assert [trial.state.name for trial in book.trials()] == ["FAIL", "COMPLETE"]
    assert not list((folder.path / "unfinished").iterdir())


def test_an_interrupt_while_a_kept_training_is_read_gives_the_trial_back(
    small_config, laboratory, tmp_path, monkeypatch
):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    shared = {"frozen": laboratory.frozen, "dataset": laboratory.dataset}
    laboratory = Laboratory(changed(small_config, budget=1), cache=laboratory.frozen.cache, device="cpu", **shared)

    def interrupted(*args, **given):
        raise KeyboardInterrupt

    monkeypatch.setattr(worker_module, "KeptTraining", interrupted)
    monkeypatch.setattr(worker_module, "reference_names", lambda _: ())
    execution = Execution(checkpoint_every_s=60)
    with pytest.raises(KeyboardInterrupt):
        Worker(laboratory, folder, 0, ignored, execution).run()
    (trial,) = open_ledger(laboratory, folder, execution).trials()
    assert (trial.state.name, was_interrupted(trial)) == ("FAIL", True)


def test_a_search_whose_disk_is_full_is_one_line_and_goes_on_later(small_config, laboratory, tmp_path, monkeypatch):
    shared = {"frozen": laboratory.frozen, "dataset": laboratory.dataset}
    monkeypatch.setattr(search_module, "Laboratory", lambda config, **given: Laboratory(config, **given | shared))
    out, settings = tmp_path / "run", tmp_path / "config.yaml"
    settings.write_text(unconfirmed(small_config).to_yaml())
    command = ["search", "--config", settings, "--workers", "1", "--out", out]
    first = run(*command, "--budget", "1")
    assert first.exit_code == 0, first.output
    kept = (out / "front.json").read_text()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (out.joinpath("study.db").stat().st_size, before[1]))
    try:
        result = run(*command, "--budget", "3")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert result.exit_code == 1, result.output
    assert "cannot use the study in" in result.stderr or "cannot write to" in result.stderr
    assert "Traceback" not in result.output
    assert json.loads(kept)["front"][0] in json.loads((out / "front.json").read_text())["front"]
    assert run(*command, "--budget", "3").exit_code == 0
    assert json.loads((out / "front.json").read_text())["trials"]["complete"] == 3


def test_a_trial_that_hangs_ends_at_its_limit_and_is_not_tried_again(tmp_path):
    RunFolder(tmp_path).prepare()
    study = Integers(Order(tmp_path, budget=2, size=10))
    trial = study.claim()
    claimed = SimpleNamespace(trial=trial)
    took = r"took longer than 0\.2 s \(--trial-timeout\)"
    with pytest.raises(TrialTimeoutError, match=took), study.working_on(claimed, 0.2):
        time.sleep(30)
    study.fail(claimed, "TrialTimeoutError", {})
    assert study.claim().params != trial.params


# Queues


class ClosedHandler(logging.FileHandler):
    """Submitit's debug jobs leave their logs open."""

    made: ClassVar[list[logging.FileHandler]] = []

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.made.append(self)


def test_workers_of_a_queue_are_identical_and_hold_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://me:word@nowhere/db")
    monkeypatch.setattr(logging, "FileHandler", ClosedHandler)
    RunFolder(tmp_path).prepare()
    order, heard = Order(tmp_path, budget=3, size=10), []
    run_on_cluster(Cluster.named("debug", ["timeout_min=5"]), work, order, 2, heard.append)
    assert [trial.values for trial in Integers(order).trials()] == [values(x) for x in range(3)]
    assert heard[0].text.startswith("submitted 2 workers to debug: ")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"word@" in path.read_bytes()]
    again = ClusterWorker(work, order, 1).checkpoint()
    assert again.function == ClusterWorker(work, order, 1), "after preemption the same job comes again"
    for handler in ClosedHandler.made:
        handler.close()


def prune(order, number, device, listener):
    """A worker whose one trial ends at a rung."""
    Teller(RunFolder(order.folder), number, listener).finished("trial 7", 7, time.monotonic(), pruned="pruned at 2")


def test_what_a_job_pruned_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.setattr(logging, "FileHandler", ClosedHandler)
    heard = []
    run_on_cluster(Cluster.named("debug"), prune, Order(tmp_path, budget=1, size=1), 1, heard.append)
    (told,) = [event for event in heard if isinstance(event, Finished)]
    assert (told.trial, told.error, told.pruned) == (7, None, "pruned at 2")
    for handler in ClosedHandler.made:
        handler.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--study a",
            "--study needs a storage: give --storage postgresql+psycopg://USER@HOST/DATABASE",
        ),
        ("--storage postgresql://h/d", "a storage without a study: name the study with --study"),
        ("--study a --storage sqlite:///x.db", "a storage of kind sqlite"),
        ("--study a --storage-file nowhere", "--storage-file nowhere cannot be read"),
        ("--study a/b --storage postgresql://h/d", "--study a/b: expected letters"),
        ("--trial-timeout 0", "--trial-timeout 0: expected seconds, more than 0"),
        ("--checkpoint-every -1", "--checkpoint-every -1: expected seconds, more than 0"),
        ("--grace 1", "--grace 1: expected seconds, 2 or more"),
        ("--cluster pbs", "--cluster pbs: expected slurm, local or debug"),
        ("--cluster slurm", "--cluster slurm needs a study that hosts can share"),
        ("--cluster local --cluster-option x", "--cluster-option x: expected NAME=VALUE"),
        ("--cluster-option x=1", "--cluster-option without --cluster"),
    ],
)
def test_bad_options_are_one_line(options, message, monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", "")
    monkeypatch.delenv("OPTUNA_STORAGE")
    result = run("search", *options.split())
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_password_on_the_command_line_is_warned_of_and_not_repeated(monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", "restored afterwards")
    result = run("search", "--study", "a", "--storage", "postgresql://me:word@h/d", "--grace", "1")
    assert "a password in --storage can be read by other users with ps" in result.stderr
    assert "word@" not in result.output


def test_status_needs_one_study(tmp_path, monkeypatch):
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    assert "name a run folder, or a shared study" in run("status").stderr
    assert "no study in" in run("status", tmp_path).stderr


def test_artifacts_have_a_place(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="name a folder that can be written"):
        artifact_store(str(tmp_path / "file" / "inside"))
    with pytest.raises(MemControlError, match="expected s3://BUCKET alone"):
        artifact_store("s3://bucket/inside")
