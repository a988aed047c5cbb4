#!/usr/bin/env python3
"""One conversion by one peer: peers.py TOOL TASK THREADS INPUT OUTPUT

Newline-delimited JSON to Parquet, zstd level 3, the columns of the task, each tool with the settings its users would take
and the strictness it has. The caller measures the process. T3's columns are read from t3.columns.yaml beside this file; with `inferred` for T3 the tool finds them itself (DuckDB, chdb).
"""
import json
import os
import pathlib
import re
import sys

T1 = [
    ("id", "id", "long"), ("type", "type", "string"), ("actor_id", "actor.id", "long"),
    ("actor_login", "actor.login", "string"), ("repo_id", "repo.id", "long"), ("repo_name", "repo.name", "string"),
    ("public", "public", "boolean"), ("created_at", "created_at", "timestamptz"), ("org_login", "org.login", "string"),
    ("payload_action", "payload.action", "string"), ("payload_push_id", "payload.push_id", "long"),
    ("payload_size", "payload.size", "long"),
]
T1_NESTED = {
    "id": "string", "type": "string", "actor": {"id": "long", "login": "string"},
    "repo": {"id": "long", "name": "string"}, "public": "boolean", "created_at": "timestamptz",
    "org": {"login": "string"}, "payload": {"action": "string", "push_id": "long", "size": "long"},
}
T2 = {
    "_path": "string", "_write_ts": "timestamptz", "ts": "timestamptz", "uid": "string", "id.orig_h": "string",
    "id.orig_p": "long", "id.resp_h": "string", "id.resp_p": "long", "proto": "string", "trans_id": "long",
    "rtt": "double", "query": "string", "qclass": "long", "qclass_name": "string", "qtype": "long",
    "qtype_name": "string", "rcode": "long", "rcode_name": "string", "AA": "boolean", "TC": "boolean", "RD": "boolean",
    "RA": "boolean", "Z": "long", "answers": ["string"], "TTLs": ["double"], "rejected": "boolean",
}


def parse(text):
    """A type as Firn writes it: scalars as text, lists as [element], structs as dictionaries. json is taken as string."""
    tokens = re.findall(r"`(?:[^`]|``)*`|[\w]+|[<>:,]", text)

    def one():
        token = tokens.pop(0)
        if token == "list":
            tokens.pop(0)
            element = one()
            tokens.pop(0)
            return [element]
        if token == "struct":
            fields = {}
            while tokens.pop(0) != ">":
                name = tokens.pop(0)
                tokens.pop(0)
                fields[name.strip("`").replace("``", "`")] = one()
            return fields
        return "string" if token == "json" else token

    return one()


def t3():
    text = (pathlib.Path(__file__).parent / "t3.columns.yaml").read_text()
    columns = [json.loads(line[2:]) for line in text.splitlines() if line.startswith("- ")]
    return {c["name"]: parse(c["type"]) for c in columns}


def schema(task):
    return {"t1": T1_NESTED, "t2": T2, "t3": t3()}[task]


def duckdb(task, threads, source, target, inferred=False):
    import duckdb as tool

    scalars = dict(string="VARCHAR", long="BIGINT", double="DOUBLE", boolean="BOOLEAN", timestamptz="TIMESTAMP")

    def sql(t):
        if isinstance(t, dict):
            return "STRUCT(" + ", ".join(f'"{k}" {sql(v)}' for k, v in t.items()) + ")"
        return sql(t[0]) + "[]" if isinstance(t, list) else scalars[t]

    columns = dict(schema(task))
    if task == "t1":
        columns["id"] = "long"
    columns = ", ".join(f"'{k}': '{sql(v)}'" for k, v in columns.items())
    given = "" if inferred else f"columns={{{columns}}}, "
    chosen = ", ".join(f'{path} AS "{name}"' for name, path, _ in T1) if task == "t1" else "*"
    connection = tool.connect()
    connection.execute(f"set threads={threads}; set timezone='UTC'")
    connection.execute(
        f"COPY (SELECT {chosen} FROM read_json('{source}', format='newline_delimited', {given}"
        f"maximum_object_size=67108864)) TO '{target}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3)"
    )


def chdb(task, threads, source, target, inferred=False):
    import chdb as tool

    scalars = dict(
        string="Nullable(String)", long="Nullable(Int64)", double="Nullable(Float64)", boolean="Nullable(Bool)",
        timestamptz="Nullable(DateTime64(6, 'UTC'))",
    )

    def sql(t):
        if isinstance(t, dict):
            return "Tuple(" + ", ".join(f"`{k}` {sql(v)}" for k, v in t.items()) + ")"
        return f"Array({sql(t[0])})" if isinstance(t, list) else scalars[t]

    columns = dict(schema(task))
    if task == "t1":
        columns["id"] = "long"
    structure = ", ".join(f"`{k}` {sql(v)}" for k, v in columns.items()).replace("'", "\\'")
    chosen = ", ".join(f"{path} as {name}" for name, path, _ in T1) if task == "t1" else "*"
    given = "" if inferred else f", '{structure}'"
    result = tool.query(
        f"SELECT {chosen} FROM file('{source}', 'JSONEachRow'{given}) INTO OUTFILE '{target}' TRUNCATE "
        f"FORMAT Parquet SETTINGS max_threads={threads}, max_insert_threads={threads}, max_parsing_threads={threads}, "
        f"input_format_parallel_parsing={int(threads > 1)}, date_time_input_format='best_effort', "
        "input_format_skip_unknown_fields=1, input_format_json_ignore_unknown_keys_in_named_tuple=1, "
        "input_format_json_defaults_for_missing_elements_in_named_tuple=1, input_format_null_as_default=1, "
        "output_format_parquet_compression_method='zstd', output_format_compression_level=3"
    )
    if result.has_error():
        raise SystemExit(result.error_message())


def polars(task, threads, source, target):
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    scalars = dict(string=pl.String, long=pl.Int64, double=pl.Float64, boolean=pl.Boolean, timestamptz=pl.String)

    def typed(t):
        if isinstance(t, dict):
            return pl.Struct({k: typed(v) for k, v in t.items()})
        return pl.List(typed(t[0])) if isinstance(t, list) else scalars[t]

    def column(name, path, logical):
        head, *rest = path.split(".") if task == "t1" else [path]
        value = pl.col(head)
        for key in rest:
            value = value.struct.field(key)
        if logical == "timestamptz":
            form = "%Y-%m-%dT%H:%M:%SZ" if task == "t1" else "%Y-%m-%dT%H:%M:%S%.fZ"
            value = value.str.strptime(pl.Datetime("us"), form)
        if logical == "long" and name == "id":
            value = value.cast(pl.Int64)
        return value.alias(name)

    types = {k: typed(v) for k, v in schema(task).items()}
    if task == "t3":
        chosen = [pl.all()]
    else:
        chosen = [column(*c) for c in (T1 if task == "t1" else [(k, k, v) for k, v in T2.items()] if task == "t2" else [])]
    frame = pl.scan_ndjson(source, schema=types).select(chosen)
    frame.sink_parquet(target, compression="zstd", compression_level=3)


def pyarrow(task, threads, source, target):
    import pyarrow as pa
    import pyarrow.json as reader
    import pyarrow.parquet as pq

    pa.set_cpu_count(threads)
    pa.set_io_thread_count(threads)
    scalars = dict(
        string=pa.string(), long=pa.int64(), double=pa.float64(), boolean=pa.bool_(), timestamptz=pa.timestamp("us")
    )

    def typed(t):
        if isinstance(t, dict):
            return pa.struct([(k, typed(v)) for k, v in t.items()])
        return pa.list_(typed(t[0])) if isinstance(t, list) else scalars[t]

    fields = pa.schema([(k, typed(v)) for k, v in schema(task).items()])
    table = reader.read_json(
        source,
        read_options=reader.ReadOptions(use_threads=threads > 1, block_size=16 << 20),
        parse_options=reader.ParseOptions(explicit_schema=fields, unexpected_field_behavior="ignore"),
    )
    if task == "t1":
        import pyarrow.compute as pc

        def column(path):
            head, *rest = path.split(".")
            return pc.struct_field(table[head], rest) if rest else table[head]

        columns = {name: column(path) for name, path, _ in T1}
        columns["id"] = columns["id"].cast(pa.int64())
        table = pa.table(columns)
    pq.write_table(table, target, compression="zstd", compression_level=3)


if __name__ == "__main__":
    tool, task, threads, source, target, *inferred = sys.argv[1:]
    tools = {"duckdb": duckdb, "chdb": chdb, "polars": polars, "pyarrow": pyarrow}
    tools[tool](task, int(threads), source, target, **({"inferred": True} if inferred else {}))
