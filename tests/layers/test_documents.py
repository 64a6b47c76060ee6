"""Documents that must keep up with the tree: dependencies are explained, and links lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "guest/*.md", "bench/*.md", "src/**/*.md")
    for path in REPOSITORY.glob(pattern)
)


def test_every_dependency_is_explained() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    rows = [line for line in (REPOSITORY / "docs/dependencies.md").read_text().splitlines() if line.startswith("| ")]
    explained = {name.strip().lower() for row in rows for name in row.split("|")[1].split(",")}
    names = {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in asked}
    assert names - explained == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    lost = [target for target in targets if "://" not in target and not (document.parent / target).exists()]
    assert lost == []
