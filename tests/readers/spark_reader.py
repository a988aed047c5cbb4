"""Runs SQL with Spark and its Iceberg runtime, as a reader and as the other writer of a table.

argv[1] is the directory of the jars. One JSON request a line on stdin, one JSON answer a line on stdout:
  {"conf": {"spark.sql.catalog.c": ...}, "sql": [...]}   -> rows of the last statement
  the same with "canonical": true   -> each row as its canonical text
"""

import datetime
import json
import os
import sys
import time
from pathlib import Path

import canonical
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, MapType, StructType, TimestampType

# PySpark gives instants as local times.
os.environ["TZ"] = "UTC"
time.tzset()

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever Spark prints is no answer


def session(jars):
    builder = SparkSession.builder.master("local[2]").appName("firn-e2e")
    settings = {
        "spark.jars": ",".join(str(jar) for jar in Path(jars).glob("*.jar")),
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.driver.extraJavaOptions": "-Daws.region=us-east-1 -XX:+UseSerialGC",
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def value(kind, v):
    """A value of this type with instants that know their zone, and structs by name."""
    if v is None:
        return None
    if isinstance(kind, TimestampType):
        return v.replace(tzinfo=datetime.timezone.utc)
    if isinstance(kind, ArrayType):
        return [value(kind.elementType, item) for item in v]
    if isinstance(kind, MapType):
        return {key: value(kind.valueType, item) for key, item in v.items()}
    if isinstance(kind, StructType):
        return {field.name: value(field.dataType, item) for field, item in zip(kind.fields, v, strict=True)}
    return v


def rows(result, request):
    if not request.get("canonical"):
        return [list(row) for row in result.collect()]
    fields = result.schema.fields
    typed = [[value(field.dataType, v) for field, v in zip(fields, row, strict=True)] for row in result.collect()]
    return canonical.rows(result.columns, typed)


def main():
    spark = session(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            for key, setting in request.get("conf", {}).items():
                spark.conf.set(key, setting)
            for statement in request["sql"][:-1]:
                spark.sql(statement).collect()
            answer = {"answer": rows(spark.sql(request["sql"][-1]), request)}
        except Exception as error:  # whatever it is, the test reports it
            answer = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)


main()
