#!/bin/sh
# An MLflow model keeps its weights in model/ and its tokenizer in components/tokenizer/, a Hugging Face
# folder both in one place: look for the files themselves.
set -eu
model=$(dirname "$(find "$AZUREML_MODEL_DIR" -name '*.safetensors' | sort | head -n 1)")
tokenizer=$(dirname "$(find "$AZUREML_MODEL_DIR" -name tokenizer.json | sort | head -n 1)")
# VLLM_ARGS is a list of arguments: it is meant to be split.
# shellcheck disable=SC2086
exec vllm serve "$model" --tokenizer "$tokenizer" --host 0.0.0.0 --port 8000 $VLLM_ARGS
