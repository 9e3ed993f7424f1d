"""FakeAzure: starts and stops the parts, stores the state, records requests, plans faults."""

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from . import arm, endpoints, flow_runs, flows, identity, jobs, workspace  # noqa: F401 - they register routes
from .messages import Answer, Refused, account_error, user_error
from .network import Network, certificates
from .storage import Storage

FAMILIES = {family for family, *_ in workspace.SIZES.values()} | {workspace.REGION_QUOTA}
OPEN = re.compile("login.microsoftonline.com/.*|[^/]*/discovery")  # requests without a token
CODES = {401: "AuthenticationFailed", 403: "AuthorizationFailed", 404: "ResourceNotFound"}
CODES |= {409: "Conflict", 429: "TooManyRequests", 503: "ServiceUnavailable"}
# Codes of Resource Manager itself; those of Azure ML are inside a UserError.
MANAGER_CODES = {"AuthenticationFailed", "InvalidResourceType", "MissingSubscriptionRegistration"}
MANAGER_CODES |= {
    "NoRegisteredProviderFound",
    "ParentResourceNotFound",
    "RequestDisallowedByPolicy",
}
MANAGER_CODES |= {"ResourceGroupNotFound", "ResourceNotFound", "UserError"}
PLANNED = "planned by the test"


class FakeAzure:
    """An Azure of one region on loopback. The package's docstring says how to use it."""

    subscription = "11111111-1111-4111-8111-111111111111"
    tenant = "22222222-2222-4222-8222-222222222222"
    client = "33333333-3333-4333-8333-333333333333"

    def __init__(self, folder, region="eastus2"):
        self._parent, self.region = Path(folder), region
        self.secret = secrets.token_urlsafe(32)
        self.lock = threading.RLock()
        self.polls = 1  # number of polls that answer InProgress
        self.page = 2  # number of items in a page of a list
        self.processes = []
        self._empty()

    def _empty(self):
        self.resources, self.requests = {}, []  # by lower-cased path; in order
        self.exchanges = []  # (request, answer), in order
        self.operations, self.pending, self.runs = {}, {}, {}
        self.keys, self.containers, self.logs, self.stand_ins = {}, {}, {}, {}
        self.flows, self.share = {}, {"": None}  # by id; path -> bytes, or None for a folder
        self.scored = Counter()  # requests that reached a deployment's container, by its name
        self.catalog = {"Phi-4-mini-instruct": "2"}  # model -> newest version
        self.actions, self.taken = ["*"], set()  # of the user's role; names of registries
        self.denied = {}  # type in lower case -> policy that forbids it
        self.directory_lag = 0  # number of assignments to a new principal that are refused
        self.refused_principals = Counter()
        self.roles_lag = (
            0  # number of deployments that are refused, as if the roles were not there yet
        )
        self.unregistered = set()  # namespaces of resource providers, in lower case
        self.quotas = dict.fromkeys(FAMILIES, (1000, 0))  # limit, used
        self._faults, self._on_write = [], None

    def reset(self):
        """Forget every resource, blob, request and fault, and end every process."""
        with self.lock:
            self._end_processes()
            self._empty()
            self.refused_hosts.clear()
            self.storage.clear()

    def __enter__(self):
        with ExitStack() as stack:
            self.folder = Path(tempfile.mkdtemp(dir=self._parent, prefix="fake-azure-"))
            stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self.authority, leaf = certificates(self.folder, self.region)
            self.storage = Storage(leaf, self.authority)
            stack.callback(self.storage.close)
            self.network = Network(self.answer, leaf, self.region, self.storage.port)
            stack.callback(self.network.close)
            self.refused_hosts = self.network.refused_hosts  # requested hosts that are not Azure's
            stack.callback(self._end_processes)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def spawn(self, command, folder, environment, log):
        """Start a process in a group of its own, which this Azure's end ends; its output is the log."""
        with log.open("wb") as said:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _end_processes(self):
        while self.processes:
            process = self.processes.pop()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def environment(self):
        """The variables that send a process's requests here, and sign it in."""
        found = {"NO_PROXY": "127.0.0.1,localhost"}
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
            found[name] = f"http://127.0.0.1:{self.network.proxy_port}"
        found |= {name.lower(): value for name, value in found.items()}
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            found[name] = str(self.authority)
        return found | {
            "AZURE_CLIENT_ID": self.client,
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_SECRET": self.secret,
            "AZURE_SUBSCRIPTION_ID": self.subscription,
            "AZUREML_RUN_POLLING_INTERVAL_MIN": "0",
            "AZUREML_RUN_POLLING_INTERVAL_MAX": "0",
        }

    def bare_environment(self, extra):
        """Return the environment inside Azure: no client's variables, this Python first on the path."""
        client = self.environment()
        rest = {name: value for name, value in os.environ.items() if name not in client}
        path = os.pathsep.join([str(Path(sys.executable).parent), rest.get("PATH", "")])
        return rest | {"PATH": path, "PYTHONUNBUFFERED": "1"} | (extra or {})

    def create_group(self, name):
        """Create a resource group without a request; return its path."""
        path = arm.ArmPath(f"/subscriptions/{self.subscription}/resourceGroups/{name}")
        arm.put(self, path, {})
        return path.text

    def writes(self):
        """Return the requests to Resource Manager that change something, without uploads of blobs."""
        return [request for request in self.requests if request.is_write]

    def quota(self, family, limit, used=0):
        self.quotas[family] = (limit, used)

    def on_write(self, callback):
        """Call a function after each write took effect and before its answer is sent."""
        self._on_write = callback

    def fail(self, method="", path_contains="", status=500, times=1, after=0, **answer):
        """Answer the next `times` matching requests (None: all) like this; they have no other effect.

        status: 0 breaks the connection. after: number of matching requests that pass before.
        answer: `code` and `message` of Azure's usual body, or a `body`; `headers`.
        """
        code = answer.get("code", CODES.get(status, "InternalServerError"))
        usual = {"error": {"code": code, "message": answer.get("message", PLANNED)}}
        sent = Answer(status, answer.get("body", usual), answer.get("headers", {}))
        self._plan("request", path_contains, times, method=method, answer=sent, after=after)

    def fail_operation(self, path_contains, code="Failed", message=PLANNED):
        """Let the next long-running operation on such a path fail after it was accepted."""
        self._plan("operation", path_contains, code=code, message=message)

    def fail_job(self, path_contains="/jobs/", message=PLANNED):
        """Let the next such job fail instead of running its command."""
        self._plan("job", path_contains, message=message)

    def fail_deployment(self, path_contains="/deployments/", message=PLANNED):
        """Let the container of the next such deployment print the message and end."""
        self._plan("container", path_contains, message=message)

    def _plan(self, what, contains, times=1, **fault):
        fault = {"method": "", "after": 0} | fault
        self._faults.append(fault | {"what": what, "contains": contains.lower(), "times": times})

    def planned(self, what, path, method=""):
        """Return the planned fault for this, or None, and count it as used."""
        with self.lock:
            for fault in self._faults:
                same = fault["what"] == what and fault["contains"] in path.lower()
                if not same or fault["times"] == 0 or fault["method"] not in ("", method):
                    continue
                if fault["after"]:
                    fault["after"] -= 1
                    continue
                if fault["times"] is not None:
                    fault["times"] -= 1
                return fault
        return None

    def answer(self, request):
        """Return the answer to a request; None breaks the connection."""
        self.requests.append(request)
        answer = self._answer(request)
        if request.host == "management.azure.com" and isinstance(answer, Answer):
            answer.headers = self._headers(answer) | answer.headers
            self.exchanges.append((request, answer))
        return answer

    def _headers(self, answer):
        """Return the headers of every answer of Resource Manager."""
        correlation = str(uuid.uuid4())
        headers = {"x-ms-correlation-request-id": correlation, "x-request-time": "0.010"}
        headers["x-ms-routing-request-id"] = f"{self.region.upper()}:{correlation}"
        error = (answer.body or {}).get("error", {}) if answer.status >= 400 else {}
        if error.get("code") in MANAGER_CODES - {"UserError"}:
            del headers["x-request-time"]
            return headers | {"x-ms-failure-cause": "gateway"}
        return headers | {"x-ms-response-type": "error" if error else "standard"}

    def _answer(self, request):
        fault = self.planned("request", request.host + request.path, request.method)
        if fault:
            return fault["answer"] if fault["answer"].status else None
        try:
            if request.host.endswith(".inference.ml.azure.com"):
                return endpoints.score(self, request)
            with self.lock:
                answer = self._route(request)
        except Refused as refused:
            own = "/providers/microsoft.machinelearningservices/" in request.path.lower()
            error = refused.error
            if "/connections/" in request.path.lower():
                return Answer(refused.status, account_error(error, self.region, refused.status))
            if own and error["code"] not in MANAGER_CODES:
                error = user_error(error, self.region)
            return Answer(refused.status, {"error": error})
        except Exception as error:  # a bug of the fake
            traceback.print_exc()
            return Answer(500, {"error": {"code": "FakeError", "message": repr(error)}})
        if self._on_write and request.is_write:
            self._on_write(request)
        return answer

    def _route(self, request):
        if not OPEN.fullmatch(request.host + request.path) and not identity.audience(self, request):
            raise Refused(401, "AuthenticationFailed", "The Authorization header is missing.")
        for method, path, handler in arm.ROUTES:
            if method == request.method and path.fullmatch(request.path.rstrip("/")):
                answer = handler(self, request)
                return answer if isinstance(answer, Answer) else Answer(200, answer)
        return arm.resource(self, request)
