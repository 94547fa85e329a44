"""Ids on the hub: found in its cache without a network; its answers as one line; uploads to a client of our own."""

import json
import shutil
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

import illada
from illada.checkpoint.huggingface.hub import FETCHED, check_login, fetch, looks_like_an_id, push
from illada.checkpoint.source import find_model

COMMIT, OLDER = "5769f04922" + "0" * 30, "a1b5b5f8a3" + "0" * 30
ID = "some-lab/tiny-illada"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, and nobody to answer for the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    return tmp_path / "hub"


@pytest.fixture
def cached(cache, published):
    """A model as the library leaves it: blobs by their sums, links by commit, a branch that names the commit."""
    folder, home = published().path, cache / "models--some-lab--tiny-illada"
    (home / "blobs").mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(COMMIT)
    for commit in (COMMIT, OLDER):
        (home / "snapshots" / commit).mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        shutil.move(file, home / "blobs" / f"{number:040}")
        for commit in (COMMIT, OLDER):
            (home / "snapshots" / commit / file.name).symlink_to(Path("../../blobs") / f"{number:040}")
    return home


@pytest.fixture
def answering(monkeypatch):
    """A hub that says the same to everything."""
    servers = []

    def start(status: int, **headers: str) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_POST = do_GET  # noqa: N815  # their names

            def log_message(self, *arguments):
                pass

        servers.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[0].serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{servers[0].server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def complaint(call, *arguments, kind=FileNotFoundError):
    with pytest.raises(kind) as caught:
        call(*arguments)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- from the cache -----------------------------------------------------------------------------------------------


def test_an_id_is_found_in_the_cache_without_a_network(cached, expected_logits):
    assert find_model(ID) == cached / "snapshots" / COMMIT
    model = illada.load(ID, device="cpu")
    ids, logits = expected_logits("illada")
    with torch.inference_mode():
        torch.testing.assert_close(model.transformer.logits(model.transformer(ids)), logits, atol=3e-4, rtol=0)
    assert model.tokenizer.specials.mask == 5


@pytest.mark.parametrize("offline", [True, False])
def test_so_is_a_revision(cached, monkeypatch, offline):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    (cached / "refs" / "v1").write_text(OLDER)
    assert find_model(f"{ID}@{OLDER}") == find_model(f"{ID}@v1") == cached / "snapshots" / OLDER


def test_a_folder_of_that_name_comes_first(cached, published, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(cached / "snapshots" / OLDER, tmp_path / ID)
    assert find_model(ID) == Path(ID)


def test_what_is_half_there_is_asked_for_again(cached, monkeypatch):
    folder = cached / "snapshots" / COMMIT
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-00001-of-00002.safetensors").touch()
    download, asked = huggingface_hub.snapshot_download, []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda **wanted: asked.append(wanted) or download(**wanted)
    )
    # without a network the library makes do with what it has; the file that is not there is named
    assert "is incomplete: model-00002-of-00002.safetensors" in complaint(illada.load, ID)
    assert [wanted.get("local_files_only") for wanted in asked] == [True, None]


# --- what the hub says --------------------------------------------------------------------------------------------


def test_no_network(cache):
    assert complaint(fetch, ID) == (
        f"{ID} is no folder here, and {ID} is not in the hub's cache, nor can the hub be reached (ConnectError)"
    )


def test_no_network_by_choice(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "nor can the hub be reached (OfflineModeIsEnabled)" in complaint(fetch, ID)


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("RepoNotFound", 401, "has no model some-lab/tiny-illada, or it is private: check the spelling, or log in"),
        ("RepoNotFound", 404, "has no model some-lab/tiny-illada, or it is private: check the spelling, or log in"),
        ("GatedRepo", 403, "is gated: accept its conditions at https://huggingface.co/some-lab/tiny-illada"),
        ("RevisionNotFound", 404, "has no revision v9"),
        ("", 500, "is not in the hub's cache, nor can the hub be reached"),
    ],
)
def test_what_the_hub_refuses(answering, code, status, said):
    answering(status, X_Error_Code=code)
    text = complaint(fetch, f"{ID}@v9")
    assert text.startswith(f"{ID}@v9 is no folder here, and ")
    assert said in text


def test_only_configuration_tokenizer_and_weights_are_fetched(monkeypatch, tmp_path):
    asked = []

    def download(**wanted):
        asked.append(wanted)
        if wanted.get("local_files_only"):
            raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch(f"{ID}@v1") == tmp_path
    assert [wanted.get("local_files_only") for wanted in asked] == [True, None]
    assert (asked[1]["repo_id"], asked[1]["revision"]) == (ID, "v1")
    files = [
        "config.json",
        "modeling_illada.py",
        "pytorch_model.bin",
        "model-00001-of-00002.safetensors",
        "x/a.safetensors",
    ]
    kept = huggingface_hub.utils.filter_repo_objects(
        files, allow_patterns=asked[1]["allow_patterns"], ignore_patterns=asked[1]["ignore_patterns"]
    )
    assert list(kept) == ["config.json", "model-00001-of-00002.safetensors"]
    assert not [pattern for pattern in FETCHED if pattern.endswith((".py", ".bin", "*"))]


# --- what is an id ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where", ["GSAI-ML/iLLaDA-8B-Base", "a/b", "a.b/c_d-1.5", "a/b@main", "a/b@5769f04", "a/b@refs/pr/1"]
)
def test_ids(where):
    assert looks_like_an_id(where)


@pytest.mark.parametrize("where", ["tiny", "a/b/c", "./a", "../a", "/a/b", "~/a", "a/", "/a", "a/b@", "a b/c", ".a/b"])
def test_what_is_none(where):
    assert not looks_like_an_id(where)


def test_a_name_in_a_folder_that_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert looks_like_an_id("runs/tiny")
    (tmp_path / "runs").mkdir()
    assert not looks_like_an_id("runs/tiny")
    assert complaint(find_model, "runs/tiny").startswith("runs/tiny does not exist: give a run folder")


# --- to the hub ---------------------------------------------------------------------------------------------------


class Client:
    """Remembers what it was asked to do."""

    calls: list[tuple[str, dict]]
    refusal: Exception | None = None

    def whoami(self):
        self._do("whoami")

    def create_repo(self, name, **options):
        self._do("create_repo", name=name, **options)
        return f"https://huggingface.co/{name}"

    def upload_folder(self, **options):
        self._do("upload_folder", **options)

    def _do(self, what, **options):
        self.calls.append((what, options))
        if self.refusal is not None:
            raise self.refusal


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr(Client, "calls", [], raising=False)
    monkeypatch.setattr(Client, "refusal", None)
    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    return Client


@pytest.mark.parametrize("private", [True, False])
def test_a_folder_is_uploaded_under_its_id(client, tmp_path, private):
    check_login(ID)
    assert push(tmp_path, ID, private=private) == f"https://huggingface.co/{ID}"
    assert client.calls == [
        ("whoami", {}),
        ("create_repo", {"name": ID, "private": private, "exist_ok": True}),
        ("upload_folder", {"repo_id": ID, "folder_path": tmp_path}),
    ]


def test_nobody_is_logged_in(client, monkeypatch):
    monkeypatch.setattr(client, "refusal", huggingface_hub.errors.LocalTokenNotFoundError("Token is required\nmore"))
    text = complaint(check_login, ID, kind=OSError)
    assert text == f"cannot push to {ID}: log in first, with `hf auth login`"


def test_the_hub_cannot_be_reached(client, monkeypatch, tmp_path):
    monkeypatch.setattr(client, "refusal", ConnectionError("a\nb"))
    with pytest.raises(OSError, match=r"is kept: the hub cannot be reached \(ConnectionError\)$"):
        push(tmp_path, ID, private=False)


def test_the_hub_refuses_an_upload(answering, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    answering(403, X_Error_Message="You have no rights here")
    with pytest.raises(OSError, match=f"cannot push to {ID}, .* is kept: .*403"):
        push(tmp_path, ID, private=False)


@pytest.mark.parametrize("name", ["tiny", "a/b@main", "a/b/c"])
def test_an_upload_needs_an_id(client, name):
    assert f"is OWNER/NAME, got '{name}'" in complaint(check_login, name, kind=ValueError)
    assert client.calls == []
