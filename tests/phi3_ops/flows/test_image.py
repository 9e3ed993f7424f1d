"""`phi3 flow build`: the context of an image, and the server that the image starts."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import requests

from echo_endpoint import KEY, echo_endpoint
from phi3_ops import paths
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow, flow_files
from phi3_ops.flows.definition import FlowDefinition
from phi3_ops.flows.image import build_image_context, connection_placeholders
from phi3_ops.flows.wheel import build_tool_wheel
from phi3_ops.pf.client import pf_client
from phi3_ops.pf.connections import delete_connection, save_connection
from processes import BIN
from served_flow import HANG_S, free_port
from stores import make_store

# judge_llm has a connection to OpenAI, and no image.
FLOWS = sorted(
    path.parent.name
    for path in paths.FLOWS.glob("*/flow.dag.yaml")
    if path.parent.name != "judge_llm"
)
ASKED = {"question": "Hello there", "chat_history": []}


@pytest.fixture(scope="module")
def endpoint():
    with echo_endpoint() as endpoint:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, KEY)
        yield endpoint
        delete_connection("phi3")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("site")
    wheel = build_tool_wheel().write(tmp_path_factory.mktemp("wheel"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--target", folder, wheel], check=True, timeout=HANG_S)
    return folder


@pytest.fixture
def built(endpoint, tmp_path):
    """Builds a flow into a new folder."""

    def build(name):
        build_image_context(FlowDefinition.read(Path(name)), tmp_path / "image")
        return tmp_path / "image"

    return build


def dockerfile(folder):
    """(instruction, words), in order."""
    lines = (folder / "Dockerfile").read_text().splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, words) for name, words in pairs]


@pytest.mark.parametrize("name", FLOWS)
def test_the_context_has_the_wheel_installs_it_and_holds_no_key(built, name):
    folder = built(name)
    (packed,) = (folder / "wheels").glob("phi3_promptflow-*.whl")
    names = zipfile.ZipFile(packed).namelist()
    assert {"phi3_tools/pf_tools.py", "phi3_tools/yamls/phi3_chat.yaml"} <= set(names)
    steps = [words for _, words in dockerfile(folder)]
    installs = next(n for n, words in enumerate(steps) if "pip install" in words)
    assert "wheels/*.whl" in steps[installs]
    assert steps.index("wheels wheels") < installs
    assert all("wheels" not in words for name, words in dockerfile(folder) if name == "ENV")
    for file in folder.rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes(), file
    for each in names:
        assert KEY.encode() not in zipfile.ZipFile(packed).read(each), each
    connections = json.loads((folder / "connections.json").read_text())
    uses = "connection: phi3" in (paths.FLOWS / name / "flow.dag.yaml").read_text()
    assert [fields["secrets"] for fields in connections.values()] == [
        {"key": "${env:PHI3_KEY}"}
    ] * uses


def test_a_flows_own_requirements_are_installed(built):
    text = (built("eval") / "requirements.txt").read_text()
    assert "rouge-score" in text and "promptflow-core" in text


@contextlib.contextmanager
def started(folder, tmp_path, site, **variables):
    """Run the CMD of the image from its folder, without a store, with the package of the wheel."""
    command = json.loads(dict(dockerfile(folder))["CMD"])
    port = free_port()
    command[command.index("--host") + 1] = "127.0.0.1"
    command[command.index("--port") + 1] = str(port)
    inherited = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    store = make_store(tmp_path / "no-connections")
    env = {**inherited, "PATH": path, "PYTHONPATH": str(site), "PF_HOME_DIRECTORY": str(store)}
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=folder,
            env={**env, **variables},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            wait(process, url := f"http://127.0.0.1:{port}", tmp_path / "log.txt")
            yield url
        finally:
            process.terminate()
            process.wait(HANG_S)


def wait(process, url, log):
    deadline = time.monotonic() + HANG_S
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(requests.ConnectionError):
            if requests.get(f"{url}/health", timeout=HANG_S).ok:
                return
        time.sleep(0.1)
    raise AssertionError("the flow is not served")


def test_the_images_command_answers_with_a_key_from_the_environment(built, tmp_path, site):
    folder = built("chat")
    with started(folder, tmp_path, site, PHI3_KEY=KEY) as url:
        answer = requests.post(f"{url}/score", json=ASKED, timeout=HANG_S)
        image = {**ASKED, "chat_history": [{"data:image/png;path": "/dev/ptmx"}]}
        refused = requests.post(f"{url}/score", json=image, timeout=HANG_S)
        wrong_method = requests.get(f"{url}/score", timeout=HANG_S)
    assert answer.json() == {"answer": "Hello there"}
    assert refused.status_code == 400
    assert "chat_history[0]" in refused.json()["error"]["message"]
    assert (wrong_method.status_code, wrong_method.headers["allow"]) == (405, "POST")
    log = (tmp_path / "log.txt").read_text()
    assert KEY not in log


def test_on_azure_the_flow_is_the_mounted_model(built, endpoint, tmp_path, site):
    """With the connection in the environment, in the form that Azure's documentation describes."""
    folder = built("chat")
    (folder / "flow").rename(tmp_path / "chat")
    (folder / "connections.json").unlink()
    mount = tmp_path / "mount"
    mount.mkdir()
    (tmp_path / "chat").rename(mount / "chat")
    where = "deployment.subscription_id=s,deployment.resource_group=g,deployment.workspace_name=w"
    connection = {
        "id": "/connections/phi3",
        "name": "phi3",
        "properties": {
            "authType": "CustomKeys",
            "category": "CustomKeys",
            "target": "_",
            "metadata": {"endpoint": endpoint.url, "azureml.flow.connection_type": "Custom"},
            "credentials": {"keys": {"key": KEY}},
        },
    }
    variables = {
        "PRT_CONFIG_OVERRIDE": where,
        "AZUREML_MODEL_DIR": str(mount),
        "phi3": json.dumps(connection),
    }
    with started(folder, tmp_path, site, **variables) as url:
        answer = requests.post(f"{url}/score", json=ASKED, timeout=HANG_S)
    assert answer.json() == {"answer": "Hello there"}, (tmp_path / "log.txt").read_text()


@pytest.mark.parametrize("name", ["flow.dag.yaml", "deep/in/it.txt"])
def test_a_key_in_the_flow_is_refused_and_nothing_is_left(endpoint, tmp_path, name):
    flow = tmp_path / "chat"
    copy_flow(paths.FLOWS / "chat", flow)
    (flow / name).parent.mkdir(parents=True, exist_ok=True)
    with (flow / name).open("a") as file:
        file.write(f"# {KEY}\n")
    with pytest.raises(OpsError, match=f"flow/{name} contains the key of phi3"):
        build_image_context(FlowDefinition.read(flow), tmp_path / "image")
    assert [path.name for path in tmp_path.iterdir()] == ["chat"]


BY_PRODUCTS = (".promptflow/chat.detail.json", ".env", "__pycache__/x.pyc", "more/.env", "a.pem")
SECRET_FILES = ("prod.env", ".env.local", "server.pem", ".npmrc", ".aws/credentials", "b/id_rsa")


def test_by_products_of_runs_and_files_with_secrets_are_left_out(endpoint, tmp_path):
    flow = copy_flow(paths.FLOWS / "chat", tmp_path / "chat")
    shutil.copy(paths.FLOWS / "chat" / ".gitignore", flow)
    for name in (*BY_PRODUCTS, *SECRET_FILES):
        (flow / name).parent.mkdir(parents=True, exist_ok=True)
        (flow / name).write_text(KEY)
    build_image_context(FlowDefinition.read(flow), tmp_path / "image")
    copy = tmp_path / "image" / "flow"
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names == {"flow.dag.yaml", "samples.jsonl"}


@pytest.mark.finding(
    6,
    "a flow's folder contains `prod.env`, `server.pem` or `.npmrc`",
    "an image has exactly the files that the lock covers; these are not among them",
)
def test_the_image_has_the_files_that_are_locked(endpoint, tmp_path):
    """promptflow's copy alone would follow .gitignore."""
    flow = copy_flow(paths.FLOWS / "chat", tmp_path / "chat")
    (flow / ".gitignore").write_text("facts\nfacts.txt\n")
    (flow / "facts").mkdir()
    for name in ("facts/a.txt", "facts.txt"):
        (flow / name).write_text("a")
    build_image_context(FlowDefinition.read(flow), tmp_path / "image")
    copy = tmp_path / "image" / "flow"
    names = [path.relative_to(copy) for path in flow_files(copy)]
    assert names == [path.relative_to(flow) for path in flow_files(flow)]


@pytest.fixture
def including(tmp_path):
    """Returns a copy of the chat flow that includes a path, beside the folder `shared`."""
    (tmp_path / "shared" / "folder").mkdir(parents=True)
    for name in ("a.txt", "prod.env", "folder/.env", "folder/b.txt"):
        (tmp_path / "shared" / name).write_text("x")
    (tmp_path / "shared" / "link.txt").symlink_to("/etc/passwd")

    def write(include):
        flow = copy_flow(paths.FLOWS / "chat", tmp_path / "chat")
        with (flow / "flow.dag.yaml").open("a") as file:
            file.write(f"additional_includes: [{include}]\n")
        return FlowDefinition.read(flow)

    return write


def test_included_files_are_in_the_image(endpoint, including, tmp_path):
    build_image_context(including("../shared/folder"), tmp_path / "image")
    copy = tmp_path / "image" / "flow"
    names = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()}
    assert names == {"flow.dag.yaml", "samples.jsonl", "folder/b.txt"}


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("../shared/prod.env", "includes ../shared/prod.env, which is never uploaded"),
        ("../.aws/credentials", "which is never uploaded"),
        ("../shared/link.txt", "which is a symbolic link"),
        ("../shared", "link.txt is a symbolic link"),
        ("../shared/folder.zip", "which would be packed"),
    ],
)
def test_secrets_and_links_are_not_included(endpoint, including, tmp_path, include, message):
    with pytest.raises(OpsError, match=message):
        build_image_context(including(include), tmp_path / "image")
    assert not (tmp_path / "image").exists()


@pytest.mark.finding(
    6,
    "a flow contains a link to `/etc/shadow`",
    "the link is refused",
)
@pytest.mark.parametrize("target", ["/etc/passwd", "flow.dag.yaml", "../shared"])
@pytest.mark.parametrize("name", ["notes.txt", "requirements.txt"])
def test_a_link_is_not_in_an_image(endpoint, including, tmp_path, name, target):
    flow = copy_flow(paths.FLOWS / "chat", tmp_path / "chat")
    (flow / name).symlink_to(target)
    with pytest.raises(OpsError, match=f"{name} is a symbolic link"):
        build_image_context(FlowDefinition.read(flow), tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_the_key_of_entra_is_not_a_variable(tmp_path):
    save_connection("phi3-entra", {"endpoint": "https://a.b/score", "auth": "entra"}, "")
    try:
        placeholders = connection_placeholders("phi3-entra")
    finally:
        delete_connection("phi3-entra")
    assert placeholders.secrets == {}
    assert placeholders.variables == ()
    assert placeholders.configs["key"] == "none"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda out: (out / "mine").mkdir(parents=True), "is not empty"),
        (lambda out: out.write_text(""), "is not empty"),
        (lambda out: delete_connection("phi3"), "the connection 'phi3' does not exist"),
    ],
)
def test_bad_input_is_an_error(endpoint, tmp_path, spoil, message):
    spoil(tmp_path / "image")
    try:
        with pytest.raises(OpsError, match=message):
            build_image_context(FlowDefinition.read(Path("chat")), tmp_path / "image")
    finally:
        save_connection("phi3", {"endpoint": endpoint.url, "max_attempts": "1"}, KEY)


def test_a_key_in_the_configs_is_a_secret_too(tmp_path):
    """Foundry lets users store either field as a secret."""
    from promptflow.entities import CustomConnection

    configs = {"endpoint": "https://a.b/score", "key": KEY}
    connection = CustomConnection(name="a b", configs=configs, secrets={"more": "a-secret"})
    pf_client().connections.create_or_update(connection)
    try:
        placeholders = connection_placeholders("a b")
    finally:
        delete_connection("a b")
    assert placeholders.configs == {"endpoint": "https://a.b/score"}
    assert placeholders.secrets == {"more": "${env:A_B_MORE}", "key": "${env:A_B_KEY}"}
    assert placeholders.variables == ("A_B_MORE", "A_B_KEY")
