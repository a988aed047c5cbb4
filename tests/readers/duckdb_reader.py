"""Answers questions about tables with DuckDB, which reads Iceberg by itself, and with PyIceberg.

One JSON request a line on stdin, one JSON answer a line on stdout, {"error": ...} when it failed:
  {"do": "locate", "name": ..., "catalog": {...}, "table": "db.t"}   -> the table's current metadata file
  {"do": "sql", "sql": ..., "metadata": path or null, "s3": {...} or null}   -> rows; `t` in the SQL is the table
  {"do": "scan", "sql": ..., "name": ..., "catalog": {...}, "table": "db.t"}   -> rows; `t` in the SQL is what PyIceberg read
     both with "canonical": true   -> the same, each row as its canonical text
  {"do": "snapshots", "name": ..., "catalog": {...}, "table": "db.t"}   -> id, operation and summary of each, oldest first
  {"do": "files", "name": ..., "catalog": {...}, "table": "db.t"}   -> path, partition, records and size of each live data file
"""

import importlib
import json
import sys
import warnings
from pathlib import Path

import canonical
import duckdb

warnings.filterwarnings("ignore")
EXTENSIONS = ("avro", "httpfs", "aws", "iceberg")


def connect():
    """A connection whose extensions come from their Python packages."""
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true", "threads": "2", "memory_limit": "2GB"})
    connection.execute("SET autoinstall_known_extensions=false; SET autoload_known_extensions=false")
    for name in EXTENSIONS:
        load(connection, name)
    connection.execute("SET TimeZone='UTC'")
    # What was read once is asked for again: tests delete files and look whether they are gone.
    connection.execute("SET enable_external_file_cache=false")
    return connection


def load(connection, name):
    package = importlib.import_module(f"duckdb_extension_{name}")
    file = next(Path(package.__file__).parent.rglob("*.duckdb_extension"))
    connection.execute(f"LOAD '{file}'")


def table(request):
    from pyiceberg.catalog import load_catalog

    return load_catalog(request["name"], **request["catalog"]).load_table(request["table"])


def rows(result, request):
    names = [column[0] for column in result.description]
    found = [list(row) for row in result.fetchall()]
    return canonical.rows(names, found) if request.get("canonical") else found


def sql(connection, request):
    if request.get("s3"):
        s3 = request["s3"]
        connection.execute(
            f"""CREATE OR REPLACE SECRET s3 (TYPE s3, KEY_ID '{s3["key"]}', SECRET '{s3["secret"]}',
            REGION 'us-east-1', ENDPOINT '{s3["endpoint"].split("//")[1]}', URL_STYLE 'path', USE_SSL false)"""
        )
    text = request["sql"]
    if request.get("metadata"):
        connection.execute(f"CREATE OR REPLACE TEMP VIEW t AS SELECT * FROM iceberg_scan('{request['metadata']}')")
    return rows(connection.execute(text), request)


def scan(connection, request):
    read = table(request).scan().to_arrow()
    with connection.cursor() as cursor:
        cursor.execute("SET TimeZone='UTC'")
        cursor.register("t", read)
        return rows(cursor.execute(request["sql"]), request)


def snapshots(request):
    found = table(request).metadata.snapshots
    return [
        {"id": s.snapshot_id, "parent": s.parent_snapshot_id, "operation": s.summary.operation.value,
         "summary": s.summary.additional_properties}
        for s in sorted(found, key=lambda s: s.sequence_number)
    ]


def files(request):
    return [
        {"path": t.file.file_path, "partition": str(t.file.partition), "records": t.file.record_count,
         "bytes": t.file.file_size_in_bytes}
        for t in table(request).scan().plan_files()
    ]


def main():
    connection = connect()
    actions = {
        "locate": lambda r: table(r).metadata_location,
        "sql": lambda r: sql(connection, r),
        "scan": lambda r: scan(connection, r),
        "snapshots": snapshots,
        "files": files,
    }
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"answer": actions[request["do"]](request)}
        except Exception as error:  # whatever it is, the test reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
