"""`rllab fetch` against a hub on this machine: what it downloads and refuses, and that a job then needs no network."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import run
from hub_server import Hub

from rllab.cluster.disk import check_room, quota_left
from rllab.cluster.download import contents, download
from rllab.cluster.fetch import needs, needs_of_model
from rllab.core.errors import FieldMistake, MachineFault, Mistake
from rllab.core.recipe import Recipe, load_recipe, read_recipe
from rllab.text.snapshots import cached, located

SMALL = {"algo": "SFT", "total_steps": 1, "device": "cpu", "batch_size": 2, "eval_rows": 1, "headline_rows": 1}
ROWS = {"name": "dataset", "path": "org/rows", "config": "main"}


@pytest.fixture
def hub(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the model org/tiny and the data set org/rows, and an empty cache."""
    rows = tmp_path / "rows"
    (rows / "main").mkdir(parents=True)
    lines = [json.dumps({"prompt": f"How many clips in April? {i}", "completion": str(i)}) for i in range(60)]
    (rows / "main" / "train.jsonl").write_text("\n".join(lines) + "\n")
    (rows / "README.md").write_text("---\nconfigs:\n- config_name: main\n  data_files: main/*.jsonl\n---\n")
    shutil.copytree(qwen, tmp_path / "tiny")
    served = Hub()
    served.folders |= {"org/tiny": tmp_path / "tiny", "datasets/org/rows": rows}
    cache = tmp_path / "cache"
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("HF_HOME", str(cache))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    address = served.url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in ("huggingface_hub.constants", "datasets.config"):
        monkeypatch.setattr(f"{module}.HF_HUB_OFFLINE", False)
    for name, value in {
        "huggingface_hub.constants.ENDPOINT": served.url,
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE": address,
        "huggingface_hub.constants.HF_HUB_CACHE": str(cache / "hub"),
        "datasets.config.HF_ENDPOINT": served.url,
        "datasets.config.HUB_DATASETS_URL": served.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "datasets.config.HF_DATASETS_CACHE": cache / "datasets",
    }.items():
        monkeypatch.setattr(name, value)
    yield served
    served.close()


def recipe(folder: Path, **settings: Any) -> Recipe:
    (folder / "mine.yaml").write_text(json.dumps(SMALL | {"model": "org/tiny", "task": ROWS} | settings))
    return read_recipe((folder / "mine.yaml").read_text(), "mine.yaml", folder, "mine")


def fetch(loaded: Recipe) -> None:
    download([need for need in needs(loaded) if need.is_absent])


def test_a_fetched_recipe_trains_without_a_network(hub: Hub, tmp_path: Path) -> None:
    """The command downloads, proves, and says what lies where; the job then runs in a namespace without a network."""
    recipe(tmp_path)
    (tmp_path / "tiny" / "pytorch_model.bin").write_bytes(b"pickled")
    command = [sys.executable, "-m", "rllab", "fetch", "mine.yaml", "seed=0..4"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # a fork would know another hub
    assert done.returncode == 0, done.stderr
    model, rows = hub.commit("org/tiny"), hub.commit("datasets/org/rows")
    assert model in done.stdout and rows in done.stdout
    assert "pytorch_model.bin" not in hub.sent and hub.sent["model.safetensors"] > 0
    hub.close()
    isolated = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if subprocess.run([*isolated, "true"], capture_output=True).returncode:
        pytest.skip("no namespace can be made here")
    job = [*isolated, sys.executable, "-m", "rllab", "train", "mine.yaml", "--name", "job", "-q"]
    done = subprocess.run(job, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    recorded = json.loads((tmp_path / "runs/job/env.json").read_text())["hub"]
    assert recorded == {"org/tiny": model, "datasets/org/rows": rows}


def test_what_is_there_is_not_asked_for_again(hub: Hub, tmp_path: Path) -> None:
    loaded = recipe(tmp_path)
    fetch(loaded)
    before = {need.name: need.revision for need in needs(loaded)}
    hub.asked.clear()
    (tmp_path / "tiny" / "config.json").write_text("{}")  # another revision is on the hub now
    assert not [need for need in needs(loaded) if need.is_absent]
    run(loaded, tmp_path / "run")  # online as well
    assert hub.asked == []
    assert json.loads((tmp_path / "run/env.json").read_text())["hub"]["org/tiny"] == before["org/tiny"]
    shutil.rmtree(tmp_path / "cache" / "hub" / "models--org--tiny" / "refs")  # deleted, and fetched anew
    shutil.copy(tmp_path / "cache/hub/models--org--tiny/snapshots" / before["org/tiny"] / "config.json", tmp_path / "c")
    shutil.copy(tmp_path / "c", tmp_path / "tiny" / "config.json")
    (tmp_path / "tiny" / "more.json").write_text("{}")
    fetch(loaded)
    with pytest.raises(
        Mistake, match=f"began with revision {before['org/tiny']} of org/tiny, and the hub's cache holds"
    ):
        run(recipe(tmp_path, total_steps=2), tmp_path / "run")


def test_a_download_that_was_killed_goes_on(hub: Hub, tmp_path: Path) -> None:
    """Files that were finished are kept. What the killed process has left behind is deleted some time later."""
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(os.urandom(8 << 20))
    hub.slow = 0.03
    code = "from rllab.text.snapshots import download; download('org/tiny')"
    killed = subprocess.Popen([sys.executable, "-c", code])
    while hub.sent[weights.name] < 4 << 20 or not hub.sent["tokenizer.json"]:
        time.sleep(0.01)
    while len(list((tmp_path / "cache").rglob("*.incomplete"))) > 1:  # the small files are renamed
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert cached("org/tiny") is None
    (left,) = (tmp_path / "cache").rglob("*.incomplete")
    os.utime(left, (0, 0))
    hub.slow = 0.0
    folder = located("org/tiny")
    assert (folder / weights.name).read_bytes() == weights.read_bytes() and not left.exists()
    assert hub.sent["tokenizer.json"] == (tmp_path / "tiny" / "tokenizer.json").stat().st_size


def test_a_download_whose_connection_breaks_goes_on(hub: Hub, tmp_path: Path) -> None:
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.write_bytes(os.urandom(16 << 20))
    hub.cut = 12 << 20
    assert (located("org/tiny") / weights.name).read_bytes() == weights.read_bytes()
    assert hub.ranges == [f"{weights.name} from {10 << 20}"], "the hub's library writes 10 MiB at once"


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_model_says_how_to_log_in(hub: Hub, token: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.gated.add("org/tiny")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(Mistake, match=r"command line: org/tiny is given to those alone .* hf auth login"):
        download(needs_of_model("org/tiny"))
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    download(needs_of_model("org/tiny"))
    assert cached("org/tiny")


def test_what_the_hub_does_not_give_is_refused(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, why in (
        ("org/tiny@v9", "org/tiny has no revision v9 on the hub"),
        ("org/nothing", f"the hub has nothing at {hub.url}/org/nothing, or it is private"),
    ):
        with pytest.raises(Mistake, match=why):
            download(needs_of_model(name))
    with pytest.raises(Mistake, match="task: datasets/org/none: there is no such folder, and the hub has nothing"):
        fetch(recipe(tmp_path, model="org/tiny", task={"name": "dataset", "path": "org/none"}))
    (tmp_path / "tiny" / "model.safetensors").rename(tmp_path / "tiny" / "pytorch_model.bin")
    with pytest.raises(Mistake, match=r"pickled \(pytorch_model.bin\), and a pickle can run code.*@refs/pr/1"):
        download(needs_of_model("org/tiny"))
    assert not hub.sent["pytorch_model.bin"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Mistake, match="HF_HUB_OFFLINE is set"):
        download(needs_of_model("org/tiny"))


def test_a_hub_that_cannot_be_reached_is_said_at_once(hub: Hub, tmp_path: Path) -> None:
    hub.close()
    start = time.monotonic()
    with pytest.raises(MachineFault, match=r"cannot be reached: give the command on a node with a network"):
        download(needs_of_model("org/tiny"))
    with pytest.raises(FieldMistake, match=r"is not in the hub's cache, .* rllab fetch org/tiny"):
        located("org/tiny")
    assert time.monotonic() - start < 30


def test_a_named_revision_is_read_and_its_tokenizer_alone_has_no_weights(hub: Hub, tmp_path: Path) -> None:
    commit = hub.commit("org/tiny")
    loaded = recipe(tmp_path, model="", shape={"model_type": "qwen2"}, tokenizer=f"org/tiny@{commit}")
    fetch(loaded)
    assert not hub.sent["model.safetensors"] and hub.sent["tokenizer.json"]
    (tmp_path / "tiny" / "more.json").write_text("{}")
    rows = {row["kind"]: row for row in contents(needs(loaded))}
    assert rows["tokenizer"]["revision"] == commit and rows["dataset"]["name"] == "org/rows"
    assert located(f"org/tiny@{commit}", weights=False).name == commit


def test_damaged_weights_are_found(hub: Hub) -> None:
    download(needs_of_model("org/tiny"))
    weights = (cached("org/tiny") or Path()) / "model.safetensors"
    weights.resolve().write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(Mistake, match=r"model.safetensors is damaged .* fetch it again"):
        contents(needs_of_model("org/tiny"))


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_small_home_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    cache = tmp_path / "home" / ".cache" / "huggingface" / "hub"
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    check_room(cache, 2e9)  # no cluster
    program(tmp_path / "bin", "sbatch", "exit 0")
    check_room(cache, 5e8)
    check_room(tmp_path / "scratch", 2e9)
    with pytest.raises(Mistake, match=r"would get 2.0 GB, and it lies in your home.*slurm/site.sh.*export HF_HOME="):
        check_room(cache, 2e9)
    monkeypatch.setenv("HF_HOME", str(cache.parent))  # the user has chosen it
    check_room(cache, 2e9)
    program(tmp_path / "bin", "quota", "echo '/dev/home 9000000* 9765625 10000000'")  # the smaller limit counts
    assert quota_left(tmp_path) == 765625 / 1024
    with pytest.raises(MachineFault, match=r"would get 2.0 GB, and 784.0 MB are left of your quota"):
        check_room(cache, 2e9)
    monkeypatch.delenv("HF_HOME")
    check_room(cache, 7e8)


def test_a_full_disk_is_refused_before_the_download(hub: Hub, tmp_path: Path) -> None:
    """On a file system of 1 MB, in a mount namespace of its own."""
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    (tmp_path / "tiny" / "model-2.safetensors").write_bytes(bytes(2 << 20))
    code = "from rllab.cluster.download import download; from rllab.cluster.fetch import Need\n"
    code += "download([Need('here', 'model', 'org/tiny')])"
    (tmp_path / "cache").mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs {tmp_path / "cache"} && exec {sys.executable} -c "$0"'
    done = subprocess.run(["unshare", "-m", "sh", "-c", mount, code], capture_output=True, text=True)
    assert "MachineFault" in done.stderr and "are free there: let the hub's cache lie on scratch" in done.stderr
    assert not hub.sent


def test_the_documented_recipe_needs_what_is_fetched() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs/cluster.md").read_text("utf-8")
    (name,) = re.findall(r"^\./lab fetch recipes/([\w-]+)\.yaml", page, re.M)
    assert "model" in {need.kind for need in needs(load_recipe(name))}
