"""Runs SQL on a Trino server through its HTTP protocol.

argv[1] is the server's URL. One JSON request a line on stdin, one JSON answer a line on stdout, {"error": ...} when it failed:
  {"sql": [...]}   -> rows of the last statement, as they come in JSON
  {"sql": [...], "canonical": true}   -> the same, each row as its canonical text
"""

import base64
import datetime
import decimal
import json
import struct
import sys
import urllib.request

import canonical

# Without the capability, times come in milliseconds.
HEADERS = {"X-Trino-User": "firn", "X-Trino-Time-Zone": "UTC", "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME"}


def fetch(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body, headers=HEADERS), timeout=500) as answer:
        return json.load(answer)


def run(server, sql):
    page = fetch(f"{server}/v1/statement", sql.encode())
    columns, rows = [], []
    while True:
        if "error" in page:
            error = page["error"]
            raise RuntimeError(f"{error['errorName']}: {error['message'][:2000]}")
        columns = page.get("columns", columns)
        rows += page.get("data", [])
        if "nextUri" not in page:
            return columns, rows
        page = fetch(page["nextUri"])


def inner(signature):
    return [argument["value"] for argument in signature["arguments"]]


def value(signature, v):
    """A value of Trino's JSON as what it is in Python."""
    kind = signature["rawType"]
    if v is None:
        return None
    if kind == "array":
        return [value(inner(signature)[0], item) for item in v]
    if kind == "map":
        return {key: value(inner(signature)[1], item) for key, item in v.items()}
    if kind == "row":
        fields = inner(signature)
        return {f["fieldName"]["name"]: value(f["typeSignature"], item) for f, item in zip(fields, v, strict=True)}
    if kind == "real":
        return struct.unpack("f", struct.pack("f", float(v)))[0]
    if kind == "double":
        return float(v)
    if kind == "decimal":
        return decimal.Decimal(v)
    if kind == "date":
        return datetime.date.fromisoformat(v)
    if kind == "timestamp":
        return datetime.datetime.fromisoformat(v)
    if kind == "timestamp with time zone":
        return datetime.datetime.fromisoformat(v.removesuffix(" UTC")).replace(tzinfo=datetime.timezone.utc)
    if kind == "varbinary":
        return base64.b64decode(v)
    if kind in ("boolean", "tinyint", "smallint", "integer", "bigint", "varchar", "uuid", "unknown"):
        return v
    raise TypeError(f"Trino's type {kind} has no reading here")


def rows(columns, found):
    signatures = [column["typeSignature"] for column in columns]
    typed = [[value(s, v) for s, v in zip(signatures, row, strict=True)] for row in found]
    return canonical.rows([column["name"] for column in columns], typed)


def main():
    for line in sys.stdin:
        request = json.loads(line)
        try:
            for statement in request["sql"]:
                columns, found = run(sys.argv[1], statement)
            answer = {"answer": rows(columns, found) if request.get("canonical") else found}
        except Exception as error:  # whatever it is, the test reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


main()
