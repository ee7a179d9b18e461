"""The strict layer: what it reads, in which order, and how it complains."""

import json
import re
import shutil
from dataclasses import dataclass

import pytest
from conftest import REPO
from scripts import path_of, run_python, run_script

from unlearnkit.core.options import knob
from unlearnkit.exec.cli import make_parser
from unlearnkit.exec.config.reader import ConfigError, StrictConfig, resolve_settings
from unlearnkit.unlearn.base import FORGET, Objective

DEFAULTS = {
    "overall": {"model_name": "owner/model"},
    "dataset": {"forget_dataset_name": "Fictional_forget10"},
}


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch):
    monkeypatch.chdir(REPO)


def settings(*trees: dict, tmp_path=None, **flags):
    """Settings from files (one per tree) and flags (section__key)."""
    files = []
    for number, tree in enumerate(trees):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(tree))
        files.append(str(path))
    words = {key.replace("__", "."): value for key, value in flags.items()}
    return resolve_settings(StrictConfig(), files, words, DEFAULTS)


def complaints(*trees, tmp_path=None, **flags) -> str:
    with pytest.raises(ConfigError) as error:
        settings(*trees, tmp_path=tmp_path, **flags)
    return str(error.value)


def test_later_files_win_and_flags_win_over_files(tmp_path, monkeypatch):
    monkeypatch.setenv("unlearn.lr", "9")
    first, second = {"unlearn": {"lr": 1, "num_epochs": 2}}, {"unlearn.lr": 2}
    assert settings(first, tmp_path=tmp_path).unlearn.lr == 1
    both = settings(first, second, tmp_path=tmp_path)
    assert (both.unlearn.lr, both.unlearn.num_epochs) == (2, 2)
    assert settings(first, second, tmp_path=tmp_path, unlearn__lr="3").unlearn.lr == 3


def test_null_takes_back(tmp_path):
    trees = {"unlearn": {"lr": 1}}, {"unlearn": {"lr": None}}
    assert settings(*trees, tmp_path=tmp_path).unlearn.lr == 1e-4
    assert settings(trees[0], tmp_path=tmp_path, unlearn__lr="null").unlearn.lr == 1e-4


def test_values_from_the_command_line():
    made = settings(
        dataset__self_retain="False",
        unlearn__max_steps="1e3",
        evaluate__metrics="tofu,forget/prob",
        overall__quiet="yes",
    )
    assert made.dataset.self_retain is False
    assert made.overall.quiet is True
    assert made.unlearn.max_steps == 1000
    assert made.evaluate.metrics == ("tofu", "forget/prob")


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("unlearn__num_epochs", "1.9", "expected a whole number at least 1, got '1.9'"),
        ("unlearn__lr", "nan", "expected a number above 0"),
        ("unlearn__lr", "-1", "expected a number above 0"),
        ("overall__quiet", "perhaps", "expected true or false"),
        ("unlearn__scheduler", "linaer", "did you mean linear"),
        ("unlearn__unlearn_method", "NPO+TF", "did you mean NPO+FT"),
        ("unlearn__max_steps", "0", "not 0"),
        ("overall__device", "banana", "auto|cpu|cuda"),
        ("logger__name", "../../x", "a text of the form"),
        ("overall__seed", "4294967296", "at most"),
        ("unlearn__lr", "9" * 400, "expected a number"),
        ("dataset__forget_dataset_name", "Fictional_forget100", "did you mean Fictional_forget10"),
        ("evaluate__retain_results", "no/such/folder", "expected an existing file or folder"),
        ("evaluate__metrics", "tofuu", "did you mean tofu"),
        ("dataset__template", "nothing", "{question}"),
        ("dataset__forget_dataset_name", "Fictional_retain90", "cannot be forgotten"),
    ],
)
def test_wrong_values(key, value, told):
    assert told in complaints(**{key: value})


def test_every_spelling_of_a_method_is_taken():
    for text, name in (
        ("PO", "CL"),
        ("GA+GDR", "GA+FT"),
        ("GradDiff", "GA+FT"),
        ("npo_klr", "NPO+KL"),
        ("idk+kl", "CL+KL"),
    ):
        assert settings(unlearn__unlearn_method=text).unlearn.unlearn_method == name


def test_what_a_run_reads_is_never_what_it_replaces(tmp_path):
    model = tmp_path / "run" / "checkpoints"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_text("")
    flags = {"overall__model_name": str(model), "logger__name": "run", "logger.json.root": str(tmp_path)}
    assert "which logger.overwrite would replace" in complaints(logger__overwrite="true", **flags)


def test_settings_without_effect_are_said(caplog):
    settings(**{"unlearn.lora.r": "4", "logger.wandb.project": "x"})
    assert "unlearn.lora.r is set without effect: unlearn.use_lora is false" in caplog.text
    assert "logger.wandb.project" in caplog.text


def test_rules_speak_although_values_are_wrong():
    told = complaints(unlearn__lr="abc", evaluate__metrics="foo", overall__tokenizer_name="x")
    assert "unlearn.lr" in told
    assert "evaluate.metrics" in told
    assert "overall.tokenizer_name" in told


def test_all_complaints_at_once_with_their_origin(tmp_path):
    told = complaints(
        {"unlearn": {"lrr": 1, "num_epochs": 0}, "nonsense": {}}, tmp_path=tmp_path, overall__seed="x"
    )
    for part in (
        "0.json: unknown key 'unlearn.lrr'; did you mean unlearn.lr",
        "unlearn.num_epochs: expected",
        "(%s" % (tmp_path / "0.json"),
        "unknown key 'nonsense'",
        "overall.seed: expected",
        "(command line)",
    ):
        assert part in told


@pytest.mark.parametrize(
    "tree, told",
    [
        ({"unlearn": {"unlearn_method": ["NPO"]}}, "unlearn.unlearn_method: expected"),
        ({"unlearn": 5}, "unlearn is a section"),
        ({"unlearn": {"lr": {"a": 1}}}, "unlearn.lr is a value"),
        ([1], "expected an object"),
    ],
)
def test_shape_errors(tree, told, tmp_path):
    assert told in complaints(tree, tmp_path=tmp_path)


@pytest.mark.parametrize(
    "text, told", [('{"unlearn": {"lr": 1,}}', "line 1, column"), ('{"a": 1, "a": 2}', "twice")]
)
def test_broken_files(text, told, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="x.json") as error:
        resolve_settings(StrictConfig(), [str(path), str(tmp_path / "none.json"), str(tmp_path)], {}, {})
    assert told in str(error.value)
    assert "no such file" in str(error.value)
    assert "is a folder" in str(error.value)


def test_a_flag_of_a_method_chosen_in_a_file(tmp_path):
    made = settings({"unlearn": {"unlearn_method": "NPO+FT"}}, tmp_path=tmp_path, unlearn__NPO__beta="0.5")
    assert made.components["unlearn.NPO"].beta == 0.5


def test_keys_of_other_methods_are_kept_and_said(tmp_path, caplog):
    settings({"unlearn": {"unlearn_method": "GA+FT", "NPO": {"beta": 0.5}, "p": 0.3}}, tmp_path=tmp_path)
    assert "unlearn.NPO.beta is set but the method is GA+FT" in caplog.text
    assert "unlearn.p is accepted but does nothing" in caplog.text


def test_a_whole_methods_section_leads_to_its_parts(tmp_path):
    tree = {
        "note": "for readers",
        "unlearn": {"unlearn_method": "NPO+FT", "NPO+FT": {"gamma": 2.5, "beta": 0.3}, "GA+FT": {"gamma": 9}},
    }
    made = settings(tree, tmp_path=tmp_path)
    assert made.unlearn.gamma == 2.5
    assert made.components["unlearn.NPO"].beta == 0.3
    assert settings(tree, tmp_path=tmp_path, unlearn__gamma="7").unlearn.gamma == 7
    tree["unlearn"]["gamma"] = 1.0
    assert "set only one of the two" in complaints(tree, tmp_path=tmp_path)
    assert "unknown key 'unlearn.NPO+FT.betta'" in complaints(
        {"unlearn": {"NPO+FT": {"betta": 1}}}, tmp_path=tmp_path
    )


FAMILY = {
    "overall": {"model_name": "owner/model", "logger": "json", "cache_dir": ".cache", "seed": 0},
    "unlearn": {
        "unlearn_method": "NPO+FT",
        "num_epochs": 5,
        "lr": 1e-5,
        "weight_decay": 0.1,
        "gradient_accumulation_steps": 4,
        "task_name": "tofu",
        "sophia": False,
        "p": 0.01,
        "q": 0.01,
        "use_lora": False,
        "mu": 1e-3,
        "max_steps": 400,
        "resume_path": None,
        "mask_path": None,
        "NPO+FT": {"gamma": 1.0},
        "sophia_params": {"betas_low": 0.9, "betas_high": 0.95, "rho": 0.03},
    },
    "dataset": {
        "forget_dataset_name": "Tofu_forget10",
        "retain_dataset_name": "Tofu_retain90",
        "dataset_seed": 0,
        "forget_ratio": 200,
        "self_retain": False,
        "batch_size": 1,
    },
    "logger": {"name": "run", "json": {"root": "files/logs"}},
}


def test_the_familys_four_sections_parse_unchanged(tmp_path):
    made = settings(FAMILY, tmp_path=tmp_path)
    assert (made.method.name, made.dataset.forget_ratio, made.unlearn.gamma) == ("NPO+FT", 200, 1.0)
    assert made.json_logger.root == "files/logs"


def test_the_familys_words_for_sophia(tmp_path):
    made = settings({**FAMILY, "unlearn": {**FAMILY["unlearn"], "sophia": True}}, tmp_path=tmp_path)
    assert (made.unlearn.optimizer, made.optimizer.beta1, made.optimizer.beta2, made.optimizer.rho) == (
        "Sophia",
        0.9,
        0.95,
        0.03,
    )
    assert settings(made.resolved(), tmp_path=tmp_path) == made
    assert "set only one of the two" in complaints(
        {"unlearn": {"sophia": True, "optimizer": "AdamW"}}, tmp_path=tmp_path
    )


def test_flatness_by_name_or_by_key(tmp_path):
    by_name = settings(tmp_path=tmp_path, unlearn__unlearn_method="NPO+FT+SAM", unlearn__flat__SAM__rho="0.2")
    by_key = settings(
        tmp_path=tmp_path,
        unlearn__unlearn_method="NPO+FT",
        unlearn__flatness="sam",
        unlearn__flat__SAM__rho="0.2",
    )
    assert by_name.flatness == by_key.flatness
    assert by_name.flatness.rho == 0.2
    assert by_name.unlearn.flatness == "SAM"
    assert "set only one of the two" in complaints(
        tmp_path=tmp_path, unlearn__unlearn_method="NPO+FT+SAM", unlearn__flatness="RS"
    )


def test_parity_presets_switches_and_is_weaker_than_a_word(tmp_path, caplog):
    made = settings(
        tmp_path=tmp_path,
        unlearn__unlearn_method="NPO+FT",
        unlearn__published="wagle",
        unlearn__optimizer="Sophia",
    )
    assert made.components["unlearn.NPO"].reduction == "batch_mean"
    assert (made.optimizer.hessian, made.optimizer.batch_tokens) == ("none", 5120)
    assert not caplog.text
    said = settings(
        tmp_path=tmp_path,
        unlearn__unlearn_method="NPO+FT",
        unlearn__published="wagle",
        unlearn__NPO__reduction="rows",
    )
    assert said.components["unlearn.NPO"].reduction == "rows"
    assert settings(made.resolved(), tmp_path=tmp_path) == made
    assert "did you mean wagle" in complaints(tmp_path=tmp_path, unlearn__published="wagel")


def test_every_preset_is_of_switches_that_exist():
    from unlearnkit.exec.config.checks import checker_for
    from unlearnkit.exec.config.reader import component_sections, knobs_of
    from unlearnkit.model.settings.run_settings import SECTIONS
    from unlearnkit.unlearn.published.presets import PRESETS

    for presets in PRESETS.values():
        for section, preset in presets.items():
            kinds = {
                name: (kind, knob)
                for name, kind, knob, _ in knobs_of((SECTIONS | component_sections())[section])
            }
            for key, value in preset.items():
                assert checker_for(*kinds[key]).check(value) == value


def test_the_retain_weight_of_rmu_is_unlearn_gamma_however_it_is_spelt(tmp_path):
    from unlearnkit.unlearn import compose

    def weight(**flags):
        settings = resolve_settings(
            StrictConfig(), [], {key.replace("__", "."): value for key, value in flags.items()}, {}
        )
        composition = compose(
            settings.method, settings.components, settings.unlearn.forget_weight, settings.unlearn.gamma
        )
        return {type(objective).__name__: weight for _, weight, objective in composition.active}

    assert weight(unlearn__unlearn_method="R2MU", unlearn__R2MU__gamma="1.7") == {
        "R2MU": 1.0,
        "EMBED": 1.7,
        "CoT": 1.0,
    }
    assert weight(unlearn__unlearn_method="RMU+KL", unlearn__gamma="3") == {"RMU": 1.0, "KL": 3.0}
    assert set(weight(unlearn__unlearn_method="RMU+RTP", unlearn__gamma="0")) == {"RMU", "RTP"}


def test_traces_that_are_not_there_are_missed_before_anything_starts():
    from unlearnkit.exec.config.rules.data_rules import missing_files

    said = {"unlearn.unlearn_method": "R2MU", "dataset.traces": "no/such.jsonl"}
    missing = lambda **more: missing_files(resolve_settings(StrictConfig(), [], said | more, {}))
    assert "dataset.traces: there is no file no/such.jsonl; src/exec/make_traces.py" in missing()[0]
    assert missing(**{"unlearn.unlearn_method": "RMU"}) == []


def test_the_parity_of_r2mu_reaches_the_rows_too():
    settings = resolve_settings(
        StrictConfig(), [], {"unlearn.unlearn_method": "R2MU", "unlearn.published": "r2mu"}, {}
    )
    assert (settings.dataset.trace_context, settings.dataset.cot_context) == (False, False)
    assert (
        settings.components["unlearn.R2MU"].positions
        == settings.components["unlearn.R2MU"].trace_positions
        == "all"
    )
    said = {"unlearn.unlearn_method": "R2MU", "unlearn.published": "r2mu", "dataset.cot_context": "true"}
    assert resolve_settings(StrictConfig(), [], said, {}).dataset.cot_context


@pytest.mark.parametrize(
    "flags, told",
    [
        (
            {"unlearn__unlearn_method": "R2MU", "unlearn__R2MU__layer": "-1"},
            "unlearn.R2MU.layer: expected a whole number at least 0",
        ),
        (
            {"unlearn__unlearn_method": "R2MU", "dataset__forget_reasoning": "both"},
            "dataset.forget_reasoning both: R2MU takes one row",
        ),
        (
            {
                "unlearn__unlearn_method": "R2MU",
                "dataset__cot_dataset_name": "Reasoning_limo",
                "dataset__cot_data_dir": "src",
            },
            "dataset.cot_data_dir: src has no limo.jsonl",
        ),
        ({"dataset__think_open": "x", "dataset__think_close": "x"}, "must be two different marks"),
        (
            {"unlearn__unlearn_method": "R2MU", "unlearn__R2MU__train_parameters": "("},
            "unlearn.R2MU.train_parameters: expected a regular",
        ),
        (
            {"unlearn__unlearn_method": "R2MU", "overall__seed": "9" * 30},
            "overall.seed: expected a whole",
        ),
        ({"unlearn__unlearn_method": "R2MU+CoT"}, "R2MU has a CoT term of its own"),
        ({"judge__base_url": "notaurl"}, "judge.base_url: expected"),
        ({"evaluate__original_model": "nowhere"}, "evaluate.original_model: there is no folder nowhere"),
        ({"judge__kind": "lm"}, "judge.model: judge.kind lm needs the name of a model"),
        (
            {"unlearn__unlearn_method": "SimNPO+FT", "unlearn__SimNPO__beta": "-1"},
            "unlearn.SimNPO.beta: expected a number above 0",
        ),
        ({"unlearn__gamma": "nan"}, "unlearn.gamma: expected a number"),
        ({"unlearn__unlearn_method": "FT", "unlearn__flatness": "SAM"}, "flattens the forget loss"),
        ({"unlearn__unlearn_method": "CL+FT", "unlearn__CL__batch": "concat"}, "unlearn.CL.batch concat"),
        (
            {"unlearn__unlearn_method": "NPO", "unlearn__optimizer": "Sophia"},
            "has no retain rows to draw labels on",
        ),
        (
            {"unlearn__unlearn_method": "GA+KL", "overall__random_init": "true"},
            "unlearn.retain.KL compares with the initial model",
        ),
        (
            {"unlearn__unlearn_method": "WHP", "unlearn__WHP__reinforced": "nowhere"},
            "unlearn.WHP.reinforced: there is no folder nowhere",
        ),
        (
            {"unlearn__unlearn_method": "NPO", "unlearn__flatness": "WA", "unlearn__max_steps": "50"},
            "unlearn.flat.WA.start is 100",
        ),
        ({"unlearn__unlearn_method": "PDU+FT"}, "retain term of its own"),
        (
            {"unlearn__unlearn_method": "PDU", "unlearn__gamma": "0"},
            "unlearn.gamma 0: PDU has its retain term in itself",
        ),
        (
            {"unlearn__unlearn_method": "NPO+FT", "unlearn__optimizer": "SophiaG", "unlearn__gamma": "0"},
            "no retain rows to draw labels on",
        ),
        ({"unlearn__unlearn_method": "NPO+FT+L1", "unlearn__use_lora": "true"}, "L1 is about the weights"),
        ({"unlearn__unlearn_method": "NPO+FT+SWA", "unlearn__use_lora": "true"}, "WA is about the weights"),
        (
            {"unlearn__unlearn_method": "CL+FT", "unlearn__published": "tofu"},
            "it comes from unlearn.published tofu",
        ),
        ({"unlearn__unlearn_method": "NPO+FT+KL"}, "KL is one too many"),
        ({"unlearn__optimizer": "Sofia"}, "did you mean Sophia"),
    ],
)
def test_bad_company_is_refused_with_the_key_named(flags, told, tmp_path):
    assert told in complaints(tmp_path=tmp_path, **flags)


def test_words_without_effect_are_remarked_upon_and_resolved_ones_are_not(tmp_path, caplog):
    settings(tmp_path=tmp_path, unlearn__unlearn_method="NPO", unlearn__gamma="5", unlearn__published="flat")
    assert "NPO has no retain side" in caplog.text
    assert "unlearn.published flat changes nothing in NPO" in caplog.text
    caplog.clear()
    made = settings(tmp_path=tmp_path, unlearn__unlearn_method="NPO+FT")
    settings(made.resolved(), tmp_path=tmp_path)
    assert not caplog.text


def test_a_retain_model_that_was_read_otherwise_is_remarked_upon(tmp_path, caplog):
    settings(
        tmp_path=tmp_path,
        evaluate__convention="open_unlearning",
        evaluate__retain_results="files/models/fictional/retain/results",
    )
    folder = REPO / "files/models/fictional/retain/results/config.json"
    assert ("two readings of the rows" in caplog.text) == folder.is_file()


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"model_utility": 0.', "metrics.json, line 1"),
        ("[]", "metrics.json: expected an object"),
        ('{"model_utility": "high"}', "metrics.json: 'model_utility' must be a finite number or null"),
        ('{"seconds": 1%s}' % ("0" * 400), "must be a finite number or null"),
    ],
)
def test_a_retain_models_broken_figures_are_found_at_the_start(text, told, tmp_path):
    folder = shutil.copytree(REPO / "files/models/fictional/retain/results", tmp_path / "retain")
    settings(evaluate__retain_results=str(folder), tmp_path=tmp_path)
    (folder / "metrics.json").write_text(text)
    found = complaints(evaluate__retain_results=str(folder))
    assert told in found
    assert "evaluate.retain_results" in found


def test_a_whole_methods_section_reaches_its_wrapper(tmp_path):
    tree = {"unlearn": {"unlearn_method": "GradDiff+SAM", "GA+FT+SAM": {"rho": 0.3, "gamma": 2}}}
    made = settings(tree, tmp_path=tmp_path)
    assert (made.method.name, made.flatness.rho, made.unlearn.gamma) == ("GA+FT+SAM", 0.3, 2)


def test_resolved_settings_read_back_the_same(tmp_path):
    made = settings(FAMILY, tmp_path=tmp_path, unlearn__NPO__beta="0.25")
    again = settings(made.resolved(), tmp_path=tmp_path)
    assert again == made
    assert json.dumps(again.resolved()) == json.dumps(made.resolved())


def test_a_new_field_appears_everywhere_and_same_names_do_not_collide():
    @FORGET.register("Fresh")
    @dataclass(frozen=True)
    class Fresh(Objective):
        beta: float = knob(3.0, "a fresh number", above=1)

    try:
        config = StrictConfig()
        assert "--unlearn.Fresh.beta" in make_parser(config, "x").format_help()
        flags = {"unlearn.unlearn_method": "Fresh", "unlearn.Fresh.beta": "2", "unlearn.NPO.beta": "0.7"}
        made = resolve_settings(config, [], flags, DEFAULTS)
        assert made.components["unlearn.Fresh"].beta == 2.0
        with pytest.raises(ConfigError, match="unlearn.Fresh.beta: expected a number above 1"):
            resolve_settings(StrictConfig(), [], flags | {"unlearn.Fresh.beta": "0.5"}, {})
    finally:
        del FORGET["Fresh"]


@pytest.mark.run
def test_help_is_quick_complete_and_stable():
    code = (
        "import runpy, sys\n"
        "sys.path.insert(0, 'src/exec')\n"
        "import checkout\n"  # it looks for the packages that are hidden below
        "for name in ('transformers', 'datasets', 'sentence_transformers', 'peft'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    words = path_of("unlearn_model"), "--help", "all"
    shown = [run_python("-c", code, *words, COLUMNS="120")]
    shown += [run_script("unlearn_model", flag, "all", COLUMNS="120") for flag in ("-h", "--help")]
    assert [run.returncode for run in shown] == [0, 0, 0], shown[0].stderr
    assert shown[0].stdout == shown[1].stdout == shown[2].stdout
    config = StrictConfig()
    assert all("--" + ".".join(path) in shown[0].stdout for path in config.entries)


@pytest.mark.parametrize(
    "words, told",
    [
        (["--unlearn.lr", "x"], "unlearn.lr: expected a number"),
        (["--unlearn.lrr", "1"], "did you mean --unlearn.lr"),
        (["--unlearn.l", "3"], "unknown word"),
        (["--config_file", "none.json"], "none.json: no such file"),
        (["--overall.model_name", "docs"], "overall.model_name"),
        (["--overall.model_name", "README.md"], "is a file"),
        (["--unlearn.GA+FT.gama", "1"], "unknown word"),
    ],
)
def test_wrong_input_ends_with_status_2_and_leaves_nothing(words, told, tmp_path):
    run = run_script("unlearn_model", *words, "--logger.json.root", tmp_path / "out", cwd=REPO)
    assert run.returncode == 2 and told in run.stderr, run.stderr
    assert "Traceback" not in run.stderr
    assert "\x1b" not in run.stderr
    assert not list(tmp_path.iterdir())


def test_whole_method_flags_work_on_the_command_line(tmp_path):
    run = run_script("unlearn_model", *"--unlearn.unlearn_method GA+FT --unlearn.GA+FT.gamma x".split())
    assert run.returncode == 2
    assert "unlearn.gamma: expected a number" in run.stderr
    run = run_script(
        "unlearn_model",
        *"--unlearn.unlearn_method NPO+FT --unlearn.NPO.beta 0 --unlearn.NPO+FT.gamma=-1".split(),
    )
    assert (
        "unlearn.NPO.beta: expected a number above 0" in run.stderr
        and "unlearn.gamma: expected" in run.stderr
    ), run.stderr


def test_numbers_of_gao_that_compare_nothing_are_refused_with_the_arithmetic():
    gao = {"unlearn__unlearn_method": "GAO"}
    said = complaints(**gao, unlearn__GAO__K="5")
    assert (
        "unlearn.GAO.K 5 and unlearn.GAO.tau 0.1: 5 signs, an odd number, sum to at least 1, and 1 > tau x K"
        " = 0.5" in said
    )
    assert "take K 6, or tau 0.2" in said
    for count in (*range(3, 128, 8), 127):
        try:
            settings(**gao, unlearn__GAO__K=str(count), unlearn__GAO__tau="0.005")
        except ConfigError as error:
            advice = re.search(r"take K (\d+), or tau ([\d.]+),", str(error))
            settings(**gao, unlearn__GAO__K=advice[1], unlearn__GAO__tau="0.005")
            settings(**gao, unlearn__GAO__K=str(count), unlearn__GAO__tau=advice[2])
        else:
            raise AssertionError(count)
    settings(**gao, unlearn__GAO__K="5", unlearn__GAO__agreement="none")
    settings(**gao, unlearn__GAO__K="5", unlearn__GAO__rho="0")
    assert "unlearn.GAO.pad_to counts the padding" in complaints(**gao, unlearn__GAO__pad_to="512")
    assert "takes one row of its part 'paraphrases'" in complaints(**gao, dataset__forget_reasoning="both")


def test_what_beats_a_preset_is_remarked(caplog):
    settings(unlearn__unlearn_method="GAO", unlearn__published="gao_verbatim", unlearn__GAO__rho="0.2")
    assert (
        "unlearn.published gao_verbatim would set unlearn.GAO.rho to 0.5, but command line says 0.2, which"
        " counts" in caplog.text
    )


def test_the_released_form_of_gao_is_what_the_preset_says_with_our_configs():
    for config in ("tofu/gao.json", "muse/gao.json"):
        words = {"unlearn.published": "gao_verbatim", "overall.model_name": "owner/model"}
        made = resolve_settings(StrictConfig(), [f"configs/{config}"], words, {})
        npo, gao = made.components["unlearn.NPO"], made.components["unlearn.GAO"]
        assert (npo.beta, npo.reduction, gao.pad_to, gao.positions, gao.choice, gao.rho) == (
            1.0,
            "batch_mean",
            512,
            "all",
            "shortest",
            0.5,
        )


def test_keys_of_the_writer_that_is_not_asked_are_remarked(caplog):
    settings(paraphrases__model="owner/model", paraphrases__top_k="3")
    assert "paraphrases.model is set without effect: paraphrases.writer is start" in caplog.text
    assert "top_k" not in caplog.text
    settings(
        paraphrases__writer="endpoint",
        paraphrases__model="m",
        paraphrases__base_url="http://h/v1",
        paraphrases__top_k="3",
    )
    assert "paraphrases.top_k is set without effect: paraphrases.writer is endpoint" in caplog.text


def test_gao_says_which_file_it_misses():
    from unlearnkit.exec.config.rules.data_rules import missing_files

    said = missing_files(settings(unlearn__unlearn_method="GAO", dataset__paraphrases="no/such.jsonl"))
    assert said == [
        "dataset.paraphrases: no/such.jsonl does not exist; src/exec/make_paraphrases.py with the same config"
        " writes it"
    ]
    assert not missing_files(settings(unlearn__unlearn_method="GAO", unlearn__GAO__rho="0"))


@pytest.mark.parametrize(
    "key, value, warning",
    [
        ("unlearn.parity", "wagle", "unlearn.parity is now unlearn.published"),
        ("evaluate.parity", "open_unlearning", "evaluate.parity is now evaluate.convention"),
        ("traces.min_tokens", "4", "traces.min_tokens is gone"),
    ],
)
def test_former_keys_are_read_with_a_warning(key, value, warning, caplog):
    made = resolve_settings(StrictConfig(), [], {key: value}, DEFAULTS)
    assert warning in caplog.text
    assert (made.unlearn.published, made.evaluate.convention).count("none") == (1 if "parity" in key else 2)
    flags = run_script("unlearn_model", f"--{key}", value, "--overall.model_name", "nowhere")
    assert flags.returncode == 2 and "unknown" not in flags.stderr


def test_sampling_keys_have_an_effect_where_sampled_answers_are_measured(caplog):
    settings(**{"evaluate.samples": "8"})
    assert "evaluate.samples is set without effect: evaluate.metrics is auto" in caplog.text
    caplog.clear()
    settings(**{"evaluate.sample_top_p": ".5", "evaluate.metrics": "all"})
    assert "evaluate.sample_top_p is set without effect: evaluate.samples is 0" in caplog.text
    for metrics in ("all", "sampling", "tofu,leak_at/8"):
        caplog.clear()
        settings(**{"evaluate.samples": "8", "evaluate.sample_top_p": ".5", "evaluate.metrics": metrics})
        assert "sampl" not in caplog.text


def test_metrics_of_sampled_answers_that_are_named_without_samples_are_warned_of(caplog):
    settings(**{"evaluate.metrics": "sampling/leak_bound"})
    assert "evaluate.samples is 0, so that leak_at/* and sampling/* are null" in caplog.text
    caplog.clear()
    settings(**{"evaluate.metrics": "all"})
    assert "evaluate.samples" not in caplog.text


@pytest.mark.parametrize(
    "key, value, expected",
    [("samples", "-1", "0"), ("sample_temperature", "0", "above 0"), ("sample_top_p", "1.5", "1")],
)
def test_limits_of_sampling(key, value, expected):
    assert f"evaluate.{key}: expected" in (found := complaints(**{f"evaluate.{key}": value}))
    assert expected in found


def test_a_wrong_data_set_name_brings_no_complaints_about_the_default(tmp_path):
    (tmp_path / "raw_forget.jsonl").touch()
    flags = {"dataset__forget_dataset_name": "MuseNews_nothing", "dataset__data_dir": str(tmp_path)}
    text = complaints(dataset__retain_dataset_name="Fictional_retain95", **flags)
    assert "MuseNews has no split 'nothing'" in text or "no split 'nothing'" in text
    assert "\n" not in text.strip(), text


def test_toxicity_by_a_judge_is_left_to_the_end():
    flags = {
        "unlearn__unlearn_method": "NPO",
        "evaluate__every": "1 epoch",
        "evaluate__every_metrics": "toxic",
    }
    judge = {"judge__kind": "local", "judge__model": "files/models/fictional/target"}
    assert "evaluate.every_metrics: toxic/mean_score asks a judge" in complaints(**flags, **judge)
    assert settings(
        overall__model_name="files/models/fictional/target",
        **flags | {"evaluate__toxicity_model": "files/models/fictional/target"},
    )
