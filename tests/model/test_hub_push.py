"""A model on the hub: what is sent to a stand-in server, and that no forgotten text is in it."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from conftest import FICTIONAL

from unlearnkit.core.files import UserError, read_jsonl, write_json, write_jsonl
from unlearnkit.exec.config.rules.model_rules import publishing_errors
from unlearnkit.model.report.finished_run import read_run
from unlearnkit.model.report.model_card import card, eval_results
from unlearnkit.model.run.hub_push import push_run


class Hub(ThreadingHTTPServer):
    """A stand-in for the hub: creates repositories, takes every file inline, keeps what it was sent."""

    def __init__(self, status: int = 200):
        super().__init__(("127.0.0.1", 0), Answers)
        self.status, self.created, self.files = status, [], {}
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answers(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.status != 200:
            return self._answer({"error": "no rights"}, self.server.status)
        if self.path.endswith("/repos/create"):
            self.server.created.append(json.loads(body))
            return self._answer({"url": f"{self.server.address}/me/model"})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self._answer(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                    ]
                }
            )
        if "/commit/" in self.path:
            for line in body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    self.server.files[part["value"]["path"]] = base64.b64decode(part["value"]["content"])
            url = f"{self.server.address}/me/model/commit/{'a' * 40}"
            return self._answer({"commitUrl": url, "commitOid": "a" * 40, "success": True})
        return self._answer({"type": "model"})

    def do_GET(self):
        self._answer({"id": "me/model", "sha": "a" * 40, "siblings": []})

    def _answer(self, value: dict, status: int = 200):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A function that starts a hub of a status, to which the client then speaks."""
    started: list[Hub] = []

    def start(status: int = 200) -> Hub:
        server = Hub(status)
        started.append(server)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", server.address)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        return server

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def make_run(folder, dataset="Fictional_forget10", model="owner/base", adapter=False):
    """A finished run with a model, and samples full of what was to be forgotten."""
    config = {
        "overall": {"model_name": model, "seed": 0},
        "unlearn": {"unlearn_method": "NPO+FT", "lr": 1e-3, "optimizer": "AdamW"},
        "dataset": {"forget_dataset_name": dataset, "data_dir": None},
        "evaluate": {"retain_results": None},
    }
    write_json(folder / "config.json", config)
    write_json(folder / "metrics.json", {"forget/rougeL": 0.25, "model_utility": 0.9, "privleak": None})
    detail = {
        "forget/rougeL": {"n": 100, "interval": [0.2, 0.3], "reason": ""},
        "privleak": {"n": 0, "interval": None, "reason": "no holdout rows"},
    }
    write_json(folder / "metrics_detail.json", detail)
    rows = read_jsonl(FICTIONAL / "target/results/samples/forget.jsonl")
    write_jsonl(folder / "samples/forget.jsonl", rows)
    facts = {"seed": 0, "started": "2026-11-27T00:00:00+00:00", "packages": {"torch": "2.13.0"}}
    data = {"forget": {"rows": 100, "fingerprint": "0123456789abcdef"}}
    write_json(folder / "environment.json", facts | {"data": data})
    (folder / "report.html").write_text("".join(row["answer"] for row in rows))
    names = (
        ["adapter_config.json", "adapter_model.safetensors"] if adapter else ["config.json", "a.safetensors"]
    )
    (folder / "checkpoints").mkdir()
    for name in (*names, "tokenizer.json", "unlearning.json"):
        (folder / "checkpoints" / name).write_text("{}")
    return folder


def test_the_model_its_card_and_nothing_forgotten_are_sent(hub, tmp_path):
    server, folder = hub(), make_run(tmp_path / "run", "Tofu_forget10")
    assert push_run(folder, "me/model") == f"{server.address}/me/model"
    assert server.created[0]["visibility"] == "private"
    assert server.files.keys() == {
        *("README.md", "config.json", "a.safetensors", "tokenizer.json", ".eval_results/unlearning.yaml"),
    }
    sent = b"\n".join(server.files.values()).decode()
    for row in read_jsonl(folder / "samples/forget.jsonl"):
        assert row["answer"] not in sent and row["question"] not in sent
    assert str(tmp_path) not in sent
    (entry,) = [
        e for e in yaml.safe_load(server.files[".eval_results/unlearning.yaml"]) if e["value"] == 0.25
    ]
    assert entry["dataset"] == {"id": "locuslab/TOFU", "task_id": "forget/rougeL"}
    assert "95 % interval 0.200 to 0.300" in entry["notes"] and "n = 100" in entry["notes"]


def test_the_card_names_base_relation_method_data_and_limits(tmp_path):
    folder = make_run(tmp_path / "run", "Tofu_forget10", adapter=True)
    text = card(read_run(folder), is_adapter=True)
    head = yaml.safe_load(text.split("---")[1])
    assert head["base_model"] == "owner/base" and head["base_model_relation"] == "adapter"
    assert head["datasets"] == ["locuslab/TOFU"] and "unlearning" in head["tags"] and "NPO+FT" in head["tags"]
    for part in ("0.250 [0.200, 0.300]", "0123456789abcdef (100 rows)", "was not measured", "not deletion"):
        assert part in text


def test_rows_and_models_of_this_machine_are_named_without_a_path_and_have_no_entry(tmp_path):
    model = tmp_path / "secret-place" / "base"
    model.mkdir(parents=True)
    run = read_run(make_run(tmp_path / "run", model=str(model)))
    text = card(run)
    assert "a local model, `base`" in text and "secret-place" not in text
    assert "base_model" not in yaml.safe_load(text.split("---")[1])
    assert eval_results(run) == []


def test_a_refusal_of_the_hub_says_that_the_run_is_complete(hub, tmp_path):
    hub(403)
    folder = make_run(tmp_path / "run")
    with pytest.raises(UserError, match="the run is complete in .* was not pushed to me/model: .*403"):
        push_run(folder, "me/model")
    assert (folder / "checkpoints/README.md").is_file()


def test_a_run_without_a_model_is_not_pushed(hub, tmp_path):
    server, folder = hub(), make_run(tmp_path / "run")
    (folder / "checkpoints/a.safetensors").unlink()
    with pytest.raises(UserError, match="has no model to send"):
        push_run(folder, "me/model")
    assert not server.created


def test_what_could_not_be_pushed_is_refused_before_the_run(hub, monkeypatch):
    from types import SimpleNamespace as Is

    def errors(trains=True, logger="json"):
        method = Is(name="origin", trains=trains)
        return publishing_errors(
            Is(logger=Is(push_to_hub="me/model"), method=method, overall=Is(logger=logger))  # type: ignore
        )

    assert "offline" in errors()[0].lower() or "HF_HUB_OFFLINE" in errors()[0]
    assert "trains no model" in errors(trains=False)[0]
    assert "keeps no model" in errors(logger="none")[0]
    monkeypatch.setattr("unlearnkit.model.run.hub_push.offline_reason", lambda: "")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert "HF_TOKEN" in errors()[0]
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_test")
    assert errors() == []
