"""The description and the routes are the same set, and what it refers to is there."""

from __future__ import annotations

import json
import re
from typing import Any

from edge import docs_page, openapi
from lobu_actors.contract.events import EventType
from tests.fakes.edge_world import EdgeWorld


async def served(prefix: str) -> set[tuple[str, str]]:
    world = await EdgeWorld.make()
    found = set()
    for rule in world.app.url_map.iter_rules():
        aliased = rule.rule.startswith("/lobu/")
        if aliased != bool(prefix):
            continue
        path = re.sub(r"<([^>]+)>", r"{\1}", rule.rule.removeprefix(prefix))
        found |= {(path, method) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    return found


def documented() -> set[tuple[str, str]]:
    paths: dict[str, Any] = openapi.document()["paths"]
    return {(path, name.upper()) for path, item in paths.items() for name in item if name != "parameters"}


async def test_every_route_is_described_and_no_more() -> None:
    assert await served("") == documented()


async def test_every_route_is_served_under_the_older_prefix_too() -> None:
    assert await served("/lobu") == documented()


def test_path_parameters_are_described() -> None:
    for path, item in openapi.document()["paths"].items():
        for name, operation in item.items():
            if name == "parameters":
                continue
            known = {
                p["name"] for p in [*item.get("parameters", []), *operation.get("parameters", [])] if p["in"] == "path"
            }
            assert known == set(re.findall(r"\{(\w+)\}", path))


def test_references_and_operation_ids() -> None:
    text = json.dumps(openapi.document())
    schemas = openapi.document()["components"]["schemas"]
    used = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert used == set(schemas)
    ids = re.findall(r'"operationId": "(\w+)"', text)
    assert len(ids) == len(set(ids)) == len(documented())


def test_whatever_takes_a_body_says_what_becomes_of_a_bad_one() -> None:
    for item in openapi.document()["paths"].values():
        for name, operation in item.items():
            if name != "parameters" and "requestBody" in operation:
                lacking = {"400", "408", "413", "415"} - operation["responses"].keys()
                assert not lacking, operation["operationId"]


def test_every_event_is_named() -> None:
    assert set(openapi.SSE_EVENTS) == {kind.value for kind in EventType}


def test_page_shows_every_route_and_runs_nothing() -> None:
    page = docs_page.page(openapi.document()).decode()
    for path in openapi.document()["paths"]:
        assert path in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in docs_page.CONTENT_SECURITY_POLICY


def test_whatever_takes_a_cookie_may_be_refused_for_its_origin() -> None:
    described = openapi.document()
    for item in described["paths"].values():
        for name, operation in item.items():
            if name != "parameters" and {"cookie": []} in operation.get("security", described["security"]):
                assert "403" in operation["responses"], operation["operationId"]
