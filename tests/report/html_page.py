"""What a browser would make of a page, for tests without one."""

from html.parser import HTMLParser

LINKS = ("src", "href", "srcset", "action", "data", "poster", "xlink:href", "formaction")
VOID = ("meta", "link", "img", "br", "wbr", "input", "hr")


class Page(HTMLParser):
    """A page's elements in order, the text outside styles and scripts, and the cells of each drawn U-Net."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self._open = "", list[str]()
        self.drawings: list[list[dict[str, str]]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "svg" and attributes.get("class") == "unet":
            self.drawings.append([])
        if tag == "g" and "data-group" in attributes:
            self.drawings[-1].append(attributes)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def addresses(self) -> list[str]:
        """Everything that could be fetched or followed."""
        return [value for _, attributes in self.elements for name, value in attributes.items() if name in LINKS]
