"""Docstrings as the pages of the API show them: examples as code, and names as links."""

import re
from pathlib import Path

import griffe

PAGES = Path(__file__).parents[1] / "api"


def public_names() -> dict[str, str]:
    """Return the places of all names that have a page, by the name alone and with its module."""
    places = {}
    for page in sorted(PAGES.glob("*.md")):
        for name in re.findall(r"^::: keras_iterconv\.(\S+)", page.read_text("utf-8"), re.M):
            place = f"keras_iterconv.{name}"
            places[name] = places[f"ki.{name}"] = places[place] = place
            # The rules of `stop` are named without their module.
            if (last := name.rpartition(".")[2])[0].isupper():
                places[last] = place
    return places


def _as_list(section: re.Match) -> str:
    """Return the lines of a section, `name: text`, as items of a list."""
    lines = section[0].split("\n")
    indent = re.match(" *", lines[0])[0]
    item = re.compile(rf"^{indent}(\w+): ")
    return "\n".join(item.sub(rf"{indent}- **`\1`**: ", line) for line in lines)


class PublishedDocstrings(griffe.Extension):
    """The docstrings with links, and with the section title that Griffe knows."""

    def __init__(self) -> None:
        """Read which names have a page."""
        self.places = public_names()

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Let a name that a function shares with its module mean the function, as in Python.

        Args:
            pkg: The package, with all its modules.
        """
        for name, module in list(pkg.modules.items()):
            self.on_package(pkg=module)
            # `from .name import name`, in the package that has the module.
            if pkg.imports.get(name) == f"{module.path}.{name}":
                pkg.set_member(name, griffe.Alias(name, module.members[name], parent=pkg))

    def on_instance(self, *, obj: griffe.Object, **_: object) -> None:
        """Change the docstring of an object.

        Args:
            obj: The object.
        """
        if obj.docstring is None:
            return
        text = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.M)
        # Griffe shows a section that it does not know as one text.
        section = r"(?<=Call arguments:\n)(?:(?: {4,}.*)?\n)+?(?=\n?\S|\Z)"
        text = re.sub(section, _as_list, text)
        lines = text.split("\n")
        obj.docstring.value = "\n".join(self._with_links(line, obj.name) for line in lines)

    def _with_links(self, line: str, own_name: str) -> str:
        """Return a line in which a name in backticks is a link, unless it is the object's own."""
        if re.match(r" *(>>>|\.\.\.)", line):
            return line

        def link(match: re.Match) -> str:
            owner, _, method = match[1].rpartition(".")
            place = self.places.get(match[1])
            if place is None and owner in self.places and method.islower():
                # A method without a docstring of its own class is on no page.
                target = f"{self.places[owner]}.{method}"
                return f'<autoref identifier="{target}" optional><code>{match[1]}</code></autoref>'
            if place is None or place.endswith(f".{own_name}"):
                return match[0]
            return f"[{match[0]}][{place}]"

        return re.sub(r"(?<![\[`])`([\w.]+)`(?![\]`])", link, line)
