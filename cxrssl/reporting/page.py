"""From the contents of a card to one HTML page that needs nothing else."""

import json
from importlib.resources import files

from cxrssl.errors import InputError
from cxrssl.reporting.content import Card, Films

__all__ = ["need_template_engine", "render"]

_TEMPLATES = "templates"
_PAGE, _STYLE, _SCRIPT = "page.html.j2", "style.css", "page.js"


def need_template_engine() -> None:
    """Refuse early to make a page where it could not be written.

    Raises:
        InputError: If jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise InputError(
            'cxrssl report needs packages that are not installed: pip install "cxrssl[report]"'
        ) from error


def render(card: Card) -> str:
    """Return a card as a page.

    Raises:
        InputError: If jinja2 is not installed.
    """
    need_template_engine()
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    folder = files("cxrssl.reporting") / _TEMPLATES
    page, style, script = (
        (folder / name).read_text(encoding="utf-8") for name in (_PAGE, _STYLE, _SCRIPT)
    )
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["payload"] = lambda films: Markup(_payload(films))
    return environment.from_string(page).render(
        card=card,
        style=Markup(style),
        script=Markup(script),
    )


def _payload(films: Films) -> str:
    """Return plain data as JSON that ends no script element."""
    return json.dumps(films.payload, separators=(",", ":")).replace("<", "\\u003c")
