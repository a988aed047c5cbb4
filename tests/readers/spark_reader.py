"""Runs SQL with Spark and its Iceberg runtime, as a reader and as the other writer of a table.

argv[1] is the directory of the jars. One JSON request a line on stdin, one JSON answer a line on stdout:
  {"conf": {"spark.sql.catalog.c": ...}, "sql": [...]}   -> rows of the last statement
"""

import json
import os
import sys
from pathlib import Path

from pyspark.sql import SparkSession

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


def main():
    spark = session(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        try:
            for key, value in request.get("conf", {}).items():
                spark.conf.set(key, value)
            rows = []
            for statement in request["sql"]:
                rows = [list(row) for row in spark.sql(statement).collect()]
            answer = {"answer": rows}
        except Exception as error:  # whatever it is, the test reports it
            answer = {"error": f"{type(error).__name__}: {str(error)[:2000]}"}
        print(json.dumps(answer, default=str), file=answers, flush=True)


main()
