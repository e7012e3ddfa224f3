"""Where a language model is found: folders that lack something, and a hub on loopback."""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import safetensors.torch

from tapct.encoders.network import UnreachableError
from tapct.errors import WeightsError
from tapct.language_models.files import find
from tapct.language_models.model import LanguageModel
from tests.language_models import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(BaseHTTPRequestHandler):
    """Serves the files of a folder as group/model, with the hub's headers."""

    folder = None
    asked: list[tuple[str, str]] = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.asked.append((self.command, self.path))
        file = self.folder / self.path.rpartition("/")[2]
        if "/group/model/" not in self.path:
            return self._refuse(404, "RepoNotFound")
        if not re.search(f"/resolve/(main|{COMMIT})/", self.path) or not file.is_file():
            return self._refuse(404, "EntryNotFound")
        body = file.read_bytes()
        self.send_response(200)
        for name, value in (("Content-Length", len(body)), ("ETag", f'"{file.name}"'), ("X-Repo-Commit", COMMIT)):
            self.send_header(name, str(value))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        for name, value in (("X-Error-Code", code), ("X-Repo-Commit", COMMIT), ("Content-Length", "0")):
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def hub(tmp_path, folders, monkeypatch):
    handler = type("OneModel", (Hub,), {"folder": tmp_path / "published", "asked": []})
    shutil.copytree(folders["llama"], handler.folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listening.server_port}"
        for module in ("huggingface_hub.constants", "huggingface_hub.file_download"):
            monkeypatch.setattr(f"{module}.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield handler
        listening.shutdown()


def test_a_model_of_the_hub_is_fetched_once_and_is_that_of_the_folder(hub, folders, monkeypatch):
    found = find("group/model")
    assert (found.name, found.revision) == ("group/model", COMMIT)
    assert found.sha256 == find(str(folders["llama"])).sha256
    assert LanguageModel(found).parameters > 0
    hub.asked.clear()
    assert find("group/model", COMMIT) == found
    assert hub.asked == []
    assert find("group/model") == found  # which commit main is, is asked
    assert {path.rpartition("/")[2] for _, path in hub.asked} == {"config.json"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert find("group/model") == found


def test_shards_are_fetched_by_their_index(hub):
    whole = safetensors.torch.load_file(hub.folder / "model.safetensors")
    (hub.folder / "model.safetensors").unlink()
    names, where = sorted(whole), {}
    for part, own in enumerate((names[::2], names[1::2])):
        file = f"model-{part}.safetensors"
        safetensors.torch.save_file({name: whole[name] for name in own}, hub.folder / file, {"format": "pt"})
        where |= dict.fromkeys(own, file)
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    assert LanguageModel(find("group/model")).parameters > 0
    (hub.folder / "model-1.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks model-1\.safetensors"):
        find(str(hub.folder))


def test_what_the_hub_does_not_have_is_named(hub, monkeypatch):
    with pytest.raises(WeightsError, match=r"there is no .*group/other .*and no folder"):
        find("group/other")
    with pytest.raises(WeightsError, match=r"has no config\.json at v9"):
        find("group/model", "v9")
    (hub.folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"lacks model\.safetensors"):
        find("group/model")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="you have set HF_HUB_OFFLINE"):
        find("group/third")


def test_a_folder_that_is_no_language_model_says_why(folders, tmp_path):
    with pytest.raises(WeightsError, match="there is no folder"):
        find(str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="which has no revisions"):
        find(str(folders["llama"]), "main")
    folder = tiny.write(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="its weights are pickled"):
        find(str(folder))
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(WeightsError, match="an adapter of peft"):
        find(str(folder))
    folder = tiny.write(tmp_path / "silent")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(WeightsError, match="has no tokenizer"):
        find(str(folder))


def test_weights_that_do_not_fit_are_not_filled_up_at_random(folders, tmp_path):
    folder = shutil.copytree(folders["llama"], tmp_path / "model")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    state.pop("model.layers.1.mlp.up_proj.weight")
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=r"missing keys.*model\.layers\.1\.mlp\.up_proj\.weight"):
        LanguageModel(find(str(folder)))
