"""PDF pages, rendered by PDFium."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.decoded import Page
from mmembed.inputs.items import DocumentPart, Item, MediaSource
from mmembed.inputs.limits import check_size, fit_size
from mmembed.inputs.source import content_name, local_path, read_head
from mmembed.inputs.unicode import valid_text

if TYPE_CHECKING:
    import pypdfium2

__all__ = ["decode_page", "iter_pages", "page_count"]

_POINTS_PER_INCH = 72
_MAX_OPEN = 4
_FILE_ERROR = 2  # FPDF_ERR_FILE
_PASSWORD_ERROR = 4  # FPDF_ERR_PASSWORD
_SECURITY_ERROR = 5  # FPDF_ERR_SECURITY: an encryption scheme that PDFium does not know.

# Control characters but tab and newline; U+0002 and U+FFFE stand for hyphens at line ends.
_MARKS = dict.fromkeys((*range(9), *range(11, 32), 0xFFFE, 0xFFFF))

_Key: TypeAlias = "bytes | tuple[str, int, int]"


class _OpenDocuments:
    """The most recently used documents, so that reading 300 pages opens a file once."""

    def __init__(self) -> None:
        # PDFium is not thread safe, not even over two documents: one lock around every call.
        self.lock = threading.RLock()
        self._documents: OrderedDict[_Key, pypdfium2.PdfDocument] = OrderedDict()

    def get(self, source: Path | bytes, label: str) -> pypdfium2.PdfDocument:
        """The open document; hold ``lock`` until done with it."""
        key = _key(source)
        document = self._documents.get(key)
        if document is None:
            document = _open(source, label)
            if not self._documents:
                # Registered after pypdfium2's own exit hook, so run before it, which complains.
                atexit.register(self.close)
            self._documents[key] = document
        self._documents.move_to_end(key)
        while len(self._documents) > _MAX_OPEN:
            self._documents.popitem(last=False)[1].close()
        return document

    def close(self) -> None:
        """Close all documents."""
        with self.lock:
            while self._documents:
                self._documents.popitem()[1].close()


_open_documents = _OpenDocuments()
_inherited: list[_OpenDocuments] = []


def _after_fork() -> None:
    # A child shares the parent's file offsets, and may inherit the lock while it is held.
    global _open_documents
    _inherited.append(_open_documents)  # Kept, because closing them would disturb the parent.
    _open_documents = _OpenDocuments()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def decode_page(part: DocumentPart, budget: MediaBudget) -> Page:
    """Render one page and read its text layer. Thread-safe; calls run one at a time.

    The page is rendered at ``budget.page_dpi``, or coarser where that would exceed
    ``budget.max_pixels``. Form fields are drawn as filled in.

    Raises:
        InputError: the file is missing, empty, not a PDF, damaged or encrypted; it has no such
            page; the page is extremely narrow or cannot be rendered.
    """
    source = _checked(part.source, part.label)
    with _open_documents.lock:
        document = _open_documents.get(source, part.label)
        count = len(document)
        if part.page > count:
            pages = "1 page" if count == 1 else f"{count} pages"
            raise InputError(part.label, f"there is no page {part.page}: the PDF has {pages}")
        try:
            return _render(document, part, budget)
        except InputError:
            raise
        except Exception as error:  # PDFium's wrapper raises many types on a damaged page.
            raise InputError(part.label, f"the page cannot be rendered: {error}") from error


def page_count(source: MediaSource) -> int:
    """How many pages a PDF has, which is at least one.

    Raises:
        InputError: the file is missing, empty, not a PDF, damaged, encrypted or without pages.
    """
    label = DocumentPart(source).label.rpartition("#page=")[0]
    checked = _checked(source, label)
    with _open_documents.lock:
        return len(_open_documents.get(checked, label))


def iter_pages(path: str | Path) -> Iterator[Item]:
    """One item a page, in order: ``file.pdf#page=1``, ``file.pdf#page=2``, ...

    Raises:
        InputError: as :func:`page_count`, before the first item.
    """
    for number in range(1, page_count(path) + 1):
        yield Item((DocumentPart(Path(path), number),))


def _checked(source: MediaSource, label: str) -> Path | bytes:
    if isinstance(source, bytes):
        if not source:
            raise InputError(label, "is empty (0 bytes)")
        return source
    if isinstance(source, (str, Path)):
        return local_path(source)
    raise InputError(
        label, f"a document cannot be a {type(source).__name__}", "give a path or bytes of a PDF"
    )


def _key(source: Path | bytes) -> _Key:
    if isinstance(source, bytes):
        return source
    status = source.stat()
    return (str(source.absolute()), status.st_size, status.st_mtime_ns)


def _open(source: Path | bytes, label: str) -> pypdfium2.PdfDocument:
    import pypdfium2
    import pypdfium2.raw

    # A document without pages fails with the code of whatever failed before, so that is made to
    # be a failure which a file that exists cannot have.
    pypdfium2.raw.FPDF_LoadDocument(b"", None)
    try:
        document = pypdfium2.PdfDocument(source)
    except pypdfium2.PdfiumError as error:
        if error.err_code == _FILE_ERROR:
            raise InputError(label, "the PDF has no pages") from error
        if error.err_code in (_PASSWORD_ERROR, _SECURITY_ERROR):
            raise InputError(
                label, "is encrypted", "save a copy of the PDF without a password"
            ) from error
        found = content_name(read_head(source, label))
        reason = "is damaged" if found == "a PDF" else f"is not a PDF, it is {found}"
        raise InputError(label, reason if found else "is not a PDF, or is damaged") from error
    except OSError as error:
        raise InputError(label, f"cannot be read: {error.strerror}") from error
    if document.get_formtype():
        document.init_forms()
    return document


def _render(document: pypdfium2.PdfDocument, part: DocumentPart, budget: MediaBudget) -> Page:
    page = document[part.page - 1]
    try:
        width, height = page.get_size()
        check_size(part.label, round(width), round(height), limit=None)
        # A page is vectors, so one that is too large is rendered coarser, and not refused.
        limit = min(budget.max_pixels or budget.max_input_pixels, budget.max_input_pixels)
        scale = budget.page_dpi / _POINTS_PER_INCH
        full = (ceil(width * scale), ceil(height * scale))
        size = fit_size(*full, limit)
        if size != full:
            # A hair less, because the size in pixels is rounded up.
            scale = min(size[0] / width, size[1] / height) * (1 - 1e-9)
        bitmap: Any = page.render(scale=scale, rev_byteorder=True, prefer_bgrx=False)
        try:
            image = bitmap.to_pil().convert("RGB").copy()
        finally:
            bitmap.close()
        textpage = page.get_textpage()
        try:
            text = textpage.get_text_bounded()
        finally:
            textpage.close()
    finally:
        page.close()
    return Page(image, _clean(text), part.page)


def _clean(text: str) -> str:
    """Undo what PDFium adds: CR LF line ends, and marks where a hyphen parted a line."""
    return valid_text(text.translate(_MARKS)).strip()
