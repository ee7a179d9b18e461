"""import_log.py and compare_runs.py on made-up logs of other toolkits."""

import json

import pytest
from conftest import FICTIONAL
from made_up_logs import muse, open_unlearning, tofu, write
from scripts import run_script

from unlearnkit.core.files import read_json, read_jsonl
from unlearnkit.metrics.external_results import match_rows, read_log, read_results
from unlearnkit.model.report.grid_table import run_figures


@pytest.fixture
def logs(tmp_path):
    """An evaluation and its retain model's, as OpenUnlearning writes them."""
    retain = write(tmp_path / "retain" / "TOFU_EVAL.json", open_unlearning(1))
    return write(tmp_path / "full" / "TOFU_EVAL.json", open_unlearning(0, open_unlearning(1))), retain


def imported(tmp_path, log, *words, name="theirs"):
    return run_script(
        "import_log", log, "--logger.json.root", tmp_path / "runs", "--logger.name", name, *words
    )


def test_a_log_becomes_a_run_folder_with_its_figures_rows_and_source(logs, tmp_path):
    full, retain = logs
    run = imported(tmp_path, full, "--retain", retain)
    assert run.returncode == 0 and "figures recomputed, largest difference" in run.stdout
    assert run.stdout.count("caution: OpenUnlearning's unlearned models depend on launcher") == 1
    folder = tmp_path / "runs" / "theirs"
    found, detail = read_json(folder / "metrics.json"), read_json(folder / "metrics_detail.json")
    log = read_log(full, read_log(retain))
    assert found == {figure.key: figure.value for figure in log.figures}
    assert detail["forget/prob"]["name_in_log"] == "forget_Q_A_Prob" and detail["forget/prob"]["n"] == 6
    assert found["forget_quality"] == pytest.approx(detail["forget_quality"]["stored"], rel=1e-9)
    rows = read_jsonl(folder / "samples" / "forget.jsonl")
    assert [row["id"] for row in rows] == list("012345") and rows[0]["generation"] == "Oda Lenz."
    source = read_json(folder / "config.json")["imported"]
    assert source["file"] == str(full) and source["retain_file"] == str(retain) and source["caution"]
    assert read_json(folder / "environment.json")["imported_from"] == str(full)
    assert run_figures(folder)["seconds"] is None
    assert not list(folder.rglob("*.part")) and not (folder / "lock").exists()
    assert read_results(folder)["forget"].keys() == read_results(full)["forget"].keys()


def test_an_imported_run_is_compared_as_its_log_is(logs, tmp_path):
    full, retain = logs
    imported(tmp_path, full, "--retain", retain)
    run = run_script("compare_runs", tmp_path / "runs/theirs", full, "--retain", retain)
    assert run.returncode == 0
    lines = [line for line in run.stdout.splitlines() if line.startswith("│ ")]
    assert len(lines) > 40 and all(line.split()[-2] == line.split()[-4] for line in lines)
    assert run.stdout.count("depend on launcher") == 1


def test_an_imported_retain_model_serves_for_forget_quality_of_our_rows(logs, tmp_path):
    imported(tmp_path, logs[1])
    matched = match_rows(read_results(tmp_path / "runs/theirs"), {"forget": [f"row-{n}" for n in range(6)]})
    assert list(matched["forget"]) == [f"row-{n}" for n in range(6)]
    assert all(row["log_truth_ratio"] is not None for row in matched["forget"].values())


def test_a_taken_folder_is_refused_before_the_log_is_read(logs, tmp_path):
    imported(tmp_path, logs[0])
    before = read_json(tmp_path / "runs/theirs/metrics.json")
    run = imported(tmp_path, tmp_path / "gone.json")
    assert (
        run.returncode == 1 and "already holds a run" in run.stderr and "logger.overwrite true" in run.stderr
    )
    assert read_json(tmp_path / "runs/theirs/metrics.json") == before
    run = imported(tmp_path, logs[1], "--logger.overwrite", "true")
    assert run.returncode == 0
    assert read_json(tmp_path / "runs/theirs/metrics.json")["forget_quality"] is None


@pytest.mark.parametrize(
    "words, message",
    [
        (["--logger.name", "../up"], "--logger.name: '../up' is not a folder name"),
        (["{log}", "--logger.name", "two"], "--logger.name names the run folder of one log"),
        (["--retain", "gone.json"], "gone.json: no such file"),
        (["--retain", "{folder}"], "is a folder, a file was expected"),
    ],
)
def test_wrong_words_are_one_line_and_write_nothing(words, message, logs, tmp_path):
    words = [word.format(log=logs[1], folder=tmp_path) for word in words]
    run = run_script("import_log", logs[0], "--logger.json.root", tmp_path / "runs", *words)
    assert run.returncode == 1 and message in run.stderr and len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_without_a_name_logs_are_checked_and_nothing_is_written(logs, tmp_path):
    content = open_unlearning(0) | {"forget_charm": {"agg_value": 1}}
    content["model_utility"]["agg_value"] = 0.125
    wrong = write(tmp_path / "wrong.json", content)
    documents = write(tmp_path / "MUSE_EVAL.json", muse())
    official = write(tmp_path / "official.json", tofu())
    before = sorted(tmp_path.rglob("*"))
    run = run_script("import_log", *logs, wrong, documents, official)
    assert run.returncode == 0 and sorted(tmp_path.rglob("*")) == before
    shown = run.stdout.splitlines()
    assert len([line for line in shown if "largest difference" in line]) == 4
    assert f"{official} (TOFU): 19 figures computed from rows" in shown
    assert "  warning: forget_charm: unknown metric: as stored, not recomputed" in shown
    assert any(
        line.startswith("  warning: model_utility: stored 0.125, but the rows give 0.") for line in shown
    )
    assert len([line for line in shown if line.startswith("caution: ")]) == 1


def test_every_dash_has_its_reason_below_the_table_each_reason_once(tmp_path):
    own, other = (write(tmp_path / f"{n}.json", tofu(n, forget=n)) for n in (6, 4))
    run = run_script(
        "compare_runs", own, other, FICTIONAL / "target/results_thinking", "--retain", other,
        *("--metrics", "forget_quality", "forget_quality_ks", "forget/exact", "tofu/forget/rouge1_recall"),
    )  # fmt: skip
    assert run.returncode == 0
    table, _, below = run.stdout.partition("Why a figure is missing, or what it leaves out:\n")
    assert table.count("–") == 5
    assert "  forget/exact (6.json, 4.json): not a figure of this evaluation\n" in below
    assert below.count("not a figure of this evaluation") == 2
    assert (
        "forget_quality, forget_quality_ks (6.json): 6 forget rows against the retain model's 4, as" in below
    )
    assert (
        "forget_quality, forget_quality_ks (results_thinking): the retain results are of other forget rows"
        in below
    )


def test_reasons_of_nulls_come_from_the_run_folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    (folder / "samples/forget.jsonl").write_text('{"id": "a", "prob": 0.5}\n')
    write(folder / "metrics.json", {"forget/prob": 0.5, "privleak": None})
    write(folder / "metrics_detail.json", {"privleak": {"reason": "needs a retain model's results"}})
    run = run_script("compare_runs", folder, "--metrics", "privleak,forget/prob")
    assert "  privleak (run): needs a retain model's results\n" in run.stdout


LEADERBOARD = (
    "Index,Method,Epoch,Submitted By,Model,LR,WD,Forget Quality,Model Utility,Prob. Retain,ROUGE Retain,"
    "Truth Ratio Retain,Prob. Real Authors,ROUGE Real Authors,Truth Ratio Real Authors,Prob. Real World,"
    "ROUGE Real World,Truth Ratio Real World,Prob. Forget,ROUGE Forget,Truth Ratio Forget\n"
    f"0,Grad. Ascent,3,Us,Phi,1,1,1e-5,0.5{',0.5' * 12}\n"
    f"1,KL Min.,4,Us,Phi,1,1,1e-9,0.25{',0.5' * 12}\n"
)


def test_runs_stand_beside_rows_of_the_leaderboard(tmp_path):
    path = tmp_path / "phi-5p.csv"
    path.write_text(LEADERBOARD)
    target = FICTIONAL / "target/results"
    run = run_script("compare_runs", target, "--leaderboard", path)
    assert run.returncode == 0 and "beside 2 rows of TOFU's leaderboard" in run.stdout
    assert "Grad. Ascent, epoch 3 (Phi, forget05)" in run.stdout and "1.00000e-09" in run.stdout
    assert (
        "KL Min., epoch 4 (Phi, forget05): model utility is 0.25, but its nine parts give 0.5" in run.stdout
    )
    run = run_script(
        "compare_runs", target, "--leaderboard", tmp_path, "--rows", "ascent", "--metrics", "real/prob"
    )
    assert run.returncode == 0 and "beside 1 rows" in run.stdout and "KL Min." not in run.stdout
    for words, message in (
        (["--leaderboard", tmp_path, "--rows", "npo"], "--rows: 'npo' is in no row of the leaderboard"),
        (["--rows", "phi"], "--rows chooses rows of --leaderboard, which is not set"),
        (["--leaderboard", tmp_path / "gone"], "no such file"),
    ):
        run = run_script("compare_runs", target, *words)
        assert run.returncode == 1 and message in run.stderr


def test_the_log_of_a_caution_says_it_once_for_many(logs, tmp_path):
    run = run_script("compare_runs", *logs)
    assert run.stdout.count("depend on launcher") == 1
    broken = json.loads(logs[0].read_text())
    broken["mia_loss"]["auc"] = 0.123
    run = run_script("compare_runs", write(tmp_path / "broken.json", broken), logs[1])
    assert "Warnings:\n  broken.json: mia_loss.auc: stored 0.123, but the rows give" in run.stdout


def test_a_retain_log_of_another_benchmark_is_refused(tmp_path):
    """Its figures would take the place of right ones."""
    write(tmp_path / "TOFU_EVAL.json", open_unlearning())
    write(tmp_path / "MUSE_EVAL.json", muse())
    run = run_script("import_log", tmp_path / "TOFU_EVAL.json", "--retain", tmp_path / "MUSE_EVAL.json")
    assert run.returncode == 1
    assert "MUSE_EVAL.json is a log of MUSE, and" in run.stderr
