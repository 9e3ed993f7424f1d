"""What `phi3 doctor` finds, what it says to do about it, and what it never shows."""

from __future__ import annotations

import base64
import inspect
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from urllib.parse import quote

import pytest
import tomllib
from packaging.specifiers import SpecifierSet

from azure_fixtures import plant
from echo_endpoint import KEY, echo_endpoint
from pages import check_part, table
from phi3_ops import paths
from phi3_ops.doctor import packages
from phi3_ops.doctor.checks import CHECKS, EVERY, OLDEST, WAYS, CheckContext, python
from phi3_ops.doctor.packages import KNOWN_ISSUES, _requirements, check_packages
from phi3_ops.doctor.runner import (
    FAIL,
    OK,
    SKIP,
    WARN,
    Check,
    Finding,
    cut_secrets,
    known_secrets,
    run_checks,
    usable_ways,
)
from phi3_ops.errors import OpsError
from phi3_ops.flows.content import copy_flow
from phi3_ops.pf.connections import delete_connection, save_connection

ROOT = Path(__file__).resolve().parents[3]
NAME = "d"
SECRET = "kE+y/of=the(endpoint)"
DOWN = "http://127.0.0.1:9/score"


@pytest.fixture
def connected():
    """Writes the connection; it is gone afterwards."""

    def write(url, key=KEY, **fields):
        save_connection(NAME, {"endpoint": url, **fields}, key)

    yield write
    delete_connection(NAME)


@pytest.fixture
def look(phi3):
    """`phi3 doctor --json …`: exit code, and each check's result by its name."""

    def run(*words):
        done = phi3("doctor", "--connection", NAME, "--json", *words)
        assert done.err == ""
        document = json.loads(done.out)
        assert done.code == (0 if document["ok"] else 1)
        return done.code, {result["name"]: result for result in document["checks"]}

    return run


# -- the table -------------------------------------------------------------------------------------


def test_what_a_check_needs_is_looked_at_before_it_and_for_every_way():
    seen = {}
    for check in CHECKS:
        for name in check.needs:
            assert set(check.ways) <= set(seen[name].ways), (check.name, name)
        seen[check.name] = check
        assert check.ways and set(check.ways) <= set(WAYS)
        assert check.fix
    assert len(seen) == len(CHECKS)


def test_the_table_of_the_documentation():
    rows = []
    for check in CHECKS:
        what = inspect.getdoc(getattr(check.look, "func", check.look))
        ways = "all" if check.ways == EVERY else ", ".join(check.ways)
        rows.append([check.name, what, ways])
    check_part("doctor.md", "checks", table(["check", "what is looked at", "ways of use"], rows))


def test_the_ways_of_the_documentation():
    rows = [[f"`{name}`", what] for name, what in WAYS.items()]
    check_part("doctor.md", "ways", table(["way of use", "what it is"], rows))


def test_the_pythons_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, OLDEST))


@pytest.mark.parametrize(
    ("version", "status"),
    [((3, 9, 1), FAIL), ((3, 10, 0), OK), ((3, 14, 9), OK), ((3, 15, 0), WARN)],
)
def test_python(monkeypatch, version, status):
    monkeypatch.setattr(sys, "version_info", version)
    assert python(CheckContext()).status == status


# -- running checks --------------------------------------------------------------------------------


def raising(error):
    def look(here):
        raise error

    return look


def one(check_look, **words):
    here = CheckContext()
    (result,) = run_checks([Check("c", ("w",), check_look, "the fix", **words)], here, ["w"])
    return result


def test_a_check_that_never_ends_has_failed():
    end = threading.Event()
    try:
        result = one(lambda here: end.wait() and Finding(OK, "late"), limit_s=0.05)
    finally:
        end.set()
    assert (result.status, result.what, result.fix) == (FAIL, "no answer within 0.05 s", "the fix")


@pytest.mark.parametrize(
    ("error", "what", "fix"),
    [
        (OpsError("a.json is bad", "Mend it. Now."), "a.json is bad", "Mend it. Now."),
        (OpsError("a.json is bad"), "a.json is bad", "the fix"),
        (ModuleNotFoundError("no", name="rich"), "the package rich is not installed", "the fix"),
        (KeyError("x"), "KeyError: 'x'", "the fix"),
    ],
)
def test_whatever_is_raised_is_a_failure_with_a_fix(error, what, fix):
    result = one(raising(error))
    assert (result.status, result.what, result.fix) == (FAIL, what, fix)


def test_what_needs_something_that_failed_is_skipped():
    bad, good = (lambda here: Finding(FAIL, "no")), (lambda here: Finding(OK, "yes"))
    checks = [
        Check("a", ("w",), bad, "fix"),
        Check("b", ("w",), good, "fix", ("a",)),
        Check("c", ("w",), good, "fix", ("b",)),
        Check("d", ("w",), good, "fix"),
        Check("e", ("other",), bad, "fix"),
    ]
    found = run_checks(checks, CheckContext(), ["w"])
    assert [result.status for result in found] == [FAIL, SKIP, SKIP, OK]
    assert usable_ways(found, "w") == ["a"]


# -- packages --------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch):
    """Puts other versions, None for missing ones, in place of those that are installed."""
    _requirements.cache_clear()

    def put(**versions):
        named = {name.replace("_", "-"): version for name, version in versions.items()}

        def version(package):
            found = named[package] if package in named else metadata.version(package)
            if found is None:
                raise metadata.PackageNotFoundError(package)
            return found

        monkeypatch.setattr(packages, "metadata", _Metadata(version))

    yield put
    _requirements.cache_clear()


class _Metadata:
    PackageNotFoundError = metadata.PackageNotFoundError
    requires = staticmethod(metadata.requires)

    def __init__(self, version):
        self.version = version


@pytest.mark.parametrize("extra", ["local", "azure", "train", "serve", "eval"])
def test_what_was_tested_together_fits(extra):
    assert check_packages(extra).status in (OK, WARN)


@pytest.mark.parametrize(
    ("extra", "versions", "status", "told"),
    [
        (
            "azure",
            {"azure_ai_ml": "1.35.2"},
            FAIL,
            "azure-ai-ml 1.35.2 is not ==1.32.0 (from 1.33 on",
        ),
        ("azure", {"six": None}, FAIL, "six is missing (azure-ai-ml imports it without"),
        ("train", {"mlflow_skinny": "3.18.0"}, FAIL, "mlflow-skinny 3.18.0 is not <3.18,>=3.5"),
        ("train", {"trl": "0.9.4", "peft": None}, FAIL, "peft is missing; trl 0.9.4 is not >=1.10"),
        (
            "local",
            {"opentelemetry_sdk": "1.39.0"},
            WARN,
            "opentelemetry-sdk 1.39.0 is not <1.39.0,>=1.22.0, which promptflow-tracing asks for",
        ),
        (
            "local",
            {"promptflow_tracing": None},
            FAIL,
            "promptflow-tracing is missing, which promptflow-",
        ),
        ("local", {"filelock": "3.30.0"}, WARN, "filelock 3.30.0: `pf flow test --ui` fails"),
        ("local", {"setuptools": "82.0.0"}, WARN, "setuptools 82.0.0: `pf tool validate` fails"),
    ],
)
def test_what_is_missing_or_unfit_is_named(installed, extra, versions, status, told):
    installed(**{"setuptools": "80.0.0", "filelock": "3.29.0", **versions})
    found = check_packages(extra)
    assert found.status == status
    assert told in found.what
    assert "pip install" in found.fix


def test_without_traps_and_problems_it_is_ok(installed):
    installed(setuptools="80.0.0", filelock="3.29.0")
    assert check_packages("local").status == OK


def test_a_part_of_an_extra(installed):
    installed(torch=None, uvicorn=None)
    found = check_packages("serve", ("fastapi", "uvicorn"))
    assert found.status == FAIL
    assert found.what.startswith("uvicorn is missing (`pf flow serve --engine fastapi` needs it")
    assert "torch" not in found.what


def test_traps_are_versions():
    for trap in KNOWN_ISSUES:
        assert str(SpecifierSet(trap.versions)) == trap.versions


def test_it_runs_where_only_the_tools_are_installed(tmp_path):
    """What `pip install phi3-promptflow` without an extra lacks, and what prints tables, too."""
    code = (
        "import sys\n"
        "for name in ('rich', 'pydantic', 'yaml', 'packaging', 'keyring'): sys.modules[name] = None\n"
        "from phi3_ops.cli import main\n"
        "sys.exit(main(['doctor', '--for', 'local', 'batch']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr == "", done.stderr
    assert "fail  packages: local: the package packaging is not installed" in done.stdout
    assert "-> pip install 'phi3-promptflow[local]'" in done.stdout


# -- keyring ---------------------------------------------------------------------------------------


def ring_of(monkeypatch, ring):
    import keyring

    monkeypatch.setattr(keyring, "get_keyring", lambda: ring)
    return keyring(CheckContext())


class TestKeyring:
    def test_one_that_keeps_nothing(self, monkeypatch):
        from keyring.backends import fail, null

        for module in (fail, null):
            found = ring_of(monkeypatch, module.Keyring())
            assert found.status == FAIL and "keeps nothing" in found.what

    @pytest.mark.skipif(sys.platform == "win32", reason="modes are another thing there")
    def test_a_file_that_others_can_read(self, monkeypatch, tmp_path):
        from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring

        monkeypatch.setenv("PF_HOME_DIRECTORY", str(tmp_path))
        ring = OwnerOnlyFileKeyring()
        ring.set_password("promptflow", "x", "y")
        assert ring_of(monkeypatch, ring).status == OK
        ring.path.chmod(0o640)
        found = ring_of(monkeypatch, ring)
        assert found.status == FAIL and found.fix == f"chmod 600 {ring.path}"

    def test_an_environment_that_is_no_json(self, monkeypatch):
        from phi3_ops.pf.keyring_store import OwnerOnlyFileKeyring

        monkeypatch.setenv("PHI3_KEYRING", "very-secret")
        found = ring_of(monkeypatch, OwnerOnlyFileKeyring())
        assert found.status == FAIL and "very-secret" not in found.what + found.fix


# -- connection and endpoint -----------------------------------------------------------------------


class TestEndpoint:
    def test_all_is_well(self, connected, look, phi3):
        with echo_endpoint() as server:
            connected(server.url, deployment="blue")
            code, found = look("--for", "serve", "local")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        assert code == 0
        assert found["connection"]["what"].endswith("(auto contract, deployment blue)")
        assert found["endpoint"]["what"].endswith("s, chat contract")
        assert found["python"]["ways"] == ["local", "serve"]
        assert done.code == 0 and done.out.split()[-2:] == ["local", "ready"]

    def test_no_connection(self, look):
        code, found = look("--for", "local")
        assert code == 1
        assert found["connection"]["what"] == f"there is no connection {NAME!r}"
        assert "phi3 connect" in found["connection"]["fix"]
        assert found["endpoint"]["status"] == SKIP

    def test_a_field_that_is_wrong(self, look):
        from phi3_ops.pf.client import pf_client

        client = pf_client()  # before its entities are imported
        from promptflow.entities import CustomConnection

        wrong = CustomConnection(
            name=NAME, configs={"endpoint": "<your-url>"}, secrets={"key": "k"}
        )
        client.connections.create_or_update(wrong)
        try:
            code, found = look("--for", "local")
        finally:
            delete_connection(NAME)
        assert code == 1
        assert "still the placeholder" in found["connection"]["what"]
        assert found["connection"]["fix"] == "Replace it with the real endpoint."

    @pytest.mark.parametrize(
        ("key", "url", "told"),
        [("wrong-key", None, "AuthenticationError"), (KEY, DOWN, "Unreachable")],
    )
    def test_an_endpoint_that_does_not_answer_is_named(self, connected, look, key, url, told):
        with echo_endpoint() as server:
            connected(url or server.url, key)
            code, found = look("--for", "batch")
        assert code == 1
        assert told in found["endpoint"]["what"]
        assert found["endpoint"]["fix"]
        assert key not in json.dumps(found)


class _Telling(BaseHTTPRequestHandler):
    """Refuses, and tells all that it was sent."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        body = self.server.words(self.headers["authorization"].removeprefix("Bearer ")).encode()
        self.send_response(400)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def telling(words):
    with ThreadingHTTPServer(("127.0.0.1", 0), _Telling) as server:
        server.words = words
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/score"
        finally:
            server.shutdown()
            thread.join()


class TestSecrets:
    @pytest.mark.parametrize(
        "words",
        [
            lambda key: f"you sent {key}, did you?",
            lambda key: f"code={quote(key, safe='')}",
            lambda key: f"Basic {base64.b64encode(key.encode()).decode()}",
            lambda key: json.dumps({"error": {"message": f"authorization: Bearer {key}"}}),
            # What an error repeats is cut to 500 characters: here within the key.
            *[lambda key, n=n: f"{'x' * (500 - n)}{key}" for n in range(4, len(SECRET), 5)],
        ],
    )
    @pytest.mark.parametrize("how", [(), ("--json",)])
    def test_an_endpoint_that_repeats_the_key(self, connected, phi3, words, how):
        with telling(words) as url:
            connected(url, SECRET)
            done = phi3("doctor", "--connection", NAME, "--for", "local", *how)
        said = "".join((done.out + done.err).split())  # lines are broken anywhere
        assert done.code == 1
        assert "BadRequestError" in said
        forms = (SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode())
        for form in forms:
            assert form[:4] not in said

    def test_a_key_of_the_environment(self, connected, phi3, monkeypatch):
        monkeypatch.setenv("MY_OWN_NAME", SECRET)
        with telling(lambda key: f"you sent {key}") as url:
            connected(url, "${env:MY_OWN_NAME}")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        said = "".join((done.out + done.err).split())  # lines are broken anywhere
        assert "yousent" in said and SECRET not in said

    def test_a_key_in_the_url(self, connected, phi3):
        with echo_endpoint() as server:
            connected(f"{server.url}?code=in-the-url")
            done = phi3("doctor", "--connection", NAME, "--for", "local")
        assert done.code == 0 and "in-the-url" not in done.out + done.err

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (f"you sent {SECRET}.", "you sent ***."),
            (f"?code={quote(SECRET, safe='')}&x", "?code=***&x"),
            (f"Basic {base64.b64encode(SECRET.encode()).decode()}", "Basic ***"),
            (f"cut off: {SECRET[:-1]}", "cut off: ***"),
            (f"cut off: {SECRET[:4]}", "cut off: ***"),
            (f"{SECRET} and {SECRET[:5]}", "*** and ***"),
            ("nothing", "nothing"),
        ],
    )
    def test_every_form_of_a_secret_is_hidden(self, text, shown):
        assert cut_secrets(text, {SECRET}) == shown

    def test_a_json_text_with_a_secret(self):
        secret = 'a"b\\c'
        assert cut_secrets(json.dumps({"key": secret}), {secret}) == '{"key": "***"}'

    def test_secrets_are_known_by_the_names_of_variables(self):
        found = known_secrets({"A_TOKEN": "1", "AZURE_CLIENT_SECRET": "2", "HOME": "3"}.items())
        assert found == {"1", "2"}

    def test_what_is_too_short_is_no_secret(self):
        assert cut_secrets("a cat", {"a", ""}) == "a cat"


# -- flow lock -------------------------------------------------------------------------------------


def test_the_flows_lock(look, connected, tmp_path):
    folder = copy_flow(paths.FLOWS, tmp_path / "flows")
    words = ("--for", "batch", "--flows", folder)
    with echo_endpoint() as server:
        connected(server.url)
        code, found = look(*words)
        assert (code, found["flow lock"]["status"]) == (0, OK)
        (folder / "qa" / "more.txt").write_text("x")
        code, found = look(*words)
        assert code == 1 and "qa" in found["flow lock"]["what"]
        assert "Raise `tags.version`" in found["flow lock"]["fix"]
        (folder / "flows.lock.json").unlink()
        code, found = look(*words)
        assert code == 1 and found["flow lock"]["fix"] == "phi3 flow lock"


# -- Azure -----------------------------------------------------------------------------------------


class TestAzure:
    def test_all_is_well_and_nothing_is_written(self, provisioned, look):
        plant(provisioned, "connections/phi3", {"properties": CUSTOM_KEYS})
        code, found = look("--for", "azure", "foundry")
        assert code == 0, found
        assert found["workspace"]["what"] == "ws-one, eastus2"
        assert provisioned.writes() == []

    def test_no_configuration(self, azure, look, monkeypatch):
        monkeypatch.delenv("AZUREML_WORKSPACE_NAME")
        code, found = look("--for", "azure")
        assert code == 1
        assert found["configuration"]["what"].startswith("phi3.yaml: `azure.workspace`")
        assert found["az login"]["status"] == OK
        assert found["workspace"]["status"] == found["quota"]["status"] == SKIP

    def test_not_signed_in(self, azure, look):
        said = {"error": "invalid_client", "error_description": f"AADSTS7000222: {azure.secret}"}
        azure.fail("POST", "/oauth2/v2.0/token", 401, times=None, body=said)
        code, found = look("--for", "azure")
        assert code == 1
        assert found["az login"]["fix"] == "Run `az login`."
        assert azure.secret not in json.dumps(found)
        assert found["workspace"]["status"] == SKIP

    def test_no_workspace(self, azure, look):
        code, found = look("--for", "azure")
        assert code == 1
        assert found["workspace"]["what"] == "there is no workspace ws-one in rg"
        assert found["workspace"]["fix"] == "phi3 provision"

    def test_another_region(self, provisioned, look, monkeypatch):
        monkeypatch.setenv("AZURE_LOCATION", "westus3")
        _, found = look("--for", "foundry")
        assert found["workspace"]["status"] == WARN
        assert "eastus2" in found["workspace"]["what"]

    def test_quota(self, provisioned, look):
        provisioned.quota("standardNCADSA100v4Family", 24, 10)
        code, found = look("--for", "azure")
        assert code == 1
        assert "10 cores of standardNCADSA100v4Family are missing" in found["quota"]["what"]
        assert "Azure Machine Learning > Quota" in found["quota"]["fix"]

    @pytest.mark.parametrize(
        ("section", "check", "status", "told"),
        [
            (
                "endpoint: {size: Standard_NC6s_v3}",
                "machine sizes",
                FAIL,
                "was retired on 2025-09-30",
            ),
            ("endpoint: {size: Standard_E4s_v3}", "machine sizes", WARN, "new subscriptions"),
            (
                "finetune: {model: microsoft/Phi-3.5-mini-instruct}",
                "model",
                OK,
                "not with --catalog",
            ),
            (
                "finetune: {model: azureml://registries/azureml/models/Phi-3-mini-4k-instruct}",
                "model",
                FAIL,
                "was retired from the catalog on 2025-08-30",
            ),
        ],
    )
    def test_what_was_retired(self, provisioned, look, tmp_path, section, check, status, told):
        (tmp_path / "phi3.yaml").write_text(section)
        _, found = look("--for", "azure")
        assert found[check]["status"] == status
        assert told in found[check]["what"]
        assert bool(found[check]["fix"]) == (status != OK)

    def test_a_connection_that_flows_cannot_read(self, provisioned, look):
        code, found = look("--for", "foundry")
        assert code == 1
        assert found["workspace's connection"]["fix"] == "phi3 connect --azure"
        wrong = {**CUSTOM_KEYS, "authType": "ApiKey"}
        plant(provisioned, "connections/phi3", {"properties": wrong})
        code, found = look("--for", "foundry")
        assert code == 1
        assert "CustomKeys with ApiKey" in found["workspace's connection"]["what"]


CUSTOM_KEYS = {"category": "CustomKeys", "authType": "CustomKeys", "target": "x", "metadata": {}}
