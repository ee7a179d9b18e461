"""Models for benchmarks behind the harness's own backends: a server, or vLLM."""

from pathlib import Path

from ...core.files import UserError
from ...core.thinking import THINKING_MODES
from ..evaluation import stamp
from ..settings.run_settings import Settings
from .benchmark_runner import BenchmarkModel

RETRIES = 4


def served_model(settings: Settings) -> BenchmarkModel:
    """The model of the run behind benchmarks.backend.

    Raises:
        UserError: the server cannot be reached, or the backend does not support evaluate.decoding.
    """
    from ...metrics import lm_eval_served

    overall, plan = settings.overall, settings.benchmarks
    mode = "direct" if plan.published else settings.evaluate.decoding
    if mode not in ("direct", "thinking"):
        raise UserError(
            f"evaluate.decoding {mode} needs benchmarks.backend transformers; choose thinking or direct"
        )
    folder = Path(overall.model_name).expanduser()
    name = str(folder) if folder.exists() else overall.model_name
    tokenizer = overall.tokenizer_name or name
    # The weights are out of reach, so the cache key holds the name, and the times of local files.
    thinks = mode in THINKING_MODES
    if plan.backend == "vllm":
        options = {
            "seed": overall.seed,
            "dtype": {"fp32": "float32", "auto": "auto"}.get(overall.precision, "bfloat16"),
            "chat_template_args": {"enable_thinking": thinks},
        }
        return BenchmarkModel(
            lambda _: lm_eval_served.vllm_model(name, tokenizer, options),
            ["vllm", name, stamp(name), options],
            mode,
            chat=True,
        )
    assert plan.base_url, "exec.rules refuses a server without an address"
    url = plan.base_url.rstrip("/")
    served = lm_eval_served.ServedModel(
        name, tokenizer, url, plan.key_env, plan.concurrency, RETRIES, overall.seed
    )
    lm_eval_served.check_server(served)
    return BenchmarkModel(
        lambda _: lm_eval_served.server_model(served, settings.dataset.tags, thinks),
        ["server", url, name, stamp(name), overall.seed],
        mode,
        chat=True,
        scoring_refusal=lambda: lm_eval_served.scoring_refusal(served),
    )
