"""Documents of every format for tests, made when they are needed."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

MARKDOWN = """---
title: no text
---
# Pumps

## Model A

The pump A has a power of 40 watts and runs on 12 volts.
It is made in Graz.

```
# not a heading
```

## Model B

The pump B has a power of 90 watts and runs on 24 volts.
"""

HTML = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<nav>Home | About</nav><h1>Valves</h1><p>The valve <b>V1</b> opens at
 3 bar.</p><script>alert(1)</script><h2>Sizes</h2><ul><li>small: 5 mm</li><li>large: 9&nbsp;mm</li></ul>
<pre>a
  b</pre><!-- hidden --></body></html>"""


def pdf_bytes(*pages: str) -> bytes:
    """Return a PDF with one line of ASCII text per page."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>"]
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects.append(f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>")
    objects.append("<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>")
    for number, text in enumerate(pages):
        content = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        resources = "/Resources<</Font<</F1 3 0 R>>>>/MediaBox[0 0 595 842]"
        objects.append(f"<</Type/Page/Parent 2 0 R{resources}/Contents {5 + 2 * number} 0 R>>")
        objects.append(f"<</Length {len(content)}>>\nstream\n{content}\nendstream")
    output, offsets = b"%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        offsets.append(len(output))
        output += f"{number} 0 obj\n{text}\nendobj\n".encode()
    table = len(output)
    output += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    output += b"".join(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    trailer = f"trailer\n<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{table}\n%%EOF\n"
    return output + trailer.encode()


def encrypted_pdf_bytes(text: str, password: str) -> bytes:
    """Return a PDF that needs a password."""
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf_bytes(text))))
    writer.encrypt(password, algorithm="RC4-128")
    output = io.BytesIO()
    writer.write(output)
    return output.getvalue()


def docx_bytes() -> bytes:
    """Return a DOCX with headings, paragraphs and a table."""
    from docx import Document

    document = Document()
    document.add_heading("Handbook", 0)
    document.add_paragraph("The handbook describes the motors.")
    document.add_heading("Motor M1", 1)
    document.add_paragraph("The motor M1 weighs 3 kg.")
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("part", "price"), ("rotor", "20 euros"))):
        for cell, text in zip(row.cells, texts):
            cell.text = text
    output = io.BytesIO()
    document.save(output)
    return output.getvalue()


def zip_bomb_bytes(size: int) -> bytes:
    """Return a DOCX whose document unpacks to so many bytes."""
    output = io.BytesIO()
    block = bytes(1 << 20)
    with (
        zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as package,
        package.open("word/document.xml", "w", force_zip64=True) as part,
    ):
        for _ in range(size >> 20):
            part.write(block)
    return output.getvalue()


def write_documents(folder: Path) -> Path:
    """Write a readable document of each format into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pumps.md").write_text(MARKDOWN, encoding="utf-8")
    (folder / "valves.html").write_text(HTML, encoding="utf-8")
    (folder / "notes.txt").write_text("One note.\r\n\r\nAnother note.\r\n", encoding="utf-8")
    (folder / "sheet.pdf").write_bytes(pdf_bytes("First page text.", "Second page text."))
    (folder / "book.docx").write_bytes(docx_bytes())
    return folder
