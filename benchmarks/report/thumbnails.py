"""Small pictures of the images that moved most, as text inside a report.

Each is encoded anew, so that nothing of a file but its pixels gets into a report. They are bounded
in number and size: a page stays one that can be mailed.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

from convexport.calibration.images import ImageSet
from convexport.runtime.errors import InputError
from convexport.runtime.optional import require
from convexport.runtime.preprocess import decode
from convexport.runtime.specs import Preprocess

SIDE, MOST_BYTES, MOST_OF_A_PAGE = 96, 6_000, 60
_QUALITY = 75
_PREFIX = "data:image/jpeg;base64,"
# What a page shows; anything else in a document is a stranger's.
_OURS = re.compile(re.escape(_PREFIX) + r"[A-Za-z0-9+/]+={0,2}")


def with_thumbnails(verification: Mapping[str, Any], images: ImageSet) -> dict[str, Any]:
    """What ``verify`` found on these images, with a picture of each of the worst.

    An image that cannot be read now keeps its name alone.
    """
    wanted = {each["image"] for each in verification["worst"]}
    found = {
        name: images.items[index] for index, name in enumerate(images.names()) if name in wanted
    }
    worst = []
    for each in verification["worst"]:
        item = found.get(each["image"])
        picture = None if item is None else _encoded(item)
        worst.append({**each, "thumbnail": picture} if picture else dict(each))
    return {**verification, "worst": worst}


def shown(value: Any) -> str:
    """A picture as it may stand in a page, or nothing."""
    small = isinstance(value, str) and len(value) <= 2 * MOST_BYTES
    return value if small and _OURS.fullmatch(value) else ""


def _encoded(item: Any) -> str | None:
    pil = require("PIL.Image", purpose="small pictures in a report")
    try:
        image = decode(item.content(), Preprocess(), name=item.name).image.convert("RGB")
    except InputError:
        return None
    image.thumbnail((SIDE, SIDE))
    clean = pil.new("RGB", image.size)  # without what the file said of itself
    clean.paste(image)
    data = io.BytesIO()
    clean.save(data, "JPEG", quality=_QUALITY, optimize=True)
    if data.tell() > MOST_BYTES:
        return None
    return _PREFIX + base64.b64encode(data.getvalue()).decode()
