"""`lobu token`: a key is made, works, is listed, is revoked, and then does not work."""

from __future__ import annotations

import json

import pytest

from tests.system.cluster import lobu
from tests.system.conftest import Start, client_of
from tests.system.sse_client import Client


async def test_the_life_of_a_key(start_run: Start) -> None:
    run = await start_run(config="[edge]\napi_key_cache_seconds = 0\n")
    made = json.loads((await lobu(run, "token", "create", "--user", "ann", "--label", "laptop", "--json")).stdout)
    assert (made["userId"], made["role"], made["label"], made["revokedAt"]) == ("ann", "user", "laptop", None)
    ann = Client(run.url, made["key"])
    assert (await (await ann.open()).ask("hello")).data["finalText"] == "hello"
    of_another = await client_of(run).open(userId="ben")
    assert (await ann.call("GET", of_another.path)).status == 404

    [listed] = [
        key for key in json.loads((await lobu(run, "token", "list", "--json")).stdout) if key["userId"] == "ann"
    ]
    assert (listed["hash"], listed["label"], "key" in listed) == (made["hash"], "laptop", False)
    assert made["hash"][:12] in (await lobu(run, "token", "list")).stdout

    revoked = await lobu(run, "token", "revoke", made["hash"][:12])
    assert (revoked.returncode, revoked.stdout.split(".")[0]) == (0, "Revoked")
    assert (await ann.call("GET", "/api/v1/conversations")).status == 401
    assert (await lobu(run, "token", "revoke", made["hash"][:12])).returncode == 0, "it is revoked"
    unknown = await lobu(run, "token", "revoke", "0123456789abcdef")
    assert (unknown.returncode, "no key begins with 0123456789abcdef" in unknown.stderr) == (1, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create", "--worker", "gpu", "--role", "admin"), "give --worker without --user and --role"),
        (("create", "--worker", "gpu", "--user", "ann"), "give --worker without --user and --role"),
        (("create", "--worker", "g pu"), "--worker: use letters, digits"),
        (("create", "--user", ""), "--user: use letters, digits"),
        (("revoke", "xyz"), "give at least 6 characters"),
    ],
)
async def test_what_is_no_key_is_refused(start_run: Start, words: tuple[str, ...], said: str) -> None:
    run = await start_run(start=False)
    refused = await lobu(run, "token", *words)
    assert (refused.returncode, said in refused.stderr) == (2, True), refused.stderr
