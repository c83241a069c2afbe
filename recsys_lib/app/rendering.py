"""Templates, and how numbers and days are written. Everything that a template prints is escaped."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape


@cache
def _environment() -> Environment:
    folder = FileSystemLoader(Path(__file__).parent / "html")
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=50
    )
    environment.filters["commands"] = commands
    return environment


def render(template: str, **values: Any) -> str:
    """Fill a template of the folder ``html``."""
    return _environment().get_template(f"{template}.html").render(**values)


def commands(text: str) -> Markup:
    """A text in whose HTML what stands between backquotes looks like a command.

    >>> commands("<b>: `make 05` makes it")
    Markup('&lt;b&gt;: <code>make 05</code> makes it')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def percent(share: float, digits: int = 0) -> str:
    """A share for people.

    >>> percent(0.1234), percent(0.1234, 1)
    ('12 %', '12.3 %')
    """
    return f"{100 * share:.{digits}f} %"


def day(second: int) -> str:
    """The day of a UNIX second, in UTC.

    >>> day(881250949)
    '4 Dec 1997'
    """
    return datetime.fromtimestamp(int(second), UTC).strftime("%-d %b %Y")
