"""Jobs, which really run, and their records in the run history."""

import re
import tempfile
import threading
from pathlib import Path

from . import assets, parallel
from .arm import ArmPath, hook, route
from .messages import Refused
from .storage import ML, container_of, url

LOG = "user_logs/std_log.txt"
EXPRESSION = re.compile(r"\$\{\{\s*(inputs|outputs)\.(\w+)\s*\}\}")
TUNED = "registered_model"


class Work:
    """Submitted work; a subclass's `do` runs in a thread. Each look at the state moves it on."""

    def __init__(self, azure, path, states):
        self.azure, self.path, self.error, self._next_states = azure, path, "", states
        self.folder = Path(tempfile.mkdtemp(dir=azure.folder, prefix="work-"))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def state(self):
        state = (
            self._next_states[0] if self._next_states else "Failed" if self.error else "Completed"
        )
        if len(self._next_states) > 1 or not self._thread.is_alive():
            del self._next_states[:1]
        return state

    def _run(self):
        try:
            if fault := self.azure.planned("job", self.path.text):
                raise Refused(400, "UserError", fault["message"])
            self.do()
        except Exception as error:
            self.error = str(error) or repr(error)


class Run(Work):
    """One job: its process, its log, its state."""

    def __init__(self, azure, path, document):
        self.properties, self._prefix = document["properties"], f"ExperimentRun/dcid.{path.name}"
        self._container = container_of(path.workspace, "workspaceartifactstore")
        super().__init__(azure, path, ["Queued", "Running"])

    def state(self):
        log = self.folder / "log.txt"
        content, state = log.read_bytes() if log.exists() else b"", super().state()
        self.azure.storage.put(self._container, f"{self._prefix}/{LOG}", content)
        return state

    def history(self):
        """Return the record that `jobs.download` reads; without outputs it uses the default paths."""
        return {"runId": self.path.name, "outputs": {}}

    def log_url(self):
        log, token = f"{self._prefix}/{LOG}", self.azure.storage.sas(self._container)
        return f"{url(self._container, log)}?{token}"

    def do(self):
        if self.properties["jobType"] == "Pipeline":
            self.step = parallel.Step(self)
            return self.step.run()
        if self.properties["jobType"] != "FineTuning":
            return self._command()
        container, path = self._locate(self.properties["outputs"][TUNED]["uri"])
        self.azure.storage.put(container, f"{path}MLmodel", b"flavors: {}\n")

    def _locate(self, address):
        return assets.locate(self.azure, self.path.workspace, address)

    def _command(self):
        code, outputs = self.folder / "code", self.folder / "outputs"
        code.mkdir()
        if self.properties.get("codeId"):
            assets.fetch(self.azure, self.path.workspace, self.properties["codeId"], code)
        values = self.inputs()
        uris = {name: output["uri"] for name, output in self.properties["outputs"].items()}
        uris.pop("default")
        for name in uris:
            values["outputs", name] = str(outputs / name)
            (outputs / name).mkdir(parents=True)
        command = EXPRESSION.sub(lambda part: values[part.groups()], self.properties["command"])
        self._execute(command, code)
        for name in uris:
            self.keep_output(name, outputs / name)
        self.azure.storage.put_folder(self._container, f"{self._prefix}/outputs", code / "outputs")

    def keep_output(self, name, folder):
        """Copy an output into its datastore."""
        self.azure.storage.put_folder(
            *self._locate(self.properties["outputs"][name]["uri"]), folder
        )

    def inputs(self):
        """Fetch the inputs; return their paths and values, by ("inputs", name)."""
        values = {}
        for name, definition in (self.properties.get("inputs") or {}).items():
            values["inputs", name] = str(definition.get("value", ""))
            if definition["jobInputType"] != "literal":
                is_file = definition["jobInputType"] == "uri_file"
                file = definition["uri"].rsplit("/", 1)[-1] if is_file else ""
                target = self.folder / "inputs" / name / file
                assets.fetch(self.azure, self.path.workspace, definition["uri"], target)
                values["inputs", name] = str(target)
        return values

    def _execute(self, command, code):
        environment = self.azure.bare_environment(self.properties.get("environmentVariables"))
        log = self.folder / "log.txt"
        if status := self.azure.spawn(["bash", "-c", command], code, environment, log).wait():
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
            raise Refused(400, "UserError", f"Execution failed. Exit status {status}.\n{tail}")


@hook("check", f"{ML}/jobs")
def check_job(azure, path, old, new):
    outputs = new["properties"]["outputs"]
    outputs.setdefault("default", {"jobOutputType": "uri_folder"})
    if new["properties"]["jobType"] == "FineTuning":
        outputs.setdefault(TUNED, {"jobOutputType": "mlflow_model"})
    for name, output in outputs.items():
        output["uri"] = output.get("uri") or assets.default_output(path.name, name)
    if old is None:
        azure.runs[path.key] = Run(azure, path, new)


@hook("show", f"{ML}/jobs")
def show_job(azure, path, document):
    document["properties"]["status"] = azure.runs[path.key].state()


@route("GET", r"/history/v1.0/.*/runs/[^/]+/details")
def details(azure, request):
    """Answer `jobs.stream`."""
    scope, name = re.search("/v1.0(/.*)/runs/(.*)/details", request.path).groups()
    run = azure.runs[ArmPath(f"{scope}/jobs/{name}").key]
    status = run.state()
    error = {"error": {"code": "UserError", "message": run.error}} if status == "Failed" else None
    return {"runId": name, "status": status, "logFiles": {LOG: run.log_url()}, "error": error}


@route("POST", r"/history/v1.0/.*/rundata")
def rundata(azure, request):
    """Answer the record of a job, or of a run of Prompt flow's service."""
    suffix = f"/{request.body['runId'].lower()}"
    record = next((run for key, run in azure.runs.items() if key.endswith(suffix)), None)
    if record is None:
        raise Refused(404, "UserError", f"Run {suffix[1:]} not found.")
    return {"runMetadata": record.history()}
