"""The `phi3` command: data, fine-tuning, endpoint, connection, flows."""
