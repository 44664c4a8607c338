"""An HTML page as a reader's program sees it."""

import re
from html.parser import HTMLParser

_VOID = {"meta", "br", "link", "img", "input", "hr"}
_HARMLESS_LINK = re.compile(r"#part-\d+|data:.*")


class Page(HTMLParser):
    """What is in a page: its tags in order, texts, headings, drawn paths, and the ids that links lead to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.headings: list[int] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.paths: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []

    @property
    def text(self) -> str:
        """All that is to be read, without the style."""
        return " ".join(self.words)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag in ("svg", "img"):
            assert values.get("alt") or (values.get("role") == "img" and values.get("aria-label")), values
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href", "action", "data")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.paths += [values["d"] or ""] if tag == "path" else []
        assert not [name for name in values if name.startswith("on")], values

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self._open = self._open[:-1] if tag not in _VOID else self._open

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] != "style":
            self.words.append(data)
        else:
            assert "url(" not in data and "@import" not in data

    def close(self) -> None:
        super().close()
        assert not self._open


def checked(text: str) -> Page:
    """The page, which must need nothing from outside, be well formed and have its headings in order."""
    page = Page()
    page.feed(text)
    page.close()
    assert not {"script", "iframe", "object", "embed", "link", "base"} & set(page.tags)
    assert all(_HARMLESS_LINK.fullmatch(link) for link in page.links), page.links
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert "http:" not in text and "https:" not in text and "//" not in text
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in zip(page.headings, page.headings[1:], strict=False))
    assert 'name="viewport"' in text and "prefers-color-scheme" in text and "@media print" in text
    return page
