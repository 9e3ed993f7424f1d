"""Badges as SVG files, which the README shows without another host."""

from __future__ import annotations

HEIGHT, CHARACTER, PADDING = 20, 7, 12  # pixels


def badge(label: str, value: str) -> str:
    """Return a badge with a label on grey and a value on blue."""
    left, right = (CHARACTER * len(text) + PADDING for text in (label, value))
    width = left + right
    texts = ((label, left / 2), (value, left + right / 2))
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
            f'role="img" aria-label="{label}: {value}">\n',
            f'<rect width="{width}" height="{HEIGHT}" rx="3" fill="#555"/>\n',
            f'<path d="M{left} 0h{right - 3}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3h-{right - 3}z" '
            'fill="#0969da"/>\n',
            '<g fill="#fff" text-anchor="middle" font-family="Verdana,sans-serif" font-size="11">\n',
            *[f'<text x="{middle:g}" y="14">{text}</text>\n' for text, middle in texts],
            "</g>\n</svg>\n",
        ]
    )
