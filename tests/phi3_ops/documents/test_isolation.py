"""Documents that take too much time or memory do not end the command."""

import pytest

from phi3_ops.documents import isolation
from phi3_ops.documents.isolation import IsolatedReader
from phi3_ops.documents.sections import Section, UnreadableError


def test_a_document_that_takes_too_long_is_given_up_and_the_next_one_is_read(tmp_path):
    (tmp_path / "good.txt").write_text("good text")
    slow = tmp_path / "slow.txt"
    with IsolatedReader() as reader:
        assert reader.read(tmp_path / "good.txt") == [Section("good text", 0)]
        with pytest.raises(UnreadableError, match="it cannot be opened"):
            reader.read(slow)
        process = reader._process
        process.kill()  # as the kernel does if the memory is full
        process.wait()
        with pytest.raises(UnreadableError, match="its reader failed"):
            reader.read(tmp_path / "good.txt")
        assert reader.read(tmp_path / "good.txt") == [Section("good text", 0)]
        (tmp_path / "slow.html").write_text("<p>x" * 300_000)
        reader._cpu_limit_s = 1
        with pytest.raises(UnreadableError, match="it takes more than 1 s"):
            reader.read(tmp_path / "slow.html")
        reader._timeout_s = 0
        with pytest.raises(UnreadableError, match="it was not read within 0 s"):
            reader.read(tmp_path / "good.txt")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UnreadableError("it is a test"), "it is a test"),
        (MemoryError(), "it needs too much memory"),
        (RecursionError(), "it is nested too deeply"),
        (KeyError("x"), "it is broken: KeyError"),
    ],
)
def test_errors_of_parsers_become_reasons(tmp_path, monkeypatch, error, reason):
    def fail(path):
        raise error

    monkeypatch.setattr(isolation, "read_document", fail)
    assert isolation._result(tmp_path) == reason
