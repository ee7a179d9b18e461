"""Small evaluation logs in the shapes of TOFU and OpenUnlearning, with invented numbers. Their aggregates are
computed here by plain numpy and scikit-learn, as the toolkits do it."""

import json
from pathlib import Path

import numpy as np
from scipy.stats import hmean, ks_2samp
from sklearn.metrics import roc_auc_score

GUARD = 1e-10
SIZES = {"forget": 6, "retain": 7, "ra": 4, "wf": 5, "holdout": 5}
TOFU_TABLES = {
    "eval_log.json": (7, 5),
    "eval_real_author_wo_options.json": (4, 3),
    "eval_real_world_wo_options.json": (5, 3),
    "eval_log_forget.json": (6, 5),
}


def entry(field: str, values, aggregate=None) -> dict:
    """An entry with a value per row; None is a null row."""
    rows = {
        str(n): None if value is None else {field: value if isinstance(value, list) else float(value)}
        for n, value in enumerate(values)
    }
    scored = [np.mean(value) for value in values if value is not None]
    return {"agg_value": float(np.mean(scored)) if aggregate is None else aggregate, "value_by_index": rows}


def probabilities(losses) -> dict:
    """An entry of probabilities and losses, of one answer [N] or several [N, K]; None is a null row."""
    rows = {
        str(n): None if loss is None else {"prob": np.exp(-np.array(loss)).tolist(), "avg_loss": loss}
        for n, loss in enumerate(losses)
    }
    scored = [np.mean(np.exp(-np.array(loss))) for loss in losses if loss is not None]
    return {"agg_value": float(np.mean(scored)), "value_by_index": rows}


def attack(forget, holdout) -> dict:
    labels = [0] * len(forget) + [1] * len(holdout)
    area = float(roc_auc_score(labels, [*forget, *holdout]))
    sides = {"forget": entry("score", forget), "holdout": entry("score", holdout)}
    return sides | {"auc": area, "agg_value": area}


def open_unlearning(seed: int = 0, retain: dict | None = None, null_row: int | None = None) -> dict:
    """A TOFU_EVAL.json.

    Args:
        seed: Draws other numbers.
        retain: The retain model's log, for forget quality and privleak.
        null_row: Forget row that could not be scored. The toolkit then numbers truth ratios anew, from 0.
    """
    draw = np.random.default_rng(seed)
    log, parts = {}, []
    for prefix, size in list(SIZES.items())[:4]:
        kept = prefix in ("forget", "retain")
        answer = draw.uniform(0.05, 2, size).tolist()
        true = draw.uniform(0.5, 3, size).tolist() if kept else answer
        wrong = draw.uniform(1, 4, (size, 5 if kept else 3)).tolist()
        if prefix == "forget" and null_row is not None:
            answer[null_row] = true[null_row] = wrong[null_row] = None
        log[f"{prefix}_Q_A_Prob"] = probabilities(answer)
        log[f"{prefix}_Q_A_PERT_Prob"] = probabilities(wrong)
        if kept:
            log[f"{prefix}_Q_A_PARA_Prob"] = probabilities(true)
        pairs = [(one, other) for one, other in zip(true, wrong) if one is not None]
        right = np.exp([-one for one, _ in pairs])
        ratio = np.exp([-np.mean(other) for _, other in pairs]) / (right + GUARD)
        closeness = np.minimum(ratio, 1 / (ratio + GUARD))
        log["forget_truth_ratio" if prefix == "forget" else f"{prefix}_Truth_Ratio"] = entry(
            "score", ratio, float(np.mean(closeness if prefix == "forget" else np.maximum(0, 1 - ratio)))
        )
        if not kept:
            others = np.exp(-np.array(wrong)).sum(axis=1)
            log[f"{prefix}_Q_A_Prob_normalised"] = entry("prob", right / (right + others + GUARD))
        log[f"{prefix}_Q_A_ROUGE"] = rouge(draw, size, "rougeL_recall")
        parts += [] if prefix == "forget" else [_prob(prefix), f"{prefix}_Q_A_ROUGE", f"{prefix}_Truth_Ratio"]
    for name in ("exact_memorization", "extraction_strength"):
        log[name] = entry("score", draw.uniform(0, 1, SIZES["forget"]))
    for name in ("loss", "zlib", "min_k", "min_k_plus_plus", "gradnorm", "reference"):
        log[f"mia_{name}"] = attack(draw.normal(1, 1, SIZES["forget"]), draw.normal(2, 1, SIZES["holdout"]))
    log["model_utility"] = {"agg_value": float(hmean([log[name]["agg_value"] for name in parts]))}
    log |= _beside(log, retain)
    return log


def _prob(prefix: str) -> str:
    return "retain_Q_A_Prob" if prefix == "retain" else f"{prefix}_Q_A_Prob_normalised"


def _beside(log: dict, retain: dict | None) -> dict:
    """forget_quality and privleak of a log, by the retain model's."""
    ratios = [
        [row["score"] for row in each["forget_truth_ratio"]["value_by_index"].values()]
        for each in (log, retain or log)
    ]
    quality = float(ks_2samp(*ratios).pvalue) if retain else None
    own, reference = log["mia_min_k"]["auc"], retain["mia_min_k"]["auc"] if retain else 0.5
    leak = ((1 - own) - (1 - reference)) / (1 - reference + GUARD) * 100
    return {"forget_quality": {"agg_value": quality}, "privleak": {"agg_value": leak}}


def rouge(draw, size: int, averaged: str) -> dict:
    rows = {
        str(n): {
            **{name: float(draw.uniform()) for name in ("rouge1_recall", "rougeL_f1", "rougeL_recall")},
            "input": f"Who wove cloth {n}?",
            "ground_truth": "Mira Tamm.",
            "generation": "Oda Lenz.",
        }
        for n in range(size)
    }
    return {"agg_value": float(np.mean([row[averaged] for row in rows.values()])), "value_by_index": rows}


def muse(seed: int = 0) -> dict:
    """A MUSE_EVAL.json."""
    draw = np.random.default_rng(seed)
    log = {f"{name}_ROUGE": rouge(draw, 4, "rougeL_f1") for name in ("forget_knowmem", "retain_knowmem")}
    log["forget_verbmem_ROUGE"] = rouge(draw, 3, "rougeL_f1")
    log |= {
        name: entry("score", draw.uniform(0, 1, 3)) for name in ("exact_memorization", "extraction_strength")
    }
    # Scores in float32, and their mean too: some attacks of the toolkit leave them so.
    low, high = (draw.normal(mean, 1, 5).astype(np.float32) for mean in (1, 2))
    log["mia_min_k"] = attack(low, high)
    for side, scores in (("forget", low), ("holdout", high)):
        log["mia_min_k"][side]["agg_value"] = float(scores.mean())
    own = log["mia_min_k"]["auc"]
    log["privleak"] = {"agg_value": ((1 - own) - 0.5) / (0.5 + GUARD) * 100}
    return log


def tofu(seed: int = 0, forget: int = 6) -> dict:
    """An eval_log_aggregated.json with `forget` forget rows."""
    draw = np.random.default_rng(seed)
    log = {}
    for name, (size, answers) in TOFU_TABLES.items():
        size = forget if "forget" in name else size
        tokens = draw.integers(3, 30, size)
        right, true = draw.uniform(0.05, 2, size), draw.uniform(0.5, 3, size)
        wrong = draw.uniform(1, 4, (size, answers))
        columns = {
            "avg_gt_loss": right,
            "gt_loss": right * tokens,
            "num_token_gt": tokens,
            "avg_paraphrased_loss": true,
            "average_perturb_loss": wrong,
            "truth_ratio": np.exp(true - wrong.mean(axis=1)),
            "rougeL_recall": draw.uniform(0, 1, size),
            "rouge1_recall": draw.uniform(0, 1, size),
        }
        log[name] = {
            key: {str(n): value for n, value in enumerate(np.asarray(column).tolist())}
            for key, column in columns.items()
        }
        log[name]["generated_text"] = {str(n): ["Who?", "Oda Lenz.", "Mira Tamm."] for n in range(size)}
    return log


def write(path: Path, log) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(log))
    return path
