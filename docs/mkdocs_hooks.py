"""What the documentation site adds to the pages of this folder.

- Reference pages, one per module of ``public_api.txt``, with every symbol in it: a symbol without a docstring, or one
  that is not there, breaks the build.
- Links that lead out of this folder, to the code, go to the reference where there is a page, and become plain text
  where there is none.
- The tables of results, which stand in the README.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LINK = re.compile(r"\[([^\]]+)\]\(([\w./-]+)\)")


def symbols() -> dict[str, list[str]]:
    """The public symbols by module, methods left out: they stand with their class.

    >>> "assign" in symbols()["compressjax.trees"], "pallas_kernels" in symbols()
    (True, True)
    >>> [name for name in symbols()["compressjax.search"] if name.startswith("Space")]
    ['Space']
    """
    paths = [line.partition("(")[0] for line in (HERE / "public_api.txt").read_text("utf-8").splitlines()]
    known, found = set(paths), {}
    for path in paths:
        module, _, name = path.rpartition(".")
        if module not in known:
            found.setdefault(module, []).append(name)
    return found


def reference(module: str, names: list[str]) -> str:
    """The page of a module, for mkdocstrings to fill.

    >>> print(reference("compressjax.trees", ["leaves"]))
    # compressjax.trees
    <BLANKLINE>
    ::: compressjax.trees
        options: {members: false, show_root_heading: false, show_root_toc_entry: false}
    <BLANKLINE>
    ::: compressjax.trees.leaves
    <BLANKLINE>
    """
    head = f"::: {module}\n    options: {{members: false, show_root_heading: false, show_root_toc_entry: false}}\n"
    return "\n".join([f"# {module}\n", head, *(f"::: {module}.{name}\n" for name in names)])


def page_of(module: str) -> str:
    """Where the page of a module lies.

    >>> page_of("compressjax.search.expressions")
    'reference/search_expressions.md'
    """
    return f"reference/{module.removeprefix('compressjax.').replace('.', '_')}.md"


def inward(markdown: str, source: str, pages: dict[str, str]) -> str:
    """Markdown of a page whose links out of this folder lead to the reference, or are text.

    >>> pages = {"compressjax/masks": "reference/masks.md"}
    >>> inward("[masks](../compressjax/masks), [a config](../configs/a.py), [runs](runs.md)", "index.md", pages)
    '[masks](reference/masks.md), a config, [runs](runs.md)'
    >>> inward("[masks](../../compressjax/masks), [runs](../runs.md)", "howto/a.md", pages)
    '[masks](../reference/masks.md), [runs](../runs.md)'
    """
    folder = posixpath.dirname(source)

    def replace(match: re.Match[str]) -> str:
        text, link = match.groups()
        target = posixpath.normpath(posixpath.join(folder, link))
        if not target.startswith("../"):
            return match[0]
        page = pages.get(target.removeprefix("../").removesuffix(".py"))
        return f"[{text}]({posixpath.relpath(page, folder or '.')})" if page else text

    return LINK.sub(replace, markdown)


def tables() -> str:
    """The tables of results, which the README holds between two comments.

    >>> tables().startswith("**Pruning**"), tables().endswith("of the file.")
    (True, True)
    """
    readme = (HERE.parent / "README.md").read_text("utf-8")
    return readme.partition("<!-- results:begin -->")[2].partition("<!-- results:end -->")[0].strip()


def listed(nav: Any) -> set[str]:
    """The pages that a navigation names.

    >>> sorted(listed([{"Home": "index.md"}, {"Programs": ["runs.md", {"Shrinking": "shrink.md"}]}]))
    ['index.md', 'runs.md', 'shrink.md']
    """
    if isinstance(nav, str):
        return {nav}
    return set().union(*(listed(entry) for entry in (nav.values() if isinstance(nav, dict) else nav)))


def on_config(config: Any) -> Any:
    """Puts the reference into the navigation, and pages that it does not name yet among the programs."""
    new = {path.name for path in HERE.glob("*.md")} - listed(config.nav)
    for entry in config.nav:
        if "Programs" in entry:
            entry["Programs"] += sorted(new)
        if "Reference" in entry:
            entry["Reference"] = [{module.removeprefix("compressjax."): page_of(module)} for module in symbols()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages of the reference, which exist only here."""
    from mkdocs.structure.files import File

    for module, names in symbols().items():
        files.append(File.generated(config, page_of(module), content=reference(module, names)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turns links to the code inward, and adds the README's tables to the page of results."""
    if page.file.src_uri == "results.md":
        markdown += f"\n{tables()}\n"
    pages = {module.replace(".", "/"): page_of(module) for module in symbols()}
    return inward(markdown, page.file.src_uri, pages)


def fenced(docstring: str) -> str:
    r"""A docstring with its examples as code blocks, and one colon where reStructuredText announces a block by two.

    >>> fenced("Adds::\n\n    a + b\n\n>>> 1 + 1\n2\n\nDone.").splitlines()
    ['Adds:', '', '    a + b', '', '```python', '>>> 1 + 1', '2', '```', '', 'Done.']
    """
    found: list[str] = []
    inside = False
    for line in [*docstring.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if not inside and line.lstrip().startswith(">>> "):
            inside, outer = True, indent
            found += ["", f"{indent}```python"] if found and found[-1] else [f"{indent}```python"]
        elif inside and not line.strip():
            inside = False
            found.append(f"{outer}```")
        found.append(line.replace("<BLANKLINE>", "") if inside else re.sub(r"::$", ":", line))
    return "\n".join(found[:-1])


def examples() -> Any:
    """The extension of griffe, which reads the docstrings, that applies `fenced` to each of them."""
    from griffe import Extension

    class Examples(Extension):
        """Applies `fenced` to every docstring."""

        def on_object(self, *, obj: Any, **_: Any) -> None:
            if obj.docstring is not None:
                obj.docstring.value = fenced(obj.docstring.value)

    return Examples()
