"""Which captioned figures are open enough to train a model that ships."""

from __future__ import annotations

import re

__all__ = ["open_licence", "without_credit"]

_RESTRICTED = re.compile(
    r"\bNC\b|\bND\b|-NC|-ND|noncommercial|permission|all rights|copyright (?!rice)|GFDL|fair use"
    r"|courtesy of",
    re.IGNORECASE,
)
_PUBLIC_DOMAIN = re.compile(r"public domain|\bCC0|\bCC 0|\bPD-", re.IGNORECASE)
_ATTRIBUTION = re.compile(r"\bCC[ -]BY([ -]SA)?\b", re.IGNORECASE)
_OPENSTAX = re.compile(r"OpenStax|Rice University", re.IGNORECASE)
# Works of the United States government are in the public domain (17 U.S.C. 105).
_US_GOVERNMENT = re.compile(
    r"\bNASA\b|\bNOAA\b|\bUSGS\b|\bUSDA\b|\bFEMA\b|\bCDC\b|\bNIAID\b|\bNIH\b"
    r"|U\.?S\.? (Air Force|Army|Navy|Marine|Coast Guard|Department|Geological|Government|Patent"
    r"|Census|Fish|Forest|Senate|House|Embassy|Government)"
    r"|United States (Geological|Census|Department|Navy|Army|Air Force|Farm Security)"
    r"|Department of (Defense|Agriculture|Energy|State|Justice|the Interior)"
    r"|Library of Congress|National Archives|National Park Service|White House"
    r"|National Oceanic and Atmospheric|Works Progress Administration|Central Intelligence Agency"
    r"|Architect of the Capitol|Presidential Library"
)
# NASA pictures made with a partner that keeps its rights (ESA, ESO and universities) are not its
# work alone.
_PARTNER = re.compile(
    r"\bESA\b|\bESO\b|European|University|Universit|Institute|Observatory|STScI|AURA|CXC|ASU|JAXA"
    r"|\bSAO\b|\bSOHO\b|Center for Astrophysics|Corbis|Getty|flickr|et al",
    re.IGNORECASE,
)
_CREDIT_IN_CAPTION = re.compile(
    r"\(?\b(credits?|attribution|courtesy|photo by|graph courtesy)\b[^.]{0,40}[:“\"].*$",
    re.IGNORECASE | re.DOTALL,
)


def open_licence(credit: str, caption: str = "") -> str | None:
    """The open licence of a textbook figure, or None where any part of it is not clearly open.

    Args:
        credit: the figure's credit line. Without one the figure is the book's own work, CC BY 4.0.
        caption: searched for a credit where the credit line is empty.

    >>> open_licence("")
    'CC BY (book)'
    >>> open_licence("(credit: modification of work by NASA/JPL)")
    'public domain (US government)'
    >>> open_licence("(credit a: Ann/Flickr, CC BY 2.0; credit b: Bob/Flickr)")
    """
    line = credit.strip()
    if not line:
        found = _CREDIT_IN_CAPTION.search(caption)
        if found is None:
            return "CC BY (book)"
        line = found.group()
    if _RESTRICTED.search(line):
        return None
    licences = []
    for part in _parts(line):
        licence = _licence_of_part(part)
        if licence is None:
            return None
        licences.append(licence)
    return "; ".join(dict.fromkeys(licences)) or None


def without_credit(caption: str) -> str:
    """A caption without the credit at its end."""
    return _CREDIT_IN_CAPTION.sub("", caption).strip(" (\n")


def _parts(line: str) -> list[str]:
    """The credits of each panel; the source of a chart's data says nothing of its drawing."""
    parts = [part.strip() for part in re.split(r";\s*", line.strip().strip("()[]"))]
    credits = [p for p in parts if p and not re.match(r"(data )?sources?\b(?!.*CC)", p)]
    return credits or parts


def _licence_of_part(part: str) -> str | None:
    if _PUBLIC_DOMAIN.search(part):
        return "public domain"
    if match := _ATTRIBUTION.search(part):
        return "CC BY-SA" if match[1] else "CC BY"
    if _OPENSTAX.search(part):
        return "CC BY (book)"
    if _US_GOVERNMENT.search(part) and not _PARTNER.search(part):
        return "public domain (US government)"
    return None
