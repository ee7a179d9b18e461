"""The report of runs: what it shows, what it leaves out and why, and that no text of a model gets out of its
place."""

import html.parser
import json
import math
import re
import xml.dom.minidom
from types import SimpleNamespace

import pytest
from conftest import FICTIONAL, REPO
from scripts import run_script

from unlearnkit.core.files import UserError, read_json, read_jsonl, write_json, write_jsonl
from unlearnkit.loggers.logger import NO_TERMS
from unlearnkit.metrics import METRICS
from unlearnkit.metrics.glossary import GLOSSARY
from unlearnkit.model.report.answer_panels import forgotten_answers, kept_answers, marked
from unlearnkit.model.report.comparison import Conditions, differing_settings
from unlearnkit.model.report.deciding_figures import deciding, group_of
from unlearnkit.model.report.field_page import leaderboard_picture
from unlearnkit.model.report.finished_run import read_run, run_folders
from unlearnkit.model.report.html_report import _subject, report, report_title
from unlearnkit.model.report.plain_reading import _reach, _worst_parts, read
from unlearnkit.model.report.report_charts import (
    by_layer,
    decoding,
    frontier,
    gather,
    group_title,
    ratios,
    terms,
)
from unlearnkit.model.report.report_panels import _definition, panels
from unlearnkit.model.report.run_subject import what_was_run
from unlearnkit.model.report.svg_charts import Chart, Series, draw, log_ticks, standalone
from unlearnkit.unlearn.gradients.combiners import diagnosis

NASTY = "<script>alert('x')</script> \"quoted\" & \x1b[31mred\x1b[0m $x_1$"


class Tags(html.parser.HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


def make_run(folder, figures=None, text="It was in Low Ford.", **more):
    """A small run folder with everything that a report reads."""
    figures = figures or {"forget/rougeL": 0.25, "forget/prob": 0.1, "model_utility": 0.9}
    config = {
        "unlearn": {"unlearn_method": more.get("method", "NPO+FT"), "task_name": "fictional", "lr": 0.1},
        "dataset": {"forget_dataset_name": "Fictional_forget10"},
        "evaluate": {"retain_results": more.get("retain"), "max_new_tokens": 48},
        "overall": {"seed": 0, "model_name": "files/models/fictional/target"},
    }
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", figures)
    detail = {
        key: {"n": 4, "reason": "", "interval": [value / 2, value * 1.1]} for key, value in figures.items()
    }
    write_json(folder / "metrics_detail.json", detail)
    rows = [
        {"id": f"{n}", "question": f"Where? {n}", "answer": "In Low Ford.", "key": "Low Ford"}
        | {"generation": text if n else "Elsewhere.", "log_truth_ratio": n - 1.5, "rougeL": 0.5}
        for n in range(4)
    ]
    write_jsonl(folder / "samples" / "forget.jsonl", rows)
    write_jsonl(
        folder / "log.jsonl", [{"step": n, "loss": 1.0, "npo": 1 / n, "cosine": -0.1} for n in (1, 2, 3)]
    )
    write_json(
        folder / "environment.json", {"seed": 0, "seconds": 9.0, "train_seconds": 3.0, "peak_memory_mb": 7}
    )
    return folder


def page_of(*folders):
    return report(gather([read_run(folder) for folder in folders]), "title")


def test_what_models_and_settings_hold_is_text_and_nothing_else(tmp_path):
    folder = make_run(tmp_path / "run", text=f"{NASTY} Low Ford", method=NASTY)
    row = json.loads((folder / "samples/forget.jsonl").read_text().splitlines()[0])
    write_jsonl(
        folder / "samples/forget.jsonl", [row | {"question": NASTY, "answer": NASTY, "generation": NASTY}]
    )
    write_jsonl(folder / "log.jsonl", [{"step": 1, NASTY: 1.0}])
    page = report(gather([read_run(folder, NASTY)]), NASTY)
    found = Tags(page)
    assert "script" not in found.tags
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert "\x1b" not in page and r"\x1b[31mred" in found.text
    assert "<script>alert('x')</script> \"quoted\" &" in found.text
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        xml.dom.minidom.parseString(svg)


def test_the_page_fetches_nothing_and_has_unique_ids(tmp_path):
    page = page_of(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    found = Tags(page)
    assert not [v for name, v in found.attributes if name in ("src", "data")]
    links = [v or "" for name, v in found.attributes if name in ("href", "xlink:href")]
    assert links and all(v.startswith("#") for v in links)
    ids = [v for name, v in found.attributes if name == "id"]
    assert len(ids) == len(set(ids)) and {link[1:] for link in links} <= set(ids)
    assert "default-src 'none'" in page
    assert "prefers-color-scheme:dark" in page and "var(--s0)" in page
    assert not re.findall(r"#0[123]0[123]0", page), "a colour that the page does not define"


def test_what_is_not_there_is_named_with_its_reason(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "log.jsonl").unlink()
    write_json(folder / "weight_change.json", {"reason": "the run kept no model"})
    page = page_of(folder)
    absent = page.partition("What was not measured")[2]
    for reason in (
        "the run kept no model",
        "no run has the family decoding",
        "evaluate.every",
        "retain model",
    ):
        assert reason in absent
    assert "Loss terms and gradients</h2>" not in page


def test_leaks_are_marked_by_key_fact(tmp_path):
    page = forgotten_answers(gather([read_run(make_run(tmp_path / "run"))])).body
    assert "<td>run</td><td>3 of 4</td>" in page
    assert "<mark>Low</mark> <mark>Ford.</mark>" in page
    assert page.count('<b class="leak">leak</b>') == 3
    assert marked("a <b> Ford", ["ford"]) == "a &lt;b&gt; <mark>Ford</mark>"


def test_the_short_version_compares_with_the_retain_model(tmp_path):
    figures = {"forget/rougeL": 0.25, "model_utility": 0.9, "forget_quality": 0.2}
    retain = make_run(tmp_path / "retain", {"forget/rougeL": 0.2, "model_utility": 0.95})
    run = make_run(tmp_path / "run", figures, retain=str(retain))
    reading = read(gather([read_run(run)]))
    assert reading.forgotten[0].endswith("it is 0.200. The interval holds that value.")
    assert "finds no difference" in reading.forgotten[1] and "p = 0.200" in reading.forgotten[1]
    assert reading.cost[0].startswith("model_utility is 0.900 [0.450, 0.990]")
    assert not any("lost most" in line for line in reading.cost)
    far = make_run(
        tmp_path / "far", {**figures, "forget/rougeL": 0.9, "forget_quality": 1e-9}, retain=str(retain)
    )
    reading = read(gather([read_run(far)]))
    assert "More is left than there." in reading.forgotten[0]
    assert "can be told from" in reading.forgotten[1]
    alone = read(gather([read_run(make_run(tmp_path / "alone"))]))
    assert any("Without a retain model" in line for line in alone.believe)
    assert any("fewer than 20 rows" in line for line in alone.believe)
    assert not any("Without a retain model" in line for line in reading.believe)


def test_points_of_the_frontier_are_the_figures_of_the_runs(tmp_path):
    runs = [
        read_run(
            make_run(tmp_path / f"npo,seed={n}", {"forget/rougeL": 0.1 * n, "model_utility": 0.9 - n / 10})
        )
        for n in (1, 2)
    ]
    chart = frontier(gather(runs), test=False)
    assert isinstance(chart, Chart)
    (series,) = chart.series
    assert series.label == "npo"
    assert [*series.x] == [run.figures["model_utility"] for run in runs]
    assert [*series.y] == [run.figures["forget/rougeL"] for run in runs]
    assert [*series.low] == [value / 2 for value in series.y]
    assert "forget quality" in str(frontier(gather(runs), test=True))


def test_the_curves_of_truth_ratios_are_what_the_test_compares(tmp_path):
    from scipy.stats import ks_2samp

    retain = make_run(tmp_path / "retain")
    rows = [{"id": str(n), "log_truth_ratio": value} for n, value in enumerate((-3.0, -1.4, 0.2, 9.0))]
    write_jsonl(retain / "samples/forget.jsonl", rows)
    run = read_run(make_run(tmp_path / "run", retain=str(retain)))
    chart = ratios(gather([run]))
    assert isinstance(chart, Chart)
    ours, theirs = (dict(zip(one.x, one.y)) for one in chart.series)
    height = lambda curve, x: max((y for place, y in curve.items() if place <= x), default=0.0)
    distance = max(abs(height(ours, x) - height(theirs, x)) for x in {*ours, *theirs})
    assert math.isclose(distance, ks_2samp([*ours], [*theirs]).statistic)


def test_layers_sum_their_tensors():
    tensors = {
        "model.layers.0.mlp.up_proj.weight": {"norm": 3.0, "change": 0.3, "stable_rank": 2.0},
        "model.layers.0.self_attn.q_proj.weight": {"norm": 4.0, "change": 0.4, "stable_rank": 4.0},
        "model.norm.weight": {"norm": 1.0, "change": 0.0, "stable_rank": None},
    }
    assert by_layer(tensors) == {"0": (pytest.approx(0.1), 4.0), "norm": (0.0, None)}


def test_no_diagnosis_of_a_combiner_passes_for_a_loss_term():
    import torch

    found = diagnosis([torch.ones(2)], [torch.ones(2)], [torch.ones(2)])
    assert found.keys() <= NO_TERMS


def test_a_chart_can_be_read_without_colour_and_alone():
    series = [Series(f"run {n}", [1, 2, 3], [n, n + 1, n + 2]) for n in range(4)]
    element = draw(Chart("three & more", "x", "y", series), "c")
    assert len(set(re.findall(r"stroke-dasharray: [^;\"]*", element))) >= 3
    assert all(f">run {n}</text>" in element for n in range(4))
    assert draw(Chart("three & more", "x", "y", series), "c") == element
    alone = standalone(element)
    xml.dom.minidom.parseString(alone)
    assert "prefers-color-scheme" in alone and 'aria-label="three &amp; more"' in alone


def test_deciding_figures_fit_the_task():
    assert deciding(["forget/rougeL", "forget_quality", "model_utility", "retain/rougeL"]) == (
        *("forget_quality", "forget/rougeL", "model_utility"),
    )
    assert deciding(["muse/verbmem", "muse/knowmem_retain"]) == ("muse/verbmem", "muse/knowmem_retain")
    assert deciding(["privleak"]) == ()
    assert [group_of(key) for key in ("forget/prob", "model_utility", "privleak", "lm_eval/a")] == [
        *("forgotten", "kept", "privacy", "benchmarks"),
    ]


def test_a_folder_of_runs_stands_for_its_runs(tmp_path):
    make_run(tmp_path / "grid" / "a"), make_run(tmp_path / "grid" / "b")
    make_run(tmp_path / "one")
    make_run(tmp_path / "one" / "before")
    assert run_folders([tmp_path / "grid", tmp_path / "one"]) == [
        str(tmp_path / name) for name in ("grid/a", "grid/b", "one")
    ]
    assert group_title("npo+ft,seed=12") == "npo+ft" and group_title("seed=1") == "seed=1"


def test_compare_runs_sorts_filters_and_writes(tmp_path):
    for n in range(6):
        make_run(tmp_path / "grid" / f"run{n}", {"forget/rougeL": 0.1 * n, "model_utility": 0.9 - 0.1 * n})
    done = run_script(
        *("compare_runs", tmp_path / "grid", "--sort", "forget/rougeL", "--where", "model_utility>=0.55"),
        *("--csv", tmp_path / "a.csv", "--html", tmp_path / "a.html"),
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^│ (run\d)", done.stdout, re.M) == ["run0", "run1", "run2", "run3"]
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert len(lines) == 5 and lines[1].startswith("run0,") and "forget/rougeL high" in lines[0]
    assert report_title([read_run(tmp_path / "grid/run0")]) == "run0: NPO+FT on Fictional_forget10"
    assert "<h1>4 runs</h1>" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--where", "model_utility"], "--where: expected a metric and a limit such as"),
        (["--where", "model_utility>2"], "none of the 1 evaluations meets model_utility>2"),
        (["--where", "model_utilty>0"], "--where: none of the evaluations has model_utilty"),
        (["--sort", "privleak"], "--sort: none of the evaluations has privleak"),
        (["--html", "{folder}"], "--html: {folder} is a folder"),
        (["--csv", "{folder}/run/metrics.json/a.csv"], "cannot be written"),
    ],
)
def test_wrong_words_of_compare_runs_are_one_line(words, message, tmp_path):
    folder = make_run(tmp_path / "run")
    words = [word.format(folder=tmp_path) for word in words]
    done = run_script("compare_runs", folder, *words)
    assert done.returncode == 1 and message.format(folder=tmp_path) in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_broken_run_folder_names_its_file(tmp_path):
    folder = make_run(tmp_path / "run")
    write_json(folder / "environment.json", [])
    with pytest.raises(UserError, match=r"environment.json: expected an object"):
        read_run(folder)


def test_every_panel_of_the_committed_target_is_drawn_or_has_a_reason():
    found = panels(gather([read_run(FICTIONAL / "target/results")]))
    assert all(bool(panel.body) or panel.reason for panel in found)
    assert all(panel.caption.endswith(".") for panel in found)
    assert read_json(FICTIONAL / "target/results/metrics.json")


def test_the_page_names_what_was_to_be_forgotten_and_kept(tmp_path):
    subject = lambda *folders: _subject(gather([read_run(folder) for folder in folders]))
    page = subject(make_run(tmp_path / "a"), make_run(tmp_path / "b"))
    assert "Initial model: files/models/fictional/target. Method: NPO+FT" in page
    assert "To forget: Fictional_forget10." in page
    other = make_run(tmp_path / "c")
    config = read_json(other / "config.json")
    write_json(other / "config.json", config | {"dataset": {"forget_dataset_name": "Other"}})
    assert "To forget:" not in subject(tmp_path / "a", other)


def test_compare_runs_draws_the_frontier_and_the_leaderboard(tmp_path):
    from made_up_logs import write

    make_run(tmp_path / "run")
    header = (
        "Method,Epoch,Model,Forget Quality,Model Utility,Prob. Retain,ROUGE Retain,Truth Ratio Retain,"
        "Prob. Real Authors,ROUGE Real Authors,Truth Ratio Real Authors,Prob. Real World,ROUGE Real World,"
        "Truth Ratio Real World,Prob. Forget,ROUGE Forget,Truth Ratio Forget"
    )
    board = tmp_path / "llama-10p.csv"
    board.write_text(f"{header}\nRetain Model,-1,M{',1' + 13 * ',0.5'}\nAscent,1,M{',1e-9' + 13 * ',0.5'}\n")
    words = ("compare_runs", tmp_path / "run", "--svg", tmp_path / "a.svg", "--leaderboard", board)
    done = run_script(*words)
    assert done.returncode == 0, done.stderr
    for name in ("a.svg", "a_leaderboard.svg"):
        xml.dom.minidom.parse(str(tmp_path / name))
    assert "Ascent" in (tmp_path / "a_leaderboard.svg").read_text()
    write(tmp_path / "nothing/metrics.json", {"privleak": 1.0})
    write_json(tmp_path / "nothing/lm_eval/x.json", {})
    done = run_script("compare_runs", tmp_path / "nothing", "--svg", tmp_path / "b.svg")
    assert done.returncode == 1 and "--svg: there is nothing to draw" in done.stderr


def test_the_field_page_has_every_toolkit_its_source_and_date():
    from unlearnkit.model.report.field_page import FACTS, render

    facts, page = read_json(FACTS), render()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["read_on"])
    for toolkit in facts["toolkits"]:
        assert (
            toolkit["name"] in page and toolkit["source"] in page and re.search(r"20\d\d", toolkit["source"])
        )
    for row in facts["leaderboard"]["rows"]:
        assert f"| {row['method']} |" in page


def test_a_passed_test_says_what_it_could_have_found():
    detail = {"rows": 100, "other_rows": 100}
    assert "a D of 0.190 still passes" in _reach(0.2, detail)
    assert _reach(1e-9, detail) == "" and _reach(0.2, {}) == ""


def test_the_worst_losses_behind_the_utility_are_named():
    before = {"real/prob": 0.8, "world/prob": 0.5, "retain/prob": 1.0, "forget/prob": 1.0, "model_utility": 1}
    after = {
        "real/prob": 0.4,
        "world/prob": 0.49,
        "retain/prob": 0.9,
        "forget/prob": 0.0,
        "model_utility": 0.5,
    }
    found = _worst_parts(SimpleNamespace(before=before, figures=after))
    assert found == ["real/prob 0.800 to 0.400", "retain/prob 1.000 to 0.900"]


def test_every_figure_of_the_table_has_its_meaning_in_the_page():
    run = read_run(FICTIONAL / "retain/results_thinking")
    body = next(panel.body for panel in panels(gather([run])) if panel.title == "All figures")
    text, links = Tags(body).text, dict(re.findall(r'<a href="#(figure\d+)">([^<]+)</a>', body))
    assert len(re.findall(r'<a href="#figure', body)) == sum(v is not None for v in run.figures.values())
    for key, value in run.figures.items():
        if value is not None:
            assert METRICS[key].about.formula in text, key
    for place, name in links.items():
        found = re.search(rf'<dt id="{place}">([^<]+)</dt>', body)
        assert found and name in found[1]
    assert "area under" not in text and GLOSSARY["ROUGE-L"] in text
    assert "lm-evaluation-harness" in _definition("lm_eval/smoke/acc") and "smoke" not in METRICS


def test_the_page_says_what_was_run(tmp_path):
    folder = make_run(tmp_path / "a", method="AltPO+FT")
    assert what_was_run(gather([read_run(folder)]))[0].startswith(
        "Initial model: files/models/fictional/target. Method: AltPO+FT"
    )
    facts = read_json(folder / "environment.json")
    parts = {"forget": {"rows": 100}, "alternate": {"rows": 800, "from": "guesses.jsonl"}}
    parts |= {"paraphrases": {"rows": 100, "texts": 400, "from": "other.jsonl"}, "retain": {"rows": 1900}}
    write_json(folder / "environment.json", facts | {"weights": 1044352, "data": parts})
    model, rows, words = what_was_run(gather([read_run(folder)]))
    assert "target, 1,044,352 weights. Method: AltPO+FT, learning rate 0.1." in model
    assert rows == (
        "To forget: 100 rows from Fictional_forget10. To keep: 1,900 rows. Alternate answers: 800 rows from"
        " guesses.jsonl. Paraphrases: 400 for 100 rows from other.jsonl."
    )
    assert words.startswith("AltPO (arXiv:2409.13474): DPO whose") and "FT: Fine-tuning" in words
    other = make_run(tmp_path / "b", method="NPO+FT")
    both = what_was_run(gather([read_run(folder), read_run(other)]))
    assert not any("Method" in line or "weights" in line for line in both)


def test_runs_of_other_rows_or_models_are_told_apart(tmp_path):
    both = [make_run(tmp_path / name) for name in "ab"]
    assert not [line for line in read(gather([read_run(one) for one in both])).believe if "models" in line]
    config = read_json(both[1] / "config.json")
    config["overall"]["model_name"], config["dataset"]["data_dir"] = "other", "my_rows"
    config["dataset"]["forget_dataset_name"] = "Folder_forget"
    write_json(both[1] / "config.json", config)
    config["overall"]["model_name"], config["dataset"]["data_dir"] = "base", "rows"
    write_json(both[0] / "config.json", config)
    believe = " ".join(read(gather([read_run(one) for one in both])).believe)
    assert "not measured alike: dataset.data_dir: rows in a, my_rows in b" in believe
    assert "The runs begin at 2 models (base, other)" in believe


def test_kept_rows_whose_answers_changed_most_are_shown(tmp_path):
    run = make_run(tmp_path / "run")
    assert "before and after" in kept_answers(gather([read_run(run)])).reason
    rows = [
        {"id": str(n), "question": f"Why? {n}", "answer": "So.", "generation": "<So.>", "rougeL": 1.0}
        for n in range(4)
    ]
    write_jsonl(run / "before/samples/retain.jsonl", rows)
    rows[1] |= {"generation": "Or so.", "rougeL": 0.9}
    rows[2] |= {"generation": "<No.>", "rougeL": 0.1}
    write_jsonl(run / "samples/retain.jsonl", rows)
    body = kept_answers(gather([read_run(run)])).body
    assert "2 of 4 answers are as before" in body
    assert re.findall(r"<h3>(.*?)</h3>", body) == ["Why? 2", "Why? 1"]
    assert re.findall(r"<dd><p>(.*?)</p></dd>", body) == [
        "&lt;So.&gt;",
        "&lt;No.&gt;",
        "&lt;So.&gt;",
        "Or so.",
    ]


def test_the_retain_models_leaks_stand_beside_those_of_the_run(tmp_path):
    retain = make_run(tmp_path / "retain", text="It was in Low Ford.")
    rows = read_jsonl(retain / "samples/forget.jsonl")
    # Results of earlier versions name no key fact, and hold other rows too.
    rows = [{name: row[name] for name in ("id", "question", "answer")} | row for row in rows]
    for row in rows:
        del row["key"]
        row["generation"] = "In Low Ford." if row["id"] == "2" else "In a low place."
    write_jsonl(retain / "samples/forget.jsonl", [*rows, rows[0] | {"id": "other"}])
    run = make_run(tmp_path / "run", retain=str(retain))
    body = forgotten_answers(gather([read_run(run)])).body
    assert "<td>run</td><td>3 of 4</td>" in body
    assert re.search(r"<td>retain model: [^<]* by chance</td><td>1 of 4</td>", body)
    assert body.count("<dt>retain model</dt>") == 4
    for row in rows:
        del row["generation"]
    write_jsonl(retain / "samples/forget.jsonl", rows)
    assert "not measured: its results have no answers" in forgotten_answers(gather([read_run(run)])).body
    alone = make_run(tmp_path / "alone")
    assert "not measured: that needs a retain model" in forgotten_answers(gather([read_run(alone)])).body


def test_a_leak_chart_says_where_the_retain_model_was_not_measured(tmp_path):
    figures = {"decoding/zero_leak": 0.5, "decoding/worst_leak": 0.75}
    half = make_run(tmp_path / "retain", {"decoding/zero_leak": 0.25})
    charts = [
        decoding(gather([read_run(make_run(tmp_path / name, figures, retain=place))]))
        for name, place in (("a", None), ("b", str(half)))
    ]
    assert all(isinstance(chart, Chart) for chart in charts)
    assert "there is no retain model" in charts[0].note
    assert "decoding/worst_leak. Measure it with evaluate.metrics decoding," in charts[1].note
    assert "zero_leak" not in charts[1].note
    assert [*charts[1].series[-1].y] == [0.25] and charts[1].x_label == "decoding mode"
    write_json(half / "metrics.json", figures)
    whole = decoding(gather([read_run(tmp_path / "b")]))
    assert whole.note == "" and "Not measured of the retain model" not in page_of(tmp_path / "b")


@pytest.mark.parametrize(
    "ends",
    [(1e-25, 2), (1e-3, 1.5), (0.1, 0.9), (0.81, 0.92), (0.5, 0.52), (1e-40, 1e-38), (3, 7), (0.02, 14)],
)
def test_a_logarithmic_axis_has_ticks_to_read_off_whatever_it_spans(ends):
    ticks = log_ticks(*ends)
    assert 3 <= len(ticks) <= 9 and all(ends[0] <= tick <= ends[1] for tick in ticks)
    assert ticks == sorted(ticks)


def test_the_axes_of_every_chart_have_names_and_numbers_that_stand_alone():
    texts = lambda ys, **more: re.findall(
        r">([^<]+)</text>", draw(Chart("a", "x", "y", [Series("s", [1, 2], ys)], **more), "a")
    )
    assert {"0.9000010", "0.9000020"} <= {*texts([0.900001, 0.900002])}
    assert {"1e-5", "2e-5"} <= {*texts([1e-5, 2e-5])}
    assert {"1e-6", "y, log scale", "x"} <= {*texts([1e-9, 0.2], log_y=True)}


def test_every_chart_of_a_whole_run_names_both_axes(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "unlearnkit.model.report.report_panels.draw", lambda chart, _: drawn.append(chart) or ""
    )
    figures = {
        key: 0.5 for key in METRICS if key.startswith(("decoding/", "leak_at/", "semantic/", "copyright/"))
    }
    figures |= {"forget/rougeL": 0.25, "model_utility": 0.9, "forget_quality": 0.2}
    folder = make_run(tmp_path / "run", figures)
    write_jsonl(
        folder / "evaluations.jsonl",
        [
            {"step": n, "metrics": {"forget/rougeL": 0.5, "forget_quality": 0.1**n, "forget/mia_loss": n}}
            for n in (1, 2)
        ],
    )
    tensors = {"model.layers.0.mlp.up.weight": {"norm": 3.0, "change": 0.3, "stable_rank": 2.0}}
    write_json(folder / "weight_change.json", {"tensors": tensors})
    found = panels(gather([read_run(folder)]))
    assert len(drawn) == 14, [chart.title for chart in drawn]
    assert all(chart.x_label and chart.y_label for chart in drawn)
    training = [chart for chart in drawn if "while training" in chart.title]
    body = next(panel.body for panel in found if panel.title == "All figures")
    assert "<dt id=" in body and METRICS["forget/mia_loss"].about.formula in Tags(body).text
    assert [(chart.y_label, chart.log_y) for chart in training] == [
        *(("value, 0 to 1", False), ("p-value", True), ("value of the figure", False)),
    ]


def test_loss_terms_of_very_different_size_are_drawn_on_a_logarithmic_axis(tmp_path):
    folder = make_run(tmp_path / "run")
    for small, expected in ((1e-4, True), (0.5, False), (-1e-4, False)):
        write_jsonl(folder / "log.jsonl", [{"step": n, "npo": 1 / n, "nll": small} for n in (1, 2)])
        assert terms(read_run(folder)).log_y == expected


@pytest.mark.parametrize(
    ("budget", "longest", "others", "shown"),
    [
        (120, 47, {}, False),
        (120, 48, {}, True),
        (120, None, {}, True),
        (48, None, {}, False),
        (120, 90, {"forget/rougeL": None}, False),
    ],
)
def test_a_larger_budget_is_named_only_where_texts_needed_it(budget, longest, others, shown):
    """Under the smaller budget a model writes the same texts, as long as all of them ended before it."""
    figures = {"n": 4} | ({} if longest is None else {"longest_text": longest})
    retain = {"forget/rougeL": figures, "forget/prob": {"n": 4}}
    run = {key: {"n": 4} for key in ("forget/rougeL", "forget/prob") if key not in others}
    config = lambda tokens: {"evaluate": {"max_new_tokens": tokens}}
    found = differing_settings(
        {"this run": Conditions(config(48), run), "retain": Conditions(config(budget), retain)}
    )
    assert found == ([f"evaluate.max_new_tokens: 48 in this run, {budget} in retain"] if shown else [])


def test_how_answers_were_sampled_is_named_where_several_runs_have_such_figures():
    config = lambda count: {"evaluate": {"samples": count}}
    sampled, plain = {"leak_at/1": {"n": 4}}, {"forget/rougeL": {"n": 4}}
    lines = lambda *details: differing_settings(
        {name: Conditions(config(n), detail) for n, (name, detail) in enumerate(zip("ab", details))}
    )
    assert lines(sampled, sampled) == ["evaluate.samples: 0 in a, 1 in b"]
    assert lines(sampled, plain) == [] == lines(plain, plain)


def test_the_leaderboards_picture_is_that_of_its_data():
    assert (REPO / "docs/frontier_leaderboard.svg").read_text() == leaderboard_picture(), "run make_docs.py"
