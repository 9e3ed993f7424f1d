"""Pipelines with one parallel step: workers are processes that run the entry script on mini-batches."""

import contextlib
import json
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlencode

from . import assets
from .arm import route
from .identity import token
from .messages import Refused

WORKER = Path(__file__).with_name("worker.py")
EXPRESSION = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")


class Step:
    """The parallel step of a pipeline, which is run by one process per worker.

    Attributes:
        workers: processes that have been started, also those that have ended.
        failed: number of mini-batches that failed in every attempt.
    """

    def __init__(self, run):
        self._run, self._azure = run, run.azure
        (self._node,) = run.properties["jobs"].values()
        component = self._resource(self._node["componentId"])
        self._spec = component["properties"]["componentSpec"]
        self._task = self._spec["task"]
        self.workers, self.failed, self._lock = [], 0, threading.Lock()
        self._mini_batches = queue.Queue()

    def _setting(self, name, default=None):
        values = (self._node.get(name), self._spec.get(name))
        return next((value for value in values if value is not None), default)

    def _resource(self, identifier):
        path = "/" + identifier.split("azureml:")[-1].strip("/")
        if path.lower() not in self._azure.resources:
            raise Refused(404, "ResourceNotFound", f"{path} was not found.")
        return self._azure.resources[path.lower()]

    def run(self):
        """Run every mini-batch. Raises Refused if more of them failed than the threshold allows."""
        self._resource(self._task["environment"])
        self._resource(self._node["computeId"])
        folder = self._run.folder
        code = folder / "code"
        assets.fetch(self._azure, self._run.path.workspace, self._task["code"], code)
        values = self._run.inputs()
        outputs = self._run.properties["outputs"]
        for name in outputs:
            values["outputs", name] = str(folder / "outputs" / name)
            (folder / "outputs" / name).mkdir(parents=True)
        self._queue(Path(values[EXPRESSION.fullmatch(self._spec["input_data"]).groups()]))
        arguments = EXPRESSION.sub(
            lambda part: values[part.groups()], self._task["program_arguments"]
        )
        command = [code / self._task["entry_script"], *shlex.split(arguments)]
        count = self._setting("resources", {}).get("instance_count", 1)
        count *= int(self._setting("max_concurrency_per_instance", 1))
        threads = [threading.Thread(target=self._work, args=[command]) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in outputs:
            self._run.keep_output(name, folder / "outputs" / name)
        if self.failed > int(self._setting("mini_batch_error_threshold", -1)) >= 0:
            raise Refused(400, "UserError", f"{self.failed} mini-batches failed.")

    def _queue(self, folder):
        files = sorted(str(file) for file in folder.rglob("*") if file.is_file())
        size = int(self._setting("mini_batch_size", 10))
        self._left = 0
        for start in range(0, len(files), size):
            self._mini_batches.put((files[start : start + size], 1))
            self._left += 1

    def _work(self, command):
        """Give mini-batches to one worker after another, until none is left."""
        process = None
        while self._left:
            try:
                mini_batch, attempt = self._mini_batches.get(timeout=0.05)
            except queue.Empty:
                continue
            process = process or self._start(command)
            answer = self._answer(process, mini_batch)
            if answer is None:
                process = _close(process)
            self._end(mini_batch, attempt, answer)
        if process is not None:
            _close(process)

    def _start(self, command):
        with (self._run.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, WORKER, *command],
                cwd=command[0].parent,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        with self._lock:
            self.workers.append(process)
            self._azure.processes.append(process)
        return process

    def _answer(self, process, mini_batch):
        """Return the worker's answer, or None if it died or took longer than the timeout."""
        timer = threading.Timer(int(self._setting("retry_settings")["timeout"]), process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(mini_batch) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        return json.loads(line) if line else None

    def _end(self, mini_batch, attempt, answer):
        with self._lock:
            if answer and answer.get("items", -1) >= len(mini_batch):
                self._left -= 1
            elif attempt <= int(self._setting("retry_settings")["max_retries"]):
                self._mini_batches.put((mini_batch, attempt + 1))
            else:
                self._left -= 1
                self.failed += 1
            if answer and "error" in answer:
                with (self._run.folder / "log.txt").open("a") as log:
                    log.write(f"mini-batch {mini_batch} failed: {answer['error']}\n")

    def _environment(self):
        """Return what a node has: the workspace, and where the job's identity gets its tokens."""
        network = self._azure.environment()
        names = ("HTTPS_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")
        _, _, subscription, _, group = self._run.path.text.split("/")[:5]
        node = {
            "AZUREML_ARM_SUBSCRIPTION": subscription,
            "AZUREML_ARM_RESOURCEGROUP": group,
            "AZUREML_ARM_WORKSPACE_NAME": self._run.path.workspace,
        }
        identity = (self._node.get("identity") or {}).get("identity_type")
        tokens = f"https://login.microsoftonline.com/{self._azure.tenant}/node-token"
        if identity == "UserIdentity":
            node["OBO_ENDPOINT"] = tokens
        elif identity == "Managed":
            node |= {"MSI_ENDPOINT": tokens, "MSI_SECRET": "of-the-node"}
            node["DEFAULT_IDENTITY_CLIENT_ID"] = self._azure.client
        variables = self._setting("environment_variables", {})
        return self._azure.bare_environment(
            {name: network[name] for name in names} | node | variables
        )


def _close(process):
    """Let a worker end, and close its pipes."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    process.wait(30)
    process.stdout.close()


@route("GET", r"/[^/]+/node-token")
def node_token(azure, request):
    """Answer a node's request for a token of the job's identity."""
    resource = request.query["resource"]
    access = token(azure, SimpleNamespace(raw=urlencode({"scope": resource}).encode()))
    expires = int(time.time()) + access["expires_in"]
    return access | {"expires_on": str(expires), "resource": resource}
