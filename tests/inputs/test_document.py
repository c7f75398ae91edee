"""PDF pages: rendered, with text, from a document that is opened once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2
import pytest

from mmembed.errors import InputError
from mmembed.inputs.budget import MediaBudget
from mmembed.inputs.document import decode_page, iter_pages, page_count
from mmembed.inputs.items import DocumentPart

BUDGET = MediaBudget()
MakePdf = Callable[..., Path]


def _error(source: Any, page: int = 1) -> str:
    part = DocumentPart(source, page)
    with pytest.raises(InputError) as caught:
        decode_page(part, BUDGET)
    return str(caught.value)


def test_page_has_its_image_text_and_number(make_pdf: MakePdf) -> None:
    path = make_pdf("a.pdf", ["First page", "Second page"], size=(300, 200))
    page = decode_page(DocumentPart(path, 2), BUDGET)
    assert (page.number, page.text) == (2, "Second page")
    assert (page.image.mode, page.image.size) == ("RGB", (600, 400))  # 144 dpi.
    pixels = np.asarray(page.image)
    assert pixels.max() == 255
    assert pixels.min() < 64  # Black letters on white.
    assert decode_page(DocumentPart(str(path), 1), BUDGET).text == "First page"
    assert decode_page(DocumentPart(path.read_bytes(), 1), BUDGET).text == "First page"


def test_resolution_and_pixel_budget(make_pdf: MakePdf) -> None:
    part = DocumentPart(make_pdf("a.pdf", size=(300, 200)))
    assert decode_page(part, MediaBudget(page_dpi=72)).image.size == (300, 200)
    small = decode_page(part, MediaBudget(max_pixels=15_000)).image
    assert small.size == (150, 100)
    limit = MediaBudget(max_input_pixels=60_000)
    assert decode_page(part, limit).image.size == (300, 200)


def test_huge_page_is_rendered_coarser(make_pdf: MakePdf) -> None:
    page = decode_page(DocumentPart(make_pdf("poster.pdf", size=(14400, 14400))), BUDGET)
    assert page.image.width * page.image.height <= BUDGET.max_input_pixels


def test_pages_as_items(make_pdf: MakePdf) -> None:
    path = make_pdf("a.pdf", ["one", "two", "three"])
    assert page_count(path) == 3
    labels = [item.label for item in iter_pages(path)]
    assert labels == [f"{path}#page={number}" for number in (1, 2, 3)]


def test_document_is_opened_once(make_pdf: MakePdf, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = pypdfium2.PdfDocument

    def spy(source: Any) -> pypdfium2.PdfDocument:
        opened.append(source)
        return real(source)

    monkeypatch.setattr(pypdfium2, "PdfDocument", spy)
    path = make_pdf("long.pdf", [f"page {number}" for number in range(300)])
    texts = [decode_page(item.parts[0], MediaBudget(page_dpi=9)).text for item in iter_pages(path)]
    assert texts == [f"page {number}" for number in range(300)]
    assert opened == [path]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files through /proc")
def test_few_documents_stay_open(make_pdf: MakePdf, tmp_path: Path) -> None:
    for number in range(20):
        decode_page(DocumentPart(make_pdf(f"{number}.pdf")), BUDGET)
    links = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]
    assert sum(link.is_relative_to(tmp_path) for link in links) <= 4


def test_changed_file_is_read_again(make_pdf: MakePdf) -> None:
    path = make_pdf("a.pdf", ["old"])
    assert decode_page(DocumentPart(path), BUDGET).text == "old"
    make_pdf("a.pdf", ["new and longer", "and more"])
    assert decode_page(DocumentPart(path), BUDGET).text == "new and longer"
    assert page_count(path) == 2


def test_threads(make_pdf: MakePdf) -> None:
    paths = [make_pdf(f"{n}.pdf", [f"{n} {page}" for page in range(5)]) for n in range(8)]
    jobs = [(n, page) for page in range(5) for n in range(8)]

    def text(job: tuple[int, int]) -> str:
        return decode_page(DocumentPart(paths[job[0]], job[1] + 1), BUDGET).text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(text, jobs)) == [f"{n} {page}" for n, page in jobs]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_does_not_share_open_files(make_pdf: MakePdf) -> None:
    """Data loaders fork; parent and child would share one file offset and one held lock."""
    path = make_pdf("a.pdf", [f"page {number}" for number in range(50)])
    decode_page(DocumentPart(path, 1), BUDGET)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            texts = [decode_page(DocumentPart(path, n + 1), BUDGET).text for n in range(50)]
            status = int(texts != [f"page {n}" for n in range(50)])
        finally:
            os._exit(status)
    texts = [decode_page(DocumentPart(path, n + 1), BUDGET).text for n in range(50)]
    assert os.waitpid(child, 0)[1] == 0
    assert texts == [f"page {n}" for n in range(50)]


# Bad input: every error names the file and the reason.


def test_encrypted(make_pdf: MakePdf) -> None:
    path = make_pdf("secret.pdf", ["for your eyes only"], password="hunter2")
    opened = pypdfium2.PdfDocument(path, password="hunter2")  # The file is a real one.
    assert opened[0].get_textpage().get_text_bounded() == "for your eyes only"
    opened.close()
    assert f"{path}#page=1: is encrypted" in _error(path)
    with pytest.raises(InputError, match="encrypted"):
        page_count(path)


def test_encrypted_with_an_empty_password_opens(make_pdf: MakePdf) -> None:
    path = make_pdf("open.pdf", ["anyone may read"], password="")
    assert decode_page(DocumentPart(path), BUDGET).text == "anyone may read"


def test_broken(make_pdf: MakePdf, tmp_path: Path) -> None:
    path = make_pdf("broken.pdf", ["x"])
    path.write_bytes(path.read_bytes()[:60])
    assert f"{path}#page=1: is damaged" in _error(path)
    text = tmp_path / "text.pdf"
    text.write_text("only words")
    assert "is not a PDF" in _error(text)
    image = tmp_path / "image.pdf"
    image.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 50)
    assert "is not a PDF, it is an image" in _error(image)


@pytest.mark.parametrize("before", [None, "encrypted", "broken"])
def test_no_pages(make_pdf: MakePdf, tmp_path: Path, before: str | None) -> None:
    """PDFium reports this with the error code of the failure before it."""
    if before == "encrypted":
        _error(make_pdf("secret.pdf", password="x"))
    if before == "broken":
        (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 broken")
        _error(tmp_path / "broken.pdf")
    path = make_pdf("none.pdf", [])
    assert "has no pages" in _error(path)
    with pytest.raises(InputError, match="has no pages"):
        list(iter_pages(path))


def test_page_out_of_range(make_pdf: MakePdf) -> None:
    path = make_pdf("a.pdf", ["one", "two", "three"])
    message = _error(path, 4)
    assert "there is no page 4: the PDF has 3 pages" in message
    assert str(path) in message


def test_extremely_narrow_page(make_pdf: MakePdf) -> None:
    assert "aspect ratio" in _error(make_pdf("strip.pdf", size=(3000, 3)))


def test_missing_empty_wrong_type(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pdf"
    empty.touch()
    assert "is empty" in _error(empty)
    assert "is empty" in _error(b"")
    assert "does not exist" in _error(tmp_path / "none.pdf")
    assert "ndarray" in _error(np.zeros((4, 4, 3), np.uint8))
    assert "URL" in _error("https://example.org/a.pdf")


def test_errors_do_not_poison_the_cache(make_pdf: MakePdf) -> None:
    good = make_pdf("good.pdf", ["good"])
    bad = make_pdf("bad.pdf", ["bad"], password="x")
    for _ in range(3):
        assert decode_page(DocumentPart(good), BUDGET).text == "good"
        assert "encrypted" in _error(bad)
        assert "no page 9" in _error(good, 9)


def test_line_end_hyphens_are_joined(make_pdf: MakePdf) -> None:
    path = make_pdf("a.pdf", ["an informa-) Tj 0 -14 Td (tion line"])
    assert decode_page(DocumentPart(path), BUDGET).text == "an information line"
