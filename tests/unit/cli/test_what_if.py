"""The question of ``kilonova explain --what-if``, and its answer for people."""

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from kilonova.cli.what_if import WhatIfError, question_of, render


def test_a_question_in_short_is_the_apis_question() -> None:
    text = "flavor=m1.small,image=tiny,zone=az1,host=h1,project=p,most=7,hint=group:g1,hint=query:a"
    assert question_of(text) == {
        "flavorRef": "m1.small",
        "imageRef": "tiny",
        "availability_zone": "az1",
        "host": "h1",
        "project_id": "p",
        "most": 7,
        "scheduler_hints": {"group": "g1", "query": "a"},
    }


@pytest.mark.parametrize(
    "text", ["", "image=x", "flavour=x", "flavor=", "flavor=x,hint=group", "flavor=x,most=many", "flavor"]
)
def test_another_question_is_refused_with_what_can_be_said(text: str) -> None:
    with pytest.raises(WhatIfError, match=r"flavor=|from 1 to 1000"):
        question_of(text)


def shown(found: dict[str, Any]) -> str:
    console = Console(width=120, record=True, file=StringIO())
    console.print(render(found))
    return console.export_text()


def test_the_answer_says_where_how_many_and_what_is_missing_for_more() -> None:
    found = {
        "host": "h1",
        "fits": 3,
        "is_all": True,
        "hosts": {"h1": 1, "h2": 2},
        "missing_for_more": "No host has 4 free vCPUs.",
    }
    text = shown(found)
    assert "h1; 3 fit" in text and text.index("h2") < text.index("For one more: No host has 4 free vCPUs.")
    assert "at least 3 fit" in shown({**found, "is_all": False, "missing_for_more": None})
    nowhere = {"host": None, "fits": 0, "is_all": True, "hosts": {}, "explanation": {"missing": "No [red] host."}}
    assert "No valid host. No [red] host." in shown(nowhere)
