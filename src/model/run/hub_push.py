"""The trained model of a run on the Hugging Face hub, with its card.

What is sent is a list of kinds of files: weights, configs, tokenizer, card and figures. Samples, report and
logs stay here: they hold what was to be forgotten.
"""

from pathlib import Path

from ...core.files import UserError, write_text
from ...core.hub_access import offline_reason

SENT = (
    *("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"),
    *("adapter_config.json", "tokenizer*", "special_tokens_map.json", "chat_template.jinja"),
    *("vocab.*", "merges.txt", "*.model", "README.md", ".eval_results/unlearning.yaml"),
)
"""Files of the model's folder that are sent."""


def publishing_fault(repository: str) -> str:
    """Why nothing could be pushed, found before the run starts; empty where all is there."""
    from huggingface_hub import get_token

    if offline := offline_reason():
        return (
            f"logger.push_to_hub {repository}: {offline}; leave it out, or run where the hub can be reached"
        )
    if not get_token():
        return (
            f"logger.push_to_hub {repository}: there is no token of the hub; log in with `hf auth login`, or"
            " set HF_TOKEN"
        )
    return ""


def push_run(folder: Path, repository: str) -> str:
    """Write the card beside the model of a finished run and send both.

    Args:
        folder: The run folder.
        repository: `owner/name`; made private where it is not there.

    Returns:
        The address of the repository.

    Raises:
        UserError: the run kept no model, or the hub refused.
    """
    model = folder / "checkpoints"
    write_card(folder, model)
    files = sorted({path for pattern in SENT for path in model.glob(pattern)})
    if not any(path.suffix == ".safetensors" for path in files):
        raise UserError(f"logger.push_to_hub: {model} has no model to send")
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        api = HfApi()
        place = api.create_repo(repository, private=True, exist_ok=True)
        parts = [CommitOperationAdd(path.relative_to(model).as_posix(), str(path)) for path in files]
        api.create_commit(repository, parts, commit_message="Unlearned model with its card")
    except Exception as error:  # of the client, the server or the network: all mean that it was not sent
        raise UserError(
            f"the run is complete in {folder}, but it was not pushed to {repository}:"
            f" {' '.join(str(error).split())[:300]}. Its card is there: hf upload {repository} {model}"
        ) from None
    return str(place)


def write_card(folder: Path, model: Path) -> None:
    """Write README.md and `.eval_results/unlearning.yaml` into the model's folder."""
    import yaml
    from huggingface_hub import eval_result_entries_to_yaml

    from ..report.finished_run import read_run
    from ..report.model_card import card, eval_results

    run = read_run(folder)
    is_adapter = (model / "adapter_config.json").is_file() and not (model / "config.json").is_file()
    write_text(model / "README.md", card(run, is_adapter))
    entries = eval_results(run)
    if entries:
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        write_text(model / ".eval_results" / "unlearning.yaml", text)
