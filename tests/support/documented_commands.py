"""The commands of README.md and docs/commands.md, in the order of a person's day.

The tables of docs/commands.md are made from `SECTIONS`. A test that runs a command names it with the
decorator `documented`; tests/test_commands.py checks that each command has such a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NO_SERVICE = "PF_TRACING_SKIP_LOCAL_SETUP=true"
QUESTIONS = ".phi3/data/questions.jsonl"
QA = f"--flow qa --data {QUESTIONS} --column-mapping input_data='${{data.question}}'"


@dataclass(frozen=True)
class Documented:
    """A row of the page.

    Attributes:
        step: what the command is for.
        command: the command as it is printed; words in capital letters stand for the user's own names.
    """

    step: str
    command: str


def documented(*commands: str) -> Callable[[Any], Any]:
    """Mark a test that runs these commands; see `printed` for how they are named."""
    return lambda function: function


QUICKSTART = (
    Documented("install, then run the whole path with the shipped data", "make quickstart"),
    Documented("… with a tiny model, in a minute", "make quickstart MODEL=tiny"),
    Documented("use the commands below", "source .venv/bin/activate"),
    Documented("run the whole path with your own table", "phi3 quickstart --data mine.csv"),
    Documented("lay out a project of your own in a new folder", "phi3 init shop"),
    Documented("find out what works here, and what further uses need", "phi3 doctor"),
    Documented("stop the endpoints and the chat page", "phi3 endpoint --stop"),
    Documented(
        "remove everything that the quickstart made, and nothing else", "phi3 quickstart --remove"
    ),
)
MODEL = (
    Documented("prepare training and test data from the shipped rows", "phi3 data"),
    Documented("… from your own table", "phi3 data --source mine.csv"),
    Documented(
        "… from JSONL, Parquet or CSV files, with a limit of length",
        "phi3 data --source FILE_OR_FOLDER --max-tokens 2048 --over-long cut",
    ),
    Documented(
        "… from the model hub, the slice that the tutorials use",
        "phi3 data --source HuggingFaceH4/ultrachat_200k --split 'train_sft[:1%]'",
    ),
    Documented(
        "make rows and preferences from what users corrected",
        "phi3 data --feedback --test .phi3/data/test.jsonl",
    ),
    Documented(
        "… from the lines that a run lost", "phi3 data --run RUN --test .phi3/data/test.jsonl"
    ),
    Documented(
        "make rows from documents, with questions and answers by another model",
        "phi3 data --from-docs FOLDER --connection TEACHER",
    ),
    Documented(
        "estimate the memory, the time and the price of a training, before it runs",
        "phi3 finetune --estimate --recipe lora --machine Standard_NC24ads_A100_v4",
    ),
    Documented("fine-tune a tiny model on this machine", "phi3 finetune --local"),
    Documented(
        "… a pretrained model of 135 million parameters",
        "phi3 finetune --local --model smollm2",
    ),
    Documented(
        "… a model of the hub, on a GPU",
        "phi3 finetune --local --model phi-3.5-mini --recipe lora",
    ),
    Documented("resume after an interruption", "phi3 finetune --local --resume"),
    Documented("write the fine-tuned model for llama.cpp and LM Studio", "phi3 export --to gguf"),
    Documented(
        "… in two quantizations, and compare their scores with the model's",
        "phi3 export --to gguf --quant q8_0,q4_k_m --evaluate --base smollm2",
    ),
    Documented("… for Ollama", "phi3 export --to ollama"),
    Documented("… for Foundry Local", "phi3 export --to foundry-local"),
    Documented("list the models that were fetched", "phi3 models"),
    Documented(
        "remove the base model from the cache, which all projects share",
        "phi3 models --remove smollm2",
    ),
)
USE = (
    Documented(
        "serve the model as Azure ML does, and connect it",
        "phi3 endpoint --model .phi3/model/model",
    ),
    Documented(
        "… and the base model, to compare them",
        "phi3 endpoint --model smollm2 --name base --connection phi3-base --port 8711",
    ),
    Documented(
        "… two deployments with a traffic split",
        "phi3 endpoint --deployment blue=DIR:90 --deployment green=DIR2:10",
    ),
    Documented(
        "connect another endpoint",
        "PHI3_KEY=… phi3 connect --endpoint https://NAME.REGION.inference.ml.azure.com/score",
    ),
    Documented("list the connections, without their keys", "phi3 connections"),
    Documented("chat in the browser", "phi3 serve"),
    Documented(
        "… with the fine-tuned model and the base model side by side",
        "phi3 serve --connection phi3 --against phi3-base",
    ),
    Documented("… and store the feedback of its users", "phi3 serve --feedback"),
    Documented("list the feedback", "phi3 feedback list"),
    Documented("write it to a file", "phi3 feedback export --out feedback.jsonl"),
    Documented("delete the feedback of a conversation", "phi3 feedback delete --conversation ID"),
    Documented(
        "run a flow once with Prompt flow's command",
        f'{NO_SERVICE} pf flow test --flow flows/qa --inputs input_data="Who founded Microsoft?"',
    ),
    Documented(
        "chat in the terminal", f"{NO_SERVICE} pf flow test --flow flows/chat --interactive"
    ),
    Documented(
        "serve a flow with Prompt flow's page",
        "pf flow serve --source flows/chat --port 8080 --host localhost --engine fastapi",
    ),
)
MEASURE = (
    Documented(
        "ask the base model the questions, and score its answers",
        f"phi3 run {QA} --connection phi3-base --name base --evaluate",
    ),
    Documented(
        "… the fine-tuned model", f"phi3 run {QA} --connection phi3 --name tuned --evaluate"
    ),
    Documented("list the runs", "phi3 runs"),
    Documented("run only the missing and failed lines of a run", "phi3 run --resume NAME"),
    Documented(
        "run conversations, turn by turn",
        "phi3 run --flow chat --data .phi3/data/test.jsonl --replay",
    ),
    Documented(
        "compare two runs, with a gate for CI", "phi3 compare base tuned --gate exact_match:0.02"
    ),
    Documented(
        "judge the answers of two runs on a page, without their names", "phi3 review base tuned"
    ),
    Documented("… compare the judges with the person", "phi3 review RUN --summary"),
    Documented(
        "… map a judge's scores to the ratings", "phi3 review RUN --calibrate calibration.json"
    ),
    Documented("… and let the ratings gate", "phi3 compare base tuned --gate review:0.2"),
    Documented("try prompts, connections and parameters", "phi3 sweep sweep.yaml"),
    Documented("… and see first what it would do", "phi3 sweep sweep.yaml --dry-run"),
    Documented(
        "run a batch with Prompt flow's command",
        f"{NO_SERVICE} pf run create --flow flows/qa --data {QUESTIONS} --name asked "
        "--column-mapping input_data='${data.question}'",
    ),
    Documented(
        "… and score it",
        f"{NO_SERVICE} pf run create --flow flows/eval --data {QUESTIONS} --run asked "
        "--name scored --column-mapping answer='${run.outputs.answer}' "
        "ground_truth='${data.ground_truth}'",
    ),
    Documented("show the scores", "pf run show-metrics --name scored"),
)
FLOWS = (
    Documented("lock a new version of a flow", "phi3 flow lock"),
    Documented("prove that a flow would run elsewhere", "phi3 flow check chat --local"),
    Documented("write the build context of a container", "phi3 flow build chat --out build/chat"),
    Documented(
        "write a flow as code that runs without Prompt flow",
        "phi3 flow export chat --to fastapi --out build/chat-app",
    ),
)
AZURE = (
    Documented("check the quota", "phi3 quota"),
    Documented("create the workspace, identity, roles and cluster", "phi3 provision"),
    Documented("run the fine-tuning job", "phi3 finetune --follow"),
    Documented("… on a CPU with ten rows", "phi3 finetune --cpu --rows 10 --follow"),
    Documented(
        "… as a fine-tuning job of the model catalog",
        "phi3 finetune --catalog --model Phi-4-mini-instruct --set learning_rate=2e-5",
    ),
    Documented(
        "create the model, endpoint and deployment, and move the traffic",
        "phi3 deploy --canary 10,50,100",
    ),
    Documented("write the URL and the key into the connections", "phi3 connect --azure"),
    Documented("regenerate the keys", "phi3 connect --azure --rotate"),
    Documented("show the running resources and what is paid for", "phi3 status"),
    Documented("run a batch on a cluster", f"phi3 run --on-azure {QA} --instances 4 --follow"),
    Documented("upload a flow", "phi3 flow upload chat"),
    Documented("upload another flow", "phi3 flow upload qa"),
    Documented(
        "run a batch of the uploaded flow in the Foundry project",
        f"phi3 run --on-foundry {QA} --follow",
    ),
    Documented("deploy a flow as an endpoint", "phi3 deploy --flow chat"),
    Documented(
        "promote a flow to another environment if a comparison passes",
        "phi3 flow promote chat --from dev --to prod --baseline RUN --candidate RUN",
    ),
    Documented("delete what has expired", "phi3 down --expired"),
    Documented("delete the resources that cost money", "phi3 down"),
)
SECTIONS: dict[str, tuple[Documented, ...]] = {
    "quickstart": QUICKSTART,
    "model": MODEL,
    "use": USE,
    "measure": MEASURE,
    "flows": FLOWS,
    "azure": AZURE,
}
ALL = [row.command for rows in SECTIONS.values() for row in rows]


def matching(text: str) -> list[str]:
    """Return the commands that a text names: a section, a command, or with `…` the beginning of one."""
    if text in SECTIONS:
        return [row.command for row in SECTIONS[text]]
    if text.endswith("…"):
        return [command for command in ALL if command.startswith(text.removesuffix("…"))]
    return [command for command in ALL if command == text]


def printed(text: str, **names: Any) -> str:
    """Return a command as it is printed, with values for the words in capital letters.

    Args:
        text: the command, or its beginning and `…`.
        names: word in capital letters -> the text that replaces it.
    """
    (command,) = matching(text)
    for name, value in names.items():
        command, count = re.subn(rf"\b{name}\b", str(value), command)
        assert count, f"{command} has no {name}"
    return command
