"""Puts a figure into a page, smaller where it would make the page too large."""

from __future__ import annotations

import base64
import io

from mixjax.runner.pages.elements import Html, element

__all__ = ["embedded"]

# In base 64 these are 0.8 MB, which leaves room for the rest of a page of three.
_MAX_BYTES = 600_000


def embedded(png: bytes, text: str) -> list[Html]:
    """Makes an image of a PNG, with fewer colours and then fewer pixels where it has more than 0.6 MB.

    Args:
        png: the file.
        text: what it shows, for those who do not see it.

    Returns:
        The image, and a sentence where it was made smaller.
    """
    small = _smaller(png) if len(png) > _MAX_BYTES else png
    source = f"data:image/png;base64,{base64.b64encode(small).decode('ascii')}"
    parts = [element("div", element("img", src=source, alt=text), class_="figure")]
    if small is not png:
        parts.append(element("p", "The figure is made smaller here; figure.png is as it was drawn.", class_="notes"))
    return parts


def _smaller(png: bytes) -> bytes:
    # Pillow comes with matplotlib, without which there is no figure.
    from PIL import Image

    with Image.open(io.BytesIO(png)) as opened:
        image = opened.convert("RGB")
    while True:
        buffer = io.BytesIO()
        image.quantize(128).save(buffer, format="PNG")
        if buffer.tell() <= _MAX_BYTES:
            return buffer.getvalue()
        # The size of the file goes with the area.
        scale = 0.95 * (_MAX_BYTES / buffer.tell()) ** 0.5
        image = image.resize((max(int(image.width * scale), 1), max(int(image.height * scale), 1)))
