"""Flows in a Foundry project or an Azure ML workspace: uploaded through promptflow's own client, listed,
and brought back.

What is uploaded is a clean copy: the client would take caches and `.env` along. A version is uploaded
once; its id there is kept in the lock. promptflow's client never changes an uploaded flow's files: a new
version is a new flow.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from .. import paths
from ..azure import (
    CREATED_BY_TAG,
    PRODUCT,
    Cloud,
    Plan,
    Step,
    foundry_client,
    foundry_errors,
    is_created_by_us,
)
from ..errors import OpsError, first_line
from ..flows import (
    LOCK_FILE,
    NOT_LOCKED,
    PACKAGE,
    FlowDefinition,
    FlowState,
    build_tool_wheel,
    copy_flow,
    flow_files,
    flow_states,
    is_text,
    read_lock,
    refuse_changed_flows,
    refuse_secrets,
    save_lock,
)
from ..pf import pf_client

REQUIREMENTS_FILE = "requirements.txt"
TOOLS_FILE = ".promptflow/flow.tools.json"
# Where promptflow's client puts flows: the workspace's file share.
DATASTORE = "workspaceworkingdirectory"
# As many as the index gives at once, the newest first.
MOST_LISTED = 100
NAME, VERSION, HASH, TOOLS = "name", "version", "sha256", "tools"  # tags
HERE, OTHER, ABSENT = "uploaded", "other content", "not uploaded"


# -- what is uploaded ------------------------------------------------------------------------------


def require_locked(name: str, folder: Path = paths.FLOWS) -> FlowState:
    """A flow whose present content is locked, with the tools that are installed.

    Raises:
        OpsError: there is no such flow, or it is not as it was locked.
    """
    found = {state.name: state for state in flow_states(folder)}
    if name not in found:
        raise OpsError(f"there is no flow {name!r} in {folder}", f"It has {', '.join(found)}.")
    state = found[name]
    refuse_changed_flows([state])
    if state.status == NOT_LOCKED or state.entry is None:
        raise OpsError(f"{name} {state.version} is not locked", "Run `phi3 flow lock`.")
    if state.entry.tools != version(PACKAGE):
        what = f"{name} {state.version} was locked with the tools of {PACKAGE} {state.entry.tools}"
        fix = f"Here is {version(PACKAGE)}: raise `tags.version`, and run `phi3 flow lock`."
        raise OpsError(what, fix)
    return state


def display_name(state: FlowState) -> str:
    """What an uploaded version is called: `chat-v1.0.0`."""
    return f"{state.name}-v{state.version}"


@contextlib.contextmanager
def staged_flow(state: FlowState) -> Iterator[Path]:
    """A temporary folder with exactly what is uploaded of a flow; raises what `stage` raises."""
    with tempfile.TemporaryDirectory(prefix="phi3-flow-") as parent:
        folder = Path(parent) / display_name(state)  # the uploaded folder takes this name
        stage_flow(state.flow.folder, folder)
        yield folder


def stage_flow(flow: Path, folder: Path) -> None:
    """Write what is uploaded of a flow: its files, the wheel of the tool package, a requirements.txt that
    installs it, and prompt flow's description of the tools; into a folder that is not there yet.

    Raises:
        OpsError: prompt flow refuses the flow, or a key that this machine knows stands in a file.
    """
    copy_flow(flow, folder)
    wheel = build_tool_wheel().write(folder)
    _append(folder / REQUIREMENTS_FILE, f"./{wheel.name}\n")
    dag = folder / "flow.dag.yaml"
    if "environment" not in yaml.safe_load(dag.read_text(encoding="utf-8")):
        _append(dag, f"environment:\n  python_requirements_txt: {REQUIREMENTS_FILE}\n")
    _validate(flow, folder)
    refuse_secrets(folder)


def _append(file: Path, text: str) -> None:
    """Put lines behind a file's own; the bytes that are there stay."""
    own = file.read_bytes() if file.exists() else b""
    if own and not own.endswith(b"\n"):
        own += b"\n"
    file.write_bytes(own + text.encode())


def _validate(flow: Path, folder: Path) -> None:
    """prompt flow's own check, which also writes the `TOOLS_FILE` that the portal shows tools by."""
    fix = f"See `pf flow validate --source {flow}`."
    try:
        result = pf_client().flows.validate(folder)
    except Exception as error:  # whatever promptflow raises
        raise OpsError(f"{flow} is refused: {first_line(error)}", fix) from error
    if not result.passed:
        field, message = next(iter(result.error_messages.items()))
        raise OpsError(f"{flow} is refused: {field}: {first_line(Exception(message))}", fix)
    # It passes a package's tool that there is none of.
    tools = json.loads((folder / TOOLS_FILE).read_text(encoding="utf-8"))["package"]
    for node in FlowDefinition.read(folder).nodes:
        tool = (node.get("source") or {}).get("tool")
        if tool is not None and tool not in tools:
            what = f"{flow} is refused: the node {node['name']} uses {tool}, which is no tool here"
            raise OpsError(what, "Check the name, and that its package is installed.")
    for cache in folder.rglob("__pycache__"):
        shutil.rmtree(cache)


def list_uploads(folder: Path) -> list[tuple[str, int]]:
    """Every staged file's path and size in bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]


# -- where it goes ---------------------------------------------------------------------------------


class FoundryProject:
    """The flows of the configured workspace.

    Its methods raise azure-core's errors, and OpsError for what promptflow's client refuses.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud

    @property
    def place(self) -> str:
        """What the lock calls the workspace."""
        where = self.cloud.config.azure
        return f"{where.subscription_id}/{where.resource_group}/{where.workspace}"

    @cached_property
    def client(self) -> Any:
        """promptflow's own client of the workspace."""
        return foundry_client(self.cloud)

    def get(self, name: str) -> Any | None:
        """promptflow's `Flow` of that id, or None where there is none, or an archived one."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with foundry_errors():
                found = self.client.flows.get(name)
        except ResourceNotFoundError:
            return None
        return None if found.is_archived else found

    def all(self) -> list[Any]:
        """What this product uploaded, whoever ran it, among the newest `MOST_LISTED` flows."""
        with foundry_errors():
            found = self.client.flows.list(max_results=MOST_LISTED, include_others=True)
        return [
            flow
            for flow in found
            if is_created_by_us(flow.tags) and {NAME, VERSION} <= {*flow.tags}
        ]

    def find(self, state: FlowState) -> Any | None:
        """A flow's version there, or None.

        Raises:
            OpsError: the version is there with other content.
        """
        known = state.entry.uploads.get(self.place) if state.entry else None
        if known and (found := self.get(known)):
            return _same(found, state)
        for found in self.all():
            if (found.tags[NAME], found.tags[VERSION]) == (state.name, state.version):
                return _same(found, state)
        return None

    def create(self, folder: Path, state: FlowState) -> str:
        """Upload a staged flow; its id."""
        own = yaml.safe_load((folder / "flow.dag.yaml").read_text(encoding="utf-8")).get("tags")
        tags = {**own, **tags_of(state)}
        # The client prints what it made.
        with foundry_errors(), contextlib.redirect_stdout(io.StringIO()):
            made = self.client.flows.create_or_update(
                folder, display_name=display_name(state), tags=tags
            )
        return str(made.name)

    def download(self, found: Any, folder: Path) -> None:
        """Bring an uploaded flow's files into a folder."""
        from azure.storage.fileshare import ShareDirectoryClient

        store = self.cloud.ml.datastores.get(DATASTORE, include_secrets=True)
        secrets = store.credentials
        secret = getattr(secrets, "account_key", None) or getattr(secrets, "sas_token", None)
        place = str(found.path).rsplit("/", 1)[0]
        with ShareDirectoryClient(
            f"https://{store.account_name}.file.{store.endpoint}",
            store.file_share_name,
            place,
            credential=secret or self.cloud.credential,
            **({} if secret else {"token_intent": "backup"}),
        ) as share:
            _fetch(share, folder)


def tags_of(state: FlowState) -> dict[str, str]:
    """The tags by which an uploaded version is known."""
    tools = state.entry.tools if state.entry else version(PACKAGE)
    own = {NAME: state.name, VERSION: state.version, HASH: state.sha256, TOOLS: tools}
    return {CREATED_BY_TAG: PRODUCT, **own}


def _same(found: Any, state: FlowState) -> Any:
    if (found.tags or {}).get(HASH) != state.sha256:
        what = f"{display_name(state)} is there with other content ({found.name})"
        raise OpsError(what, "Raise `tags.version`: what is uploaded never changes.")
    return found


def _fetch(share: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in share.list_directories_and_files():
        if Path(item.name).name != item.name:
            raise OpsError(f"the file share names a file {item.name!r}", "It leads elsewhere.")
        if item.is_directory:
            _fetch(share.get_subdirectory_client(item.name), folder / item.name)
        else:
            content = share.get_file_client(item.name).download_file().readall()
            (folder / item.name).write_bytes(content)


# -- upload ----------------------------------------------------------------------------------------


def plan_upload(project: FoundryProject, state: FlowState, folder: Path) -> Plan:
    """Upload a flow's staged version, unless it is there, and note its id in the lock.

    Cut in between, the next run finds the flow by its tags and notes the id.

    Args:
        project: where to.
        state: a locked flow.
        folder: where it is staged.
    """
    sizes = [size for _, size in list_uploads(folder)]
    where = project.cloud.config.azure.workspace
    name = display_name(state)
    home = state.flow.folder.parent
    made: list[str] = []  # what is created now: the service's list may learn of it later

    def id_there() -> str | None:
        found = None if made else project.find(state)
        return made[0] if made else found and str(found.name)

    def noted() -> bool:
        entry = read_lock(home)[state.name][state.version]
        return (there := id_there()) is not None and entry.uploads.get(project.place) == there

    return Plan(
        f"upload {name}",
        [
            Step(
                f"flow {name} in {where} ({len(sizes)} files, {sum(sizes):,} bytes)",
                lambda: id_there() is not None,
                lambda: made.append(project.create(folder, state)),
            ),
            Step(
                f"its id in {home / LOCK_FILE}",
                noted,
                lambda: record_upload(home, state, project.place, str(id_there())),
                verb="note",
                state="noted",
            ),
        ],
    )


def record_upload(home: Path, state: FlowState, place: str, name: str) -> None:
    """Note in the lock under which id a version was uploaded."""
    lock = read_lock(home)
    entry = lock[state.name][state.version]
    uploads = {**entry.uploads, place: name}
    lock[state.name][state.version] = entry.model_copy(update={"uploads": uploads})
    save_lock(lock, home)


# -- list and pull ---------------------------------------------------------------------------------


def upload_rows(states: Iterable[FlowState], uploaded: Iterable[Any]) -> list[tuple[str, ...]]:
    """Every local flow's version beside the uploaded ones, then what is only there.

    Returns:
        Flow, version, how it stands to its lock here, how it stands there, its id there.
    """
    there = {(flow.tags[NAME], flow.tags[VERSION]): flow for flow in uploaded}
    found = []
    for state in states:
        flow = there.pop((state.name, state.version), None)
        same = flow and flow.tags.get(HASH) == state.sha256
        status = ABSENT if flow is None else HERE if same else OTHER
        name = str(flow.name) if flow else "–"
        found.append((state.name, state.version, state.status, status, name))
    only_there = [(*key, "not here", HERE, str(flow.name)) for key, flow in there.items()]
    return found + sorted(only_there)


def pull_flow(project: FoundryProject, name: str, out: Path, number: str | None = None) -> Any:
    """Bring an uploaded flow back.

    Args:
        project: where from.
        name: the flow's.
        out: the folder to write, which must not be there, or be empty.
        number: the version; the newest upload when left out.

    Returns:
        promptflow's `Flow`.

    Raises:
        OpsError: there is no such upload, or the folder holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OpsError(f"{out} is not empty", "Give another --out, or remove it.")
    uploads = [flow for flow in project.all() if flow.tags[NAME] == name]
    chosen = [flow for flow in uploads if number in (None, flow.tags[VERSION])]
    if not chosen:
        has = ", ".join(flow.tags[VERSION] for flow in uploads) or "none"
        what = f"there is no upload of {name} {number or ''}".rstrip()
        raise OpsError(what, f"Versions of {name} there: {has}.")
    found = project.get(chosen[0].name)
    if found is None:
        raise OpsError(f"the flow {chosen[0].name} is gone", "Run `phi3 flow list --azure`.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as parent:
        folder = Path(parent) / "flow"
        project.download(found, folder)
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return found


def diff_flow(local: Path, uploaded: Path) -> list[str]:
    """A unified diff of two folders of staged flows, from the local one to the uploaded one."""
    sides = [
        {path.relative_to(side).as_posix(): path for path in flow_files(side)}
        for side in (local, uploaded)
    ]
    lines: list[str] = []
    for name in sorted({*sides[0], *sides[1]}):
        contents = [side[name].read_bytes() if name in side else b"" for side in sides]
        if contents[0] == contents[1]:
            continue
        if not all(map(is_text, contents)):
            lines.append(f"{name} differs")
            continue
        here, there = (content.decode("utf-8", "replace").splitlines() for content in contents)
        names = f"here/{name}", f"uploaded/{name}"
        lines += difflib.unified_diff(here, there, *names, lineterm="")
    return lines
