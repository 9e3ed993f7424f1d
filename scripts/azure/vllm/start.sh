#!/bin/sh
# An MLflow model keeps its weights in model/ and its tokenizer in components/tokenizer/, a Hugging Face
# folder both in one place: look for the files themselves.
set -eu

folder_of() {
    file=$(find "$AZUREML_MODEL_DIR" -name "$1" | sort | head -n 1)
    if [ -z "$file" ]; then
        echo "there is no $1 in the model that Azure ML mounts at $AZUREML_MODEL_DIR" >&2
        exit 1
    fi
    dirname "$file"
}

model=$(folder_of '*.safetensors')
tokenizer=$(folder_of tokenizer.json)
# VLLM_ARGS is a list of arguments: it is meant to be split.
# shellcheck disable=SC2086
exec vllm serve "$model" --tokenizer "$tokenizer" --host 0.0.0.0 --port 8000 ${VLLM_ARGS-}
