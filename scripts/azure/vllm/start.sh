#!/bin/sh
# The weights and the tokenizer of an MLflow model are in model/ and components/tokenizer/; those of a Hugging
# Face model are in one folder. Looking for the files themselves works with both. LoRA adapters in folders
# adapters/NAME are served beside the model, under their NAME.
set -eu

folder_of() {
    file=$(find "$AZUREML_MODEL_DIR" -name "$1" ! -path "$AZUREML_MODEL_DIR/adapters/*" \
        ! -path "$AZUREML_MODEL_DIR/*/adapters/*" | sort | head -n 1)
    if [ -z "$file" ]; then
        echo "the model that Azure ML mounts at $AZUREML_MODEL_DIR contains no $1" >&2
        exit 1
    fi
    dirname "$file"
}

model=$(folder_of '*.safetensors')
tokenizer=$(folder_of tokenizer.json)
set -- --max-model-len "${MAX_MODEL_LEN:-4096}"
if [ -f "$tokenizer/chat_template.jinja" ]; then
    set -- "$@" --chat-template "$tokenizer/chat_template.jinja"
fi
# Phi-4-mini is the Phi-3 architecture with a vocabulary of this size. It writes tool calls as JSON.
if grep -q '"vocab_size": *200064' "$model/config.json" 2>/dev/null; then
    set -- "$@" --enable-auto-tool-choice --tool-call-parser phi4_mini_json
fi

# vLLM refuses such adapters, too, but only after it has loaded the model.
refuse() {
    echo "the adapter $1 cannot be served: vLLM does not support $2; serve the merged model instead" >&2
    exit 1
}

adapters=$(find "$AZUREML_MODEL_DIR" -path '*/adapters/*/adapter_config.json' | sort)
if [ -n "$adapters" ]; then
    rank=8
    set -- "$@" --enable-lora --lora-modules
    while IFS= read -r config; do
        folder=$(dirname "$config")
        if grep -q '"use_dora": *true' "$config"; then
            refuse "$(basename "$folder")" "DoRA (dora: true)"
        elif grep -Eq '"modules_to_save": *\[ *("|$)' "$config"; then
            refuse "$(basename "$folder")" modules_to_save
        fi
        set -- "$@" "$(basename "$folder")=$folder"
        r=$(sed -n 's/^ *"r": *\([0-9]*\).*/\1/p' "$config")
        # The maximum rank is one of 8, 16, 32, 64, 128, 256 and 512.
        while [ "$rank" -lt "${r:-8}" ]; do rank=$((rank * 2)); done
    done <<END
$adapters
END
    set -- "$@" --max-lora-rank "$rank"
fi
# VLLM_ARGS is a list of arguments, so it must be split into words.
# shellcheck disable=SC2086
exec vllm serve "$model" --tokenizer "$tokenizer" --host 0.0.0.0 --port 8000 "$@" ${VLLM_ARGS-}
