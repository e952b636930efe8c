"""What every page is made of: templates that escape, one style and one script of ours, and embedded pictures."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from memcontrol.report.wording import counted_text, interval_text, plain_text, signed_text

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
STYLE = "page.css"
"""The style that all pages begin with."""


def page_environment() -> Environment:
    """Templates that escape every value, refuse names that do not exist, and write numbers as people do."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": signed_text,
        "interval": interval_text,
        "plain": plain_text,
        "counted": counted_text,
    }
    return environment


def rendered(
    environment: Environment,
    template: str,
    content: Mapping[str, Any],
    *,
    styles: Sequence[str],
    scripts: Sequence[str],
) -> str:
    """A page that holds its style and script, and whose own policy lets it load nothing from elsewhere.

    Args:
        styles, scripts: names of files beside the template, joined in this order; the common style comes first.
    """
    style, script = _joined(STYLE, *styles), _joined(*scripts)
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}"
    return environment.get_template(template).render(**content, style=style, script=script, policy=policy)


def _joined(*names: str) -> Any:
    """Files of ours as one text, marked as not to be escaped."""
    from markupsafe import Markup

    return Markup("\n" + "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in names))


def _digest(source: str) -> str:
    """A policy's name for the one inline block that it lets through."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def data_address(image: Image.Image, kind: str = "PNG", **settings: Any) -> str:
    """A `data:` address of a picture, without metadata.

    Args:
        kind: PNG or WEBP.
        settings: of Pillow's writer for that kind.
    """
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
