"""A run of sharded weights that is ended from outside resumes, in another number of processes too."""

import pytest
from scripts import launch, run_script
from trainings import losses, same_weights, words

from unlearnkit.core.files import read_jsonl
from unlearnkit.unlearn.step.trainer import UnlearnTrainer

pytestmark = [pytest.mark.slow, pytest.mark.run, pytest.mark.usefixtures("in_small_world")]

STEPS = ["--dataset.forget_ratio", "20", "--unlearn.num_epochs", "4", "--unlearn.max_steps", "10"]
SAVED = [*STEPS, "--unlearn.save_steps", "3"]
RESUMED = ["--unlearn.resume_path", "auto"]
SHARDED = ["--overall.engine", "fsdp2"]
METHODS = {"plain": [], "gru": ["--unlearn.combiner", "gru"], "lora": ["--unlearn.use_lora", "true"]}


@pytest.mark.parametrize("rank, fault, kept", [(1, "SIGKILL", 6), (1, "SIGTERM", 9), (0, "ENOSPC", 6)])
def test_it_resumes_in_one_process(rank, fault, kept, tiny_model_folder, small_world, tmp_path):
    place = tiny_model_folder, tmp_path, "run"
    common = [*SAVED, "--dataset.data_dir", small_world]
    ended = launch([[*words(*place, 4, 1, *common), *SHARDED]], tmp_path, rank, 8, fault)
    assert ended.returncode == 1, ended.stderr
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("step-*")] == [f"step-{kept}"]
    refused = run_script("unlearn_model", *words(*place, 4, 1, *common), *RESUMED)
    assert "took 8 rows per optimizer step" in refused.stderr
    done = run_script("unlearn_model", *words(*place, 8, 1, *common), *RESUMED)
    assert done.returncode == 0, done.stderr
    losses(tiny_model_folder, tmp_path, "whole", 8, 1, *STEPS)
    same_weights(tmp_path / "run", tmp_path / "whole")
    assert [record["step"] for record in read_jsonl(tmp_path / "run/log.jsonl")] == list(range(1, 11))


@pytest.mark.parametrize("name", METHODS)
def test_a_run_of_one_process_resumes_with_it(name, tiny_model_folder, small_world, tmp_path, monkeypatch):
    place = tiny_model_folder, tmp_path, "run"
    common = [*SAVED, "--dataset.data_dir", small_world, *METHODS[name]]
    log = UnlearnTrainer.log

    def stop(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UnlearnTrainer, "log", stop)
        assert run_script("unlearn_model", *words(*place, 8, 1, *common)).returncode == 130
    done = launch([[*words(*place, 4, 1, *common), *SHARDED, *RESUMED]], tmp_path)
    assert done.returncode == 0, done.stderr
    losses(tiny_model_folder, tmp_path, "whole", 8, 1, *STEPS, *METHODS[name])
    same_weights(tmp_path / "run", tmp_path / "whole")
