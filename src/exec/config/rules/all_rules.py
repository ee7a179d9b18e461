"""Every rule on settings."""

from ....model.settings.run_settings import Settings
from .data_rules import data_errors, data_warnings
from .engine_rules import launcher_errors
from .evaluation_rules import (
    benchmark_errors,
    convention_warnings,
    judge_errors,
    metric_errors,
    results_errors,
    results_warnings,
    sampling_warnings,
)
from .method_rules import (
    adapter_errors,
    combination_errors,
    edit_errors,
    mask_errors,
    method_warnings,
    objective_errors,
    quantization_errors,
    reference_errors,
    resume_errors,
    weight_errors,
)
from .model_rules import model_errors, overwrite_errors, package_errors, publishing_errors
from .training_rules import stop_errors, training_evaluation_errors


def broken_rules(settings: Settings) -> list[str]:
    """Every reason why this run cannot start, each naming its keys."""
    return [
        *launcher_errors(settings),
        *mask_errors(settings),
        *model_errors(settings),
        *metric_errors(settings),
        *weight_errors(settings),
        *combination_errors(settings),
        *adapter_errors(settings),
        *quantization_errors(settings),
        *reference_errors(settings),
        *edit_errors(settings),
        *data_errors(settings),
        *results_errors(settings),
        *resume_errors(settings),
        *package_errors(settings),
        *publishing_errors(settings),
        *overwrite_errors(settings),
        *judge_errors(settings),
        *objective_errors(settings),
        *benchmark_errors(settings),
        *training_evaluation_errors(settings),
        *stop_errors(settings),
    ]


def warnings(settings: Settings) -> list[str]:
    """What is allowed and probably not meant."""
    return [
        *method_warnings(settings),
        *results_warnings(settings),
        *convention_warnings(settings),
        *sampling_warnings(settings),
        *data_warnings(settings),
    ]
