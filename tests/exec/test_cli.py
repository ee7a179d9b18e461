"""The command line: help on everything and on parts, and the names that other toolkits have for our keys."""

import json

import pytest
from conftest import REPO
from scripts import run_script

from unlearnkit.exec.cli import COMMON
from unlearnkit.exec.config.aliases import KEY_ALIASES, OTHER_NAMES
from unlearnkit.exec.config.reader import StrictConfig
from unlearnkit.exec.metric_help import metric_topics
from unlearnkit.metrics import METRICS, families
from unlearnkit.unlearn import FORGET, RETAIN

SETTINGS_SCRIPTS = sorted(
    path.stem
    for path in (REPO / "src/exec").glob("*_*.py")
    if "run_script(" in path.read_text() and "def main(" in path.read_text()
)
OTHER_SCRIPTS = [
    *(
        "compare_runs",
        "convert_gguf",
        "download_mask",
        "import_log",
        "make_docs",
        "make_fictional",
        "run_grid",
        "sweep",
        "forget",
    )
]


@pytest.fixture(scope="module")
def keys():
    return {".".join(path) for path in StrictConfig().entries}


@pytest.mark.parametrize("script", [*SETTINGS_SCRIPTS, "prefetch", *OTHER_SCRIPTS])
def test_help_writes_nothing(script, tmp_path):
    before = (REPO / "README.md").stat().st_mtime_ns, (REPO / "docs/metrics.md").stat().st_mtime_ns
    run = run_script(script, "--help", cwd=tmp_path)
    assert run.returncode == 0 and run.stdout.startswith("usage: ") and not run.stderr
    assert len(run.stdout.splitlines()) < 80
    assert not list(tmp_path.iterdir())
    assert before == (
        (REPO / "README.md").stat().st_mtime_ns,
        (REPO / "docs/metrics.md").stat().st_mtime_ns,
    )


@pytest.mark.parametrize("script", ["evaluate_model", "unlearn_model", "make_mask"])
def test_without_arguments_a_script_gives_its_short_help_and_does_nothing(script, tmp_path):
    run = run_script(script, cwd=tmp_path)
    assert run.returncode == 2 and not run.stdout
    assert run.stderr == run_script(script, "--help", cwd=tmp_path).stdout
    assert not list(tmp_path.iterdir())


def test_the_short_help_has_the_common_keys_and_every_section(keys):
    shown = run_script("finetune_model", "--help").stdout
    assert set(COMMON) <= keys and all(f"--{key} " in shown for key in COMMON)
    assert "[FT]" in shown  # this script's own default
    assert all(f"\n  {name} " in shown for name in ("dataset", "unlearn.retain.NAME", "logger.json"))
    assert "python src/exec/finetune_model.py --config_file" in shown


@pytest.mark.parametrize(
    "topic, there, absent",
    [
        ("dataset", ["--dataset.think_close VALUE"], ["--overall."]),
        ("unlearn.NPO", ["--unlearn.NPO.beta VALUE", "number above 0; default 0.1"], ["--unlearn.lr"]),
        ("npo", ["--unlearn.NPO.reduction"], ["--unlearn.SimNPO"]),
        ("NPO+KL", ["--unlearn.NPO.beta"], ["--unlearn.SimNPO"]),
        ("--unlearn.lr", ["--unlearn.lr VALUE", "default 0.0001"], ["--unlearn.gamma"]),
        ("logger.json", ["--logger.json.root"], ["--logger.name"]),
    ],
)
def test_help_on_one_thing(topic, there, absent):
    run = run_script("unlearn_model", f"--help={topic}")
    assert run.returncode == 0, run.stderr
    assert all(text in run.stdout for text in there)
    assert not any(text in run.stdout for text in absent)


def test_help_on_nothing_names_what_is_near():
    run = run_script("unlearn_model", "--help", "overall.sed")
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert "no section, key, method or metric 'overall.sed'; did you mean overall.seed" in run.stderr
    assert "unlearn.origin has no keys" in run_script("unlearn_model", "--help", "origin").stderr


@pytest.mark.parametrize("topic", ["forget/prob", "Forget/PROB", "--help=forget/prob"])
def test_help_on_a_metric_is_its_whole_declaration(topic):
    words = [topic] if topic.startswith("--") else ["--help", topic]
    run = run_script("evaluate_model", *words, COLUMNS="200")
    about = METRICS["forget/prob"].about
    assert run.returncode == 0 and not run.stderr
    assert run.stdout.startswith("forget/prob\n") and "better          down" in run.stdout
    shown = " ".join(run.stdout.split())
    for text in (about.formula, about.range, about.blind_spot, about.source, about.other_toolkits):
        assert text and text in shown


def test_help_on_a_metric_takes_its_earlier_name():
    run = run_script("evaluate_model", "--help", "reasoning/rt_ua_parity")
    assert run.stdout.startswith("reasoning/rt_ua_published\n")


def test_help_on_a_family_has_each_of_its_metrics_and_formulas():
    shown = " ".join(run_script("evaluate_model", "--help", "privacy").stdout.split())
    members = {key: found for key, found in METRICS.items() if found.family == "privacy"}
    assert members
    for key, found in members.items():
        assert f"{key} ({found.good})" in shown and found.about.formula in shown
    assert "forget/prob " not in shown


def test_help_on_metrics_has_every_family():
    shown = run_script("unlearn_model", "--help", "metrics").stdout
    assert all(f"\n  {family} " in shown for family in families())


def test_help_on_a_misspelt_metric_names_what_is_near():
    run = run_script("evaluate_model", "--help", "forget/porb")
    assert run.returncode == 2 and "metric 'forget/porb'; did you mean forget/prob" in run.stderr


def test_no_metric_hides_a_section_a_key_or_a_method(keys):
    named = {*keys, *StrictConfig().classes, *FORGET, *RETAIN}
    assert not {topic.lower() for topic in metric_topics()} & {name.lower() for name in named}


def test_other_names_lead_to_keys_that_exist(keys):
    for name, ours in OTHER_NAMES.items():
        assert ours.partition(",")[0].replace("NAME", "NPO") in {*keys, "config_file"}, name
        assert name not in keys and f"unlearn.{name}" not in KEY_ALIASES


@pytest.mark.parametrize(
    "words, told",
    [
        (["--learning_rate", "1e-5"], "'--learning_rate'; here it is --unlearn.lr"),
        (["--num-train-epochs=3"], "here it is --unlearn.num_epochs"),
        (["--per_device_train_batch_size", "-3"], "here it is --dataset.batch_size"),
        (["trainer.args.learning_rate=1e-5"], "here it is --unlearn.lr"),
        (["+trainer.args.warmup_epochs=1.0"], "here it is --unlearn.warmup_ratio"),
        (["trainer.method_args.beta=0.1"], "(unlearn.NPO.beta)"),
        (["trainer.method_args.alpha=1"], "here it is --unlearn.gamma"),
        (["trainer=NPO"], "here it is --unlearn.unlearn_method"),
        (["model.model_args.pretrained_model_name_or_path=x"], "here it is --overall.model_name"),
        (["model.tokenizer_args.pretrained_model_name_or_path=x"], "here it is --overall.tokenizer_name"),
        (["forget_split=forget10"], "here it is --dataset.forget_dataset_name"),
        (["retain_logs_path=x.json"], "here it is --evaluate.retain_results"),
        (["--lr_scheduler_type", "cosine"], "here it is --unlearn.scheduler"),
        (["--bf16", "true"], "here it is --overall.precision"),
        (["--output_dir", "out"], "here it is --logger.json.root"),
        (["--seed", "1"], "did you mean --overall.seed?"),
        (["--warmup_ratio", "0.1"], "did you mean --unlearn.warmup_ratio?"),
        (["--max_length", "9"], "did you mean --dataset.max_length?"),
        (["--unlearn.NPOO.beta", "1"], "did you mean --unlearn.NPO.beta or"),
        (["unlearn.lr=1e-4"], "write --unlearn.lr 1e-4"),
    ],
)
def test_the_names_of_other_toolkits_are_answered_with_ours(words, told, tmp_path):
    run = run_script("unlearn_model", *words, "--logger.json.root", tmp_path / "out")
    assert run.returncode == 2
    complaints = run.stderr.splitlines()[1:]
    assert len(complaints) == 1 and told in complaints[0], run.stderr
    assert not list(tmp_path.iterdir())


def test_a_config_of_another_toolkit_is_answered_key_by_key(tmp_path):
    path = tmp_path / "a.json"
    args = {"learning_rate": 1e-5, "bf16": True, "ddp": 1}
    path.write_text(json.dumps({"trainer": {"args": args}, "unlearn": {"learning_rate": 1}, "datset": {}}))
    complaints = run_script("unlearn_model", "-C", path).stderr.splitlines()[1:]
    assert complaints == [
        f"  {path}: unknown key 'trainer.args.learning_rate'; here it is unlearn.lr",
        f"  {path}: unknown key 'trainer.args.bf16'; here it is overall.precision",
        f"  {path}: unknown key 'unlearn.learning_rate'; here it is unlearn.lr",
        f"  {path}: unknown key 'datset'; did you mean dataset or dataset.traces?",
    ]
