"""Documents of every format, good and bad ones."""

import zipfile

import pytest

from phi3_ops.documents import readers
from phi3_ops.documents import sections as sections_module
from phi3_ops.documents.readers import MAX_BYTES, read_document
from phi3_ops.documents.sections import Section, UnreadableError
from sample_documents import (
    HTML,
    MARKDOWN,
    docx_bytes,
    encrypted_pdf_bytes,
    pdf_bytes,
    write_documents,
    zip_bomb_bytes,
)


@pytest.fixture
def folder(tmp_path):
    return write_documents(tmp_path)


def parts(sections):
    return [(section.headings, section.text) for section in sections]


def test_markdown_has_the_positions_of_its_file(folder):
    sections = [s for s in read_document(folder / "pumps.md") if s.text.strip()]
    assert [section.headings for section in sections] == [
        ("Pumps", "Model A"),
        ("Pumps", "Model B"),
    ]
    assert "# not a heading" in sections[0].text and "title" not in sections[0].text
    for section in sections:
        assert MARKDOWN[section.start :].startswith(section.text)


def test_html_has_its_visible_text_by_headings(folder):
    sections = read_document(folder / "valves.html")
    assert parts(sections) == [
        (("Valves",), "The valve V1 opens at 3 bar."),
        (("Valves", "Sizes"), "small: 5 mm\n\nlarge: 9 mm\n\na\n  b"),
    ]
    assert sections[0].start < sections[1].start


def test_a_pdf_has_pages(folder):
    assert read_document(folder / "sheet.pdf") == [
        Section("First page text.", 0, page=1),
        Section("Second page text.", 0, page=2),
    ]


def test_a_docx_has_headings_and_tables(folder):
    assert parts(read_document(folder / "book.docx")) == [
        (("Handbook",), "The handbook describes the motors."),
        (("Handbook", "Motor M1"), "The motor M1 weighs 3 kg.\n\npart | price\nrotor | 20 euros"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_text_with_a_byte_order_mark_is_read(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße\r\nund mehr".encode(encoding))
    assert read_document(path) == [Section("Grüße\nund mehr", 0)]


def test_markdown_with_windows_line_ends_and_without_headings(tmp_path):
    path = tmp_path / "a.md"
    path.write_bytes(b"just\r\ntext")
    assert parts(read_document(path)) == [((), "just\ntext")]


BROKEN_PDF = pdf_bytes("x")[:200]
BROKEN_DOCX = docx_bytes()[:-200]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "it is empty"),
        ("a.txt", b" \n\n", "it has no text"),
        ("a.txt", b"text\0more", "it is a binary file"),
        ("a.md", b"text \xff\xfa", "it is not UTF-8 (byte 5)"),
        ("a.html", b"\x89PNG\0\0", "it is a binary file"),
        ("a.html", b"<script>1</script>", "it has no text"),
        ("a.pdf", BROKEN_PDF, "it is a broken PDF: "),
        ("a.pdf", b"no PDF at all", "it is a broken PDF: "),
        ("a.pdf", pdf_bytes(""), "it has no text; it may be a scan"),
        ("a.docx", BROKEN_DOCX, "it is not a DOCX, or it is broken or encrypted"),
        ("a.docx", b"PK\x03\x04 no zip", "it is not a DOCX, or it is broken or encrypted"),
    ],
)
def test_what_cannot_be_read_has_a_reason(tmp_path, name, content, reason):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UnreadableError) as error:
        read_document(path)
    assert str(error.value).startswith(reason)


def test_an_encrypted_pdf_and_a_zip_without_a_document(tmp_path):
    path = tmp_path / "a.pdf"
    path.write_bytes(encrypted_pdf_bytes("secret", "pass"))
    with pytest.raises(UnreadableError, match="it is encrypted with a password"):
        read_document(path)
    path.write_bytes(
        encrypted_pdf_bytes("for all", "")
    )  # only the rights of the reader are limited
    assert read_document(path)[0].text == "for all"
    package = tmp_path / "a.docx"
    with zipfile.ZipFile(package, "w") as zip_file:
        zip_file.writestr("x", "y")
    with pytest.raises(UnreadableError, match="it is a broken DOCX: it contains no document"):
        read_document(package)


def test_bombs_and_large_files_are_refused_before_they_are_unpacked(tmp_path, monkeypatch):
    bomb = tmp_path / "bomb.docx"
    bomb.write_bytes(zip_bomb_bytes(201 << 20))
    assert bomb.stat().st_size < 1 << 20
    with pytest.raises(UnreadableError, match="it unpacks to more than 200 MiB"):
        read_document(bomb)
    large = tmp_path / "large.txt"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UnreadableError, match="it is larger than 50 MiB"):
        read_document(large)
    monkeypatch.setattr(sections_module, "MAX_CHARACTERS", 100)
    page = tmp_path / "a.html"
    page.write_text(HTML * 10, encoding="utf-8")
    with pytest.raises(UnreadableError, match="more than 100 characters"):
        read_document(page)


def test_long_text_and_markdown_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sections_module, "MAX_CHARACTERS", 100)
    for name in ("a.txt", "a.md"):
        (tmp_path / name).write_text("ü" * 101, encoding="utf-8")
        with pytest.raises(UnreadableError, match="more than 100 characters"):
            read_document(tmp_path / name)
        (tmp_path / name).write_text("ü" * 100, encoding="utf-8")
        assert read_document(tmp_path / name)


def test_rows_of_html_tables_stay_together(tmp_path):
    path = tmp_path / "a.html"
    path.write_text(
        "<table><tr><th>Pump</th><th>Weight</th></tr><tr><td><p>P<b>1</b></p></td><td>4<br>kg</td></tr>"
        "<tr><td></td><td> </td></tr><tr><td>P2</td><td></td></tr></table>"
        "<table><tr><td><h2>Menu</h2></td><td><p>One.</p><p>Two.</p></td></tr></table>"
        "<table><tr><td>open<td>cells</table>"
    )
    assert parts(read_document(path)) == [
        ((), "Pump | Weight\n\nP1 | 4 kg\n\nP2 |"),
        (("Menu",), "One.\n\nTwo.\n\nopen\n\ncells"),
    ]


def test_merged_cells_of_a_docx_are_read_once_and_inner_tables_are_read(tmp_path):
    from docx import Document

    document = Document()
    table = document.add_table(rows=2, cols=3)
    table.cell(0, 0).merge(table.cell(0, 2)).text = "Pumps and weights"
    for cell, text in zip(table.rows[1].cells, ("P1", "P1", "4 kg")):
        cell.text = text
    table.cell(1, 2).add_table(rows=1, cols=2).cell(0, 1).text = "inner"
    path = tmp_path / "a.docx"
    document.save(path)
    assert parts(read_document(path)) == [((), "Pumps and weights\nP1 | P1 | 4 kg | inner")]


def test_deep_and_strange_markup_is_read(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("<div>" * 20_000 + "deep" + "<p>" * 20_000 + "<h9>end", encoding="utf-8")
    assert parts(read_document(page)) == [((), "deep\n\nend")]
    text = tmp_path / "a.md"
    text.write_text("> " * 5_000 + "quoted\n\n" + "[" * 5_000, encoding="utf-8")
    assert read_document(text)


def test_text_that_cannot_be_written_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setitem(
        readers.READERS, ".pdf", lambda content: [Section("a\ud835", 0, ("\udc00",))]
    )
    (tmp_path / "a.pdf").write_bytes(b"x")
    assert read_document(tmp_path / "a.pdf") == [Section("a\ufffd", 0, ("\ufffd",))]


def test_a_file_that_is_gone(tmp_path):
    with pytest.raises(UnreadableError, match="it cannot be opened: No such file"):
        read_document(tmp_path / "gone.txt")
