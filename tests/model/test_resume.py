"""An interrupted run goes on to the same end."""

import os
import shutil
import signal

import pytest
from scripts import Forked, die_at_change, kill_once, mounted, ranks, run_script, wait_until
from tiny import greeting_template, random_llama, save

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.loggers.json_ import JsonLogger
from unlearnkit.model.run import unlearn_run
from unlearnkit.unlearn.step.trainer import UnlearnTrainer

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


def interrupt(*_):
    raise KeyboardInterrupt


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
    "more",
    [
        pytest.param((), id="full"),
        pytest.param(("--unlearn.use_lora", "true"), id="lora", marks=pytest.mark.slow),
        pytest.param(STATEFUL, id="stateful"),
    ],
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


@pytest.mark.slow
def test_a_run_killed_after_its_last_step_is_only_measured(model, tmp_path, monkeypatch):
    more = ("--unlearn.max_steps", "6")
    assert run_script("unlearn_model", *words(model, tmp_path, "whole", *more)).returncode == 0
    metrics = read_json(tmp_path / "whole/metrics.json")
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(JsonLogger, "evaluation", interrupt)
        assert run_script("unlearn_model", *words(model, tmp_path, "run", *more)).returncode == 130
    assert not (folder / "metrics.json").exists()
    resumed = run_script(
        "unlearn_model", *words(model, tmp_path, "run", *more), "--unlearn.resume_path", "auto"
    )
    assert resumed.returncode == 0, resumed.stderr
    assert len(read_jsonl(folder / "log.jsonl")) == 6
    assert read_json(folder / "metrics.json") == metrics


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert "is not a run folder" in run.stderr
    run = run_script(
        "unlearn_model",
        *words(model, tmp_path, "run"),
        *"--unlearn.resume_path auto --overall.logger none".split(),
    )
    assert run.returncode == 2
    assert "need overall.logger json or wandb" in run.stderr


@pytest.mark.parametrize(
    "options, told", [("size=300k", "No space left"), ("ro", "may not be written")], ids=["full", "read-only"]
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


STATE_FILES = [
    "unlearn_state.pt",
    "trainer_state.json",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("optimizer.pt", "model.safetensors")),
]


def begun(model, tmp_path, monkeypatch, name: str, at: int, *more):
    """The folder of a run that was interrupted when the record of step `at` was to be logged."""
    step = JsonLogger.step

    def stop(self, record):
        if record["step"] == at:
            raise KeyboardInterrupt
        step(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(JsonLogger, "step", stop)
        run = run_script("unlearn_model", *words(model, tmp_path, name, *more))
    assert run.returncode == 130, run.stderr
    return tmp_path / name, run


def test_both_the_message_and_the_refusal_name_the_key_that_resumes(model, tmp_path, monkeypatch):
    folder, run = begun(model, tmp_path, monkeypatch, "run", 5)
    assert "--unlearn.resume_path auto" in run.stderr and "step checkpoint" in run.stderr
    again = run_script("unlearn_model", *words(model, tmp_path, "run"))
    assert again.returncode == 1
    assert "--unlearn.resume_path auto" in again.stderr
    done = run_script("unlearn_model", *words(model, tmp_path, "run"), "--unlearn.resume_path", "auto")
    assert done.returncode == 0, done.stderr
    assert not list(folder.glob("checkpoints/step-*"))


def test_sigterm_ends_with_143_and_the_key_that_resumes(model, tmp_path):
    folder = tmp_path / "run"
    run = start(folder, words(model, tmp_path, "run"))
    wait_until(lambda: any(folder.glob(KEPT)))
    os.kill(run.pid, signal.SIGTERM)
    assert run.ended.returncode == 143, run.ended
    assert "--unlearn.resume_path auto" in run.ended.stderr and "Traceback" not in run.ended.stderr
    assert any(folder.glob(KEPT)) and not (folder / "lock").exists()


@pytest.mark.parametrize("max_grad_norm", ["0", "1"])
def test_a_gradient_that_is_not_finite_is_not_stepped_along(max_grad_norm, model, tmp_path, monkeypatch):
    end_step = UnlearnTrainer._end_step

    def spoil(self, counts):
        end_step(self, counts)
        if self.state.global_step == 4:
            self.weights()[0].grad[0] = float("inf")

    monkeypatch.setattr(UnlearnTrainer, "_end_step", spoil)
    more = ["--unlearn.max_grad_norm", max_grad_norm]
    run = run_script("unlearn_model", *words(model, tmp_path, "run", *more))
    assert run.returncode == 1
    assert "step 5: the gradient is not finite" in run.stderr and "'forget': ['" in run.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-3"]


def test_weights_that_are_not_finite_replace_no_checkpoint(model, tmp_path, monkeypatch):
    log = UnlearnTrainer.log

    def spoil(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == 6:
            self.weights()[0].data[0] = float("nan")

    monkeypatch.setattr(UnlearnTrainer, "log", spoil)
    run = run_script("unlearn_model", *words(model, tmp_path, "run"))
    assert run.returncode == 1
    assert "weights are not finite after step 6" in run.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-3"]


@pytest.mark.slow
def test_a_run_goes_on_from_its_own_model_and_rows_alone(tokenizer, tmp_path, monkeypatch):
    own = save(random_llama(tokenizer), tokenizer, tmp_path / "own")
    begun(own, tmp_path, monkeypatch, "run", 5)
    again = lambda: run_script("unlearn_model", *words(own, tmp_path, "run"), "--unlearn.resume_path", "auto")
    save(random_llama(tokenizer, initializer_range=0.1), tokenizer, own)
    assert "another initial model" in again().stderr
    save(random_llama(tokenizer), tokenizer, own)
    greeting_template(own)
    refused = again()
    assert refused.returncode == 1
    assert "another forget rows (or template) and another retain rows (or template)" in refused.stderr
    save(random_llama(tokenizer), tokenizer, own)
    assert again().returncode == 0


@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.slow
def test_a_step_checkpoint_that_was_cut_is_named_and_the_one_before_is_taken(
    name, model, tmp_path, monkeypatch
):
    folder, _ = begun(model, tmp_path, monkeypatch, "run", 8)
    last = folder / "checkpoints/step-6"
    whole = tmp_path / "whole"
    shutil.copytree(last, whole)
    (last / name).write_bytes((last / name).read_bytes()[:100])
    again = lambda: run_script(
        "unlearn_model", *words(model, tmp_path, "run"), "--unlearn.resume_path", "auto"
    )
    refused = again()
    assert refused.returncode == 1
    assert f"step-6/{name} has 100 bytes" in refused.stderr
    shutil.copytree(whole, folder / "checkpoints/step-3")  # its name alone is another
    done = again()
    assert done.returncode == 0, done.stderr
    assert f"step-6/{name} has 100 bytes" in done.stderr and "resumes from step-3" in done.stderr


@pytest.mark.parametrize("name", STATE_FILES)
def test_a_state_file_of_the_right_size_that_cannot_be_read_is_named(name, model, tmp_path, monkeypatch):
    folder, _ = begun(model, tmp_path, monkeypatch, "run", 5)
    broken = folder / "checkpoints/step-3" / name
    broken.write_bytes(b"\0" * broken.stat().st_size)
    run = run_script("unlearn_model", *words(model, tmp_path, "run"), "--unlearn.resume_path", "auto")
    assert run.returncode == 1, run.stderr
    assert "step-3" in run.stderr and "cannot be read" in run.stderr and "Traceback" not in run.stderr


@pytest.mark.parametrize(
    "operation", [1, 3, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 4, 5, 6, 7, 8, 9, 10))]
)
def test_a_run_killed_at_one_of_its_first_file_operations_goes_on(operation, model, tmp_path):
    arguments = words(model, tmp_path, "run", "--unlearn.max_steps", 2)
    folder = tmp_path / "run"
    killed = start(folder, arguments, before=die_at_change(operation, folder)).ended
    assert killed.returncode == -signal.SIGKILL, killed
    plain = run_script("unlearn_model", *arguments)
    if plain.returncode:
        assert "--unlearn.resume_path auto" in plain.stderr
        plain = run_script("unlearn_model", *arguments, "--unlearn.resume_path", "auto")
    assert plain.returncode == 0, plain.stderr
    assert (folder / "environment.json").exists() and len(read_jsonl(folder / "log.jsonl")) == 2


def test_step_checkpoints_that_a_kill_left_in_a_whole_run_are_removed(model, tmp_path, monkeypatch):
    arguments = words(model, tmp_path, "run", "--unlearn.max_steps", 3)
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(unlearn_run, "drop_everything", interrupt)
        assert run_script("unlearn_model", *arguments).returncode == 130
    (folder / "checkpoints/evaluated").mkdir()
    assert (folder / "environment.json").exists() and (folder / "checkpoints/step-3").exists()
    again = run_script("unlearn_model", *arguments, "--unlearn.resume_path", "auto")
    assert again.returncode == 1 and "holds a whole run: there is nothing to resume" in again.stderr
    assert not [path for path in (folder / "checkpoints").iterdir() if path.is_dir()]
    assert (folder / "checkpoints/model.safetensors").exists() and not (folder / "lock").exists()


def test_overwriting_follows_no_link(model, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "elsewhere")
    run = run_script("unlearn_model", *words(model, tmp_path, "run"), "--logger.overwrite", "true")
    assert run.returncode == 1 and "checkpoints is a link" in run.stderr
    assert (tmp_path / "elsewhere/precious").read_text() == "kept"


@pytest.mark.parametrize(
    "words_of_torch",
    [
        "[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0",
        "basic_ios::clear: iostream error",
    ],
)
def test_torch_on_a_full_disk_is_one_line(words_of_torch, model, tmp_path, monkeypatch):
    def full(state, path, **options):
        raise RuntimeError(words_of_torch)

    monkeypatch.setattr("unlearnkit.unlearn.step.trainer.torch.save", full)
    run = run_script("unlearn_model", *words(model, tmp_path, "run"))
    assert run.returncode == 1
    assert words_of_torch in run.stderr and "Traceback" not in run.stderr


def test_a_cache_that_cannot_be_written_is_named_before_anything_starts(model, tmp_path):
    with mounted(tmp_path / "small", "ro"):
        run = run_script(
            "unlearn_model", *words(model, tmp_path, "run"), "--overall.cache_dir", tmp_path / "small/c"
        )
    assert run.returncode == 2
    assert "overall.cache_dir" in run.stderr and "cannot be written" in run.stderr


@pytest.mark.parametrize(
    "key", ["overall.model_name", "logger.json.root", "overall.cache_dir", "dataset.data_dir"]
)
@pytest.mark.parametrize("value, told", [("~nosuchuser/x", "nobody's home"), ("x" * 300 + "/y", "too long")])
def test_places_that_cannot_be_are_one_line_with_their_key(key, value, told, model, tmp_path):
    run = run_script("unlearn_model", *words(model, tmp_path, "run"), f"--{key}", value)
    assert run.returncode in (1, 2)
    assert "Traceback" not in run.stderr
    assert key in run.stderr and told in run.stderr
