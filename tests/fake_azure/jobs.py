"""Jobs, which really run, and what the run history says of them.

Documented: states, `${{inputs.x}}` and `${{outputs.y}}`, `$[[...]]` around an optional input, the log
`user_logs/std_log.txt`, where outputs are kept (see assets.py). Read in azure-ai-ml 1.32.0: run
details, run data, the answers that `jobs.stream` and `jobs.download` need.
Invented: a job has one process whatever its instances, this Python instead of its environment, and
moves on only when looked at (Queued, Running, its end), so that even a short one prints its log;
outputs are typed as folders, as the SDK downloads only those. A fine-tuning job trains nothing: it
leaves one small file as its model.
"""

import os
import re
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from . import assets
from .arm import ArmPath, Refused, acted_on
from .storage import box_of, url

LOG = "user_logs/std_log.txt"
EXPRESSION = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
OPTIONAL = re.compile(r"\$\[\[(.*?)\]\]", re.DOTALL)
TUNED = "registered_model"


class Run:
    """One job: its process, its log, its state."""

    def __init__(self, azure, path, document):
        self.azure, self.path, self.properties = azure, path, document["properties"]
        self.folder = Path(tempfile.mkdtemp(dir=azure.folder, prefix="job-"))
        self.error, self.cancelled, self.process = "", False, None
        self._coming = ["Queued", "Running"]
        self._box = box_of(path.workspace, "workspaceartifactstore")
        self._prefix = f"ExperimentRun/dcid.{path.name}"
        self._log = self.folder / "log.txt"
        self._log.touch()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def state(self):
        """The state; looking at it lets it move on."""
        if len(self._coming) == 1 and self._thread.is_alive():
            state = self._coming[0]
        elif self._coming:
            state = self._coming.pop(0)
        else:
            state = "Canceled" if self.cancelled else "Failed" if self.error else "Completed"
        self.azure.storage.put(self._box, f"{self._prefix}/{LOG}", self._log.read_bytes())
        return state

    def log_url(self):
        return f"{url(self._box, f'{self._prefix}/{LOG}')}?{self.azure.storage.sas(self._box)}"

    def stop(self):
        self.cancelled = True
        if self.process and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def _run(self):
        try:
            fault = self.azure.planned("job", self.path.text)
            if fault:
                raise Refused(400, "UserError", fault["message"])
            if self.properties["jobType"] == "FineTuning":
                box, path = self._locate(self.properties["outputs"][TUNED]["uri"])
                self.azure.storage.put(box, f"{path}MLmodel", b"flavors: {}\n")
            else:
                self._command()
        except Exception as error:
            self.error = str(error) or repr(error)

    def _locate(self, address):
        return assets.locate(self.azure, self.path.workspace, address)

    def _command(self):
        code, outputs = self.folder / "code", self.folder / "outputs"
        code.mkdir()
        if self.properties.get("codeId"):
            assets.fetch(self.azure, self.path.workspace, self.properties["codeId"], code)
        names = [name for name in self.properties["outputs"] if name != "default"]
        for name in names:
            (outputs / name).mkdir(parents=True)
        values = self._inputs() | {("outputs", name): str(outputs / name) for name in names}
        self._execute(substituted(self.properties["command"], values), code)
        for name in names:
            found = self._locate(self.properties["outputs"][name]["uri"])
            self.azure.storage.put_folder(*found, outputs / name)
        self.azure.storage.put_folder(self._box, f"{self._prefix}/outputs", code / "outputs")

    def _inputs(self):
        found = {}
        for name, given in (self.properties.get("inputs") or {}).items():
            found["inputs", name] = str(given.get("value", ""))
            if given["jobInputType"] != "literal":
                is_file = given["jobInputType"] == "uri_file"
                file = given["uri"].rsplit("/", 1)[-1] if is_file else ""
                target = self.folder / "inputs" / name / file
                assets.fetch(self.azure, self.path.workspace, given["uri"], target)
                found["inputs", name] = str(target)
        return found

    def _execute(self, command, code):
        environment = self.azure.bare_environment(self.properties.get("environmentVariables") or {})
        with self._log.open("wb") as log:
            streams = {"stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen(
                ["bash", "-c", command], cwd=code, env=environment, **streams
            )
            self.azure.processes.append(self.process)
            if self.cancelled:  # in between
                self.stop()
            status = self.process.wait()
        if status:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-5:])
            raise Refused(400, "UserError", f"Execution failed. Exit status {status}.\n{tail}")


def substituted(command, values):
    """The command with its expressions replaced, and without optional parts that lack an input."""

    def optional(part):
        names = EXPRESSION.findall(part.group(1))
        return part.group(1) if all(name in values for name in names) else ""

    return EXPRESSION.sub(lambda part: values[part.groups()], OPTIONAL.sub(optional, command))


def check_job(azure, path, old, new):
    outputs = new["properties"]["outputs"]
    outputs.setdefault("default", {"jobOutputType": "uri_folder"})
    if new["properties"]["jobType"] == "FineTuning":
        outputs.setdefault(TUNED, {"jobOutputType": "mlflow_model"})
    for name, output in outputs.items():
        output["uri"] = output.get("uri") or assets.default_output(path.name, name)
    if old is None:
        azure.runs[path.key] = Run(azure, path, new)


def forget_job(azure, path):
    azure.runs.pop(path.key).stop()


def show_job(azure, path, document):
    document["properties"]["status"] = azure.runs[path.key].state()


def cancel(azure, request):
    azure.runs[acted_on(azure, request).key].stop()
    return {}


def details(azure, request):
    """GET /history/…/runs/{job}/details: what `jobs.stream` follows."""
    name = request.path.split("/")[-2]
    run = _run(azure, request, name)
    status = run.state()
    error = {"error": {"code": "UserError", "message": run.error}} if status == "Failed" else None
    return {"runId": name, "status": status, "logFiles": {LOG: run.log_url()}, "error": error}


def run_data(azure, request):
    """POST /history/…/rundata: which asset each output is."""
    outputs = _run(azure, request, request.body["runId"]).properties["outputs"].items()
    named = {name: {"assetId": each["uri"], "type": "UriFolder"} for name, each in outputs}
    named.pop("default")
    return {"runMetadata": {"runId": request.body["runId"], "outputs": named}}


def _run(azure, request, job):
    scope = re.search("/v1.0(/.*/workspaces/[^/]+)", request.path, re.IGNORECASE).group(1)
    key = ArmPath(f"{scope}/jobs/{job}").key
    if key not in azure.runs:
        raise Refused(404, "ResourceNotFound", f"The job {job} was not found.")
    return azure.runs[key]


def resolved(azure, request):
    """POST /data/…/batchGetResolvedUris."""
    return {"values": {each: {"uri": each} for each in request.body["values"]}}


ROUTES = [
    ("POST", r".*/jobs/[^/]+/cancel", cancel),
    ("GET", r"/history/v1.0/.*/runs/[^/]+/details", details),
    ("POST", r"/history/v1.0/.*/rundata", run_data),
    ("POST", r"/data/v1.0/.*/batchGetResolvedUris", resolved),
]
