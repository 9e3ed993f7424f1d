"""`python -m phi3_ops` is `phi3`."""

from .cli import entry

if __name__ == "__main__":
    raise SystemExit(entry())
