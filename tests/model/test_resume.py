"""An interrupted run goes on to the same end."""

import contextlib
import os
import signal
import subprocess

import pytest
from scripts import Forked, kill_once, ranks, run_script
from tiny import random_llama, save

from core.files import read_json, read_jsonl

pytestmark = pytest.mark.run

KEPT = "checkpoints/step-*/complete"
STEPS = 12
"""Six epochs of 12 rows, 8 + 4 a step: every other checkpoint lies within an epoch, whose last step is
short."""


def words(model, tmp_path, name, *more):
    return [
        "--overall.model_name",
        model,
        *(
            "--unlearn.unlearn_method NPO+FT --unlearn.lr 1e-3 --unlearn.num_epochs 6 "
            "--dataset.forget_ratio 12 --dataset.batch_size 4 --unlearn.gradient_accumulation_steps 2 "
            "--unlearn.save_steps 3 --evaluate.before false --evaluate.metrics forget/prob "
            "--overall.quiet true"
        ).split(),
        "--logger.json.root",
        tmp_path,
        "--logger.name",
        name,
        "--overall.cache_dir",
        tmp_path / "cache",
        *more,
    ]


def start(folder, arguments, **more) -> Forked:
    """A run in a process of its own; what it prints lies beside its folder."""
    return Forked("unlearn_model", *arguments, log=folder, **more)


def start_two(folder, arguments) -> list[Forked]:
    return [
        Forked("unlearn_model", *arguments, log=folder.with_name(rank["RANK"]), **rank) for rank in ranks(2)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    return save(random_llama(tokenizer), tokenizer, tmp_path_factory.mktemp("model"))


STATEFUL = (
    *(
        "--unlearn.unlearn_method PDU --unlearn.PDU.dual 2 --unlearn.optimizer Sophia "
        "--unlearn.optim.Sophia.every 2 --unlearn.flatness WA --unlearn.flat.WA.start 2 "
        "--unlearn.flat.WA.every 2"
    ).split(),
)
"""An objective, an optimizer and an averaging with state of their own, all of which a checkpoint must
hold."""


@pytest.mark.parametrize(
    "more", [(), ("--unlearn.use_lora", "true"), STATEFUL], ids=["full", "lora", "stateful"]
)
def test_killed_and_resumed_equals_never_interrupted(more, model, tmp_path):
    whole = run_script("unlearn_model", *words(model, tmp_path, "whole", *more))
    assert whole.returncode == 0, whole.stderr
    folder = tmp_path / "killed"
    kill_once(lambda: any(folder.glob(KEPT)), start(folder, words(model, tmp_path, "killed", *more)))
    assert not (folder / "metrics.json").exists()
    assert not (folder / "checkpoints/config.json").exists()
    (folder / "checkpoints/checkpoint-99").mkdir()
    resumed = run_script(
        "unlearn_model", *words(model, tmp_path, "killed", *more), "--unlearn.resume_path", "auto"
    )
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = (read_jsonl(tmp_path / name / "log.jsonl") for name in ("killed", "whole"))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, STEPS + 1))
    for record in ours + theirs:
        del record["tokens_per_second"]
    for mine, other in zip(ours, theirs):
        assert mine == pytest.approx(other, rel=1e-6)
    assert read_json(folder / "metrics.json") == pytest.approx(
        read_json(tmp_path / "whole/metrics.json"), rel=1e-6
    )
    assert not (folder / "checkpoints/checkpoint-99").exists()


def test_two_processes_resume_within_an_epoch(model, tmp_path):
    """20 rows at 4 + 4: three steps an epoch, the last one short on the second process."""
    more = (
        *(
            "--dataset.forget_ratio 20 --unlearn.gradient_accumulation_steps 1 --unlearn.num_epochs 3 "
            "--unlearn.save_steps 2"
        ).split(),
    )
    whole = run_script("unlearn_model", *words(model, tmp_path, "whole", *more), "--dataset.batch_size", "8")
    assert whole.returncode == 0, whole.stderr
    killed = words(model, tmp_path, "killed", *more)
    folder = tmp_path / "killed"
    kill_once(lambda: any(folder.glob(KEPT)), *start_two(folder, killed))
    assert not (folder / "checkpoints/config.json").exists()
    for process in start_two(folder, [*killed, "--unlearn.resume_path", "auto"]):
        assert process.ended.returncode == 0, process.ended.stderr
    ours, theirs = (read_jsonl(tmp_path / name / "log.jsonl") for name in ("killed", "whole"))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, 10))
    for key in ("loss", "npo", "retain_nll", "tokens"):
        assert [r[key] for r in ours] == pytest.approx([r[key] for r in theirs], rel=2e-5), key


def test_a_run_killed_after_its_last_step_is_only_measured(model, tmp_path):
    more = ("--unlearn.max_steps", "6")
    assert run_script("unlearn_model", *words(model, tmp_path, "run", *more)).returncode == 0
    folder = tmp_path / "run"
    metrics = read_json(folder / "metrics.json")
    for name in ("environment.json", "metrics.json"):
        (folder / name).unlink()
    resumed = run_script(
        "unlearn_model", *words(model, tmp_path, "run", *more), "--unlearn.resume_path", "auto"
    )
    assert resumed.returncode == 0, resumed.stderr
    assert len(read_jsonl(folder / "log.jsonl")) == 6
    assert read_json(folder / "metrics.json") == metrics


def test_killed_while_measuring_leaves_nothing_that_reads_as_whole(model, tmp_path):
    """And what a kill while saving leaves, a hidden folder, is gone after the next run."""
    slow = "--evaluate.metrics forget/rougeL,retain/rougeL --evaluate.max_new_tokens 150".split()
    folder = tmp_path / "run"
    saved = folder / "checkpoints/config.json"
    kill_once(saved.exists, start(folder, words(model, tmp_path, "run", *slow)))
    assert not (folder / "environment.json").exists()
    assert not (folder / "metrics.json").exists()
    assert (folder / "checkpoints/model.safetensors").exists()
    assert (folder / "checkpoints/tokenizer.json").exists()
    (folder / ".checkpoints.half").mkdir()
    resumed = run_script(
        "unlearn_model", *words(model, tmp_path, "run", *slow), "--unlearn.resume_path", "auto"
    )
    assert resumed.returncode == 0, resumed.stderr
    assert read_json(folder / "metrics.json")["forget/rougeL"] is not None
    assert (folder / "environment.json").exists()
    assert len(read_jsonl(folder / "log.jsonl")) == STEPS
    assert not list(folder.glob(".checkpoints.*"))


def die_halfway_through_the_weights() -> None:
    """Patch this process: the file of the final weights is cut after 1000 bytes, and the process killed."""
    from transformers import modeling_utils

    whole = modeling_utils.safe_save_file

    def save_file(tensors, filename, *rest, **more):
        whole(tensors, filename, *rest, **more)
        if "checkpoints." in str(filename):
            os.truncate(filename, 1000)
            os.kill(os.getpid(), signal.SIGKILL)

    modeling_utils.safe_save_file = save_file


def test_killed_halfway_through_the_weights_leaves_no_model_and_goes_on(model, tmp_path):
    arguments = words(model, tmp_path, "run")
    folder = tmp_path / "run"
    killed = start(folder, arguments, before=die_halfway_through_the_weights).ended
    assert killed.returncode == -signal.SIGKILL
    assert list(folder.glob(".checkpoints.*/model.safetensors"))
    assert not (folder / "checkpoints/config.json").exists()
    assert not (folder / "checkpoints/model.safetensors").exists()
    resumed = run_script("unlearn_model", *arguments, "--unlearn.resume_path", "auto")
    assert resumed.returncode == 0, resumed.stderr
    assert (folder / "checkpoints/model.safetensors").stat().st_size > 1000
    assert not list(folder.glob(".checkpoints.*"))
    assert len(read_jsonl(folder / "log.jsonl")) == STEPS


def test_other_settings_cannot_go_on_with_a_run(model, tmp_path):
    assert run_script("unlearn_model", *words(model, tmp_path, "run")).returncode == 0
    whole = run_script("unlearn_model", *words(model, tmp_path, "run"), "--unlearn.resume_path", "auto")
    assert whole.returncode == 1
    assert "holds a whole run" in whole.stderr
    (tmp_path / "run/environment.json").unlink()
    other = run_script(
        "unlearn_model",
        *words(model, tmp_path, "run"),
        "--unlearn.lr",
        "5e-4",
        "--unlearn.resume_path",
        tmp_path / "run",
    )
    assert other.returncode == 1
    assert "another unlearn.lr" in other.stderr


def test_what_cannot_be_resumed_is_said(model, tmp_path):
    run = run_script(
        "unlearn_model", *words(model, tmp_path, "run"), "--unlearn.resume_path", tmp_path / "nowhere"
    )
    assert run.returncode == 2
    assert "is no run folder" in run.stderr
    run = run_script(
        "unlearn_model",
        *words(model, tmp_path, "run"),
        *"--unlearn.resume_path auto --overall.logger none".split(),
    )
    assert run.returncode == 2
    assert "need overall.logger json or wandb" in run.stderr


@contextlib.contextmanager
def mounted(place, options: str):
    """A tmpfs with these options at `place`. Only root can mount one: elsewhere the test is skipped."""
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may not mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize(
    "options, told", [("size=300k", "No space left"), ("ro", "cannot be written")], ids=["full", "read-only"]
)
def test_a_disk_that_cannot_take_the_run_is_one_clear_line_and_leaves_nothing_half(
    options, told, model, tmp_path
):
    place = tmp_path / "small"
    with mounted(place, options):
        cache = ["--overall.cache_dir", tmp_path / "cache"]
        run = start(tmp_path / "run", [*words(model, place, "run"), *cache]).ended
        assert run.returncode == 1, run.stderr
        assert "Traceback" not in run.stderr
        assert told in run.stderr
        assert not (place / "run/metrics.json").exists()
        assert not (place / "run/checkpoints/config.json").exists()
