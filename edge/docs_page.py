"""The OpenAPI document as one page to read: plain HTML and one style, nothing loaded, nothing run. Pure."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from typing import Any

Json = dict[str, Any]

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "h2{margin-top:2.5rem;border-top:1px solid #ccc;padding-top:1rem;font-size:1.05rem}"
    "code{font:0.9em ui-monospace,monospace;background:#f2f2f2;padding:0 0.2em}"
    "table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;padding:0 0.8rem 0 0}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}code{background:#2a2a2a}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page(document: Json) -> bytes:
    info = document["info"]
    parts = [f"<h1>{html.escape(info['title'])}</h1>", _prose(info["description"])]
    for path, item in document["paths"].items():
        shared = item.get("parameters", [])
        parts += [
            _operation(method, path, shared, operation) for method, operation in item.items() if method != "parameters"
        ]
    parts.append("<h1>Shapes</h1>")
    parts += [_schema(name, schema) for name, schema in document["components"]["schemas"].items()]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(info["title"])}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f"{''.join(parts)}</body></html>"
    ).encode()


def _operation(method: str, path: str, shared: list[Json], operation: Json) -> str:
    rows = [(f"{p['name']} ({p['in']})", p["description"]) for p in [*shared, *operation.get("parameters", [])]]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        rows.append(("body", f"`{_name(schema)}`"))
    for status, response in operation["responses"].items():
        kinds = response.get("content", {})
        shapes = [f"`{_name(kind['schema'])}`" for kind in kinds.values() if "$ref" in kind["schema"]]
        rows.append((status, " ".join([response["description"], *shapes])))
    head = f"<h2><code>{method.upper()} {html.escape(path)}</code> {html.escape(operation['summary'])}</h2>"
    return head + _prose(operation.get("description", "")) + _table(rows)


def _schema(name: str, schema: Json) -> str:
    required = set(schema.get("required", []))
    rows = [
        (field + ("" if field in required else " (optional)"), _described(kind))
        for field, kind in schema.get("properties", {}).items()
    ]
    return f"<h2><code>{html.escape(name)}</code></h2>" + _prose(schema.get("description", "")) + _table(rows)


def _described(kind: Json) -> str:
    shown = kind.get("type", "") if "const" not in kind else f"always `{str(kind['const']).lower()}`"
    if isinstance(shown, list):
        shown = " or ".join(shown)
    if "enum" in kind:
        shown = ", ".join(f"`{value}`" for value in kind["enum"])
    if shown == "object" and kind.get("properties"):
        shown = "object of " + ", ".join(f"`{field}`" for field in kind["properties"])
    return " ".join(text for text in (shown, kind.get("description", "")) if text)


def _name(schema: Json) -> str:
    return str(schema.get("$ref", "")).rsplit("/", 1)[-1] or str(schema.get("type", ""))


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(
        f"<tr><th><code>{html.escape(left)}</code></th><td>{_inline(right)}</td></tr>" for left, right in rows
    )
    return f"<table>{cells}</table>" if rows else ""


def _prose(text: str) -> str:
    return f"<p>{_inline(text)}</p>" if text else ""


def _inline(text: str) -> str:
    marked = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text))
    return marked.replace("\n- ", "<br>")
