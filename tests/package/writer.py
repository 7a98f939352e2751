"""Writes row after row into the cluster of argv[1] (a conninfo) until it is told to stop by a line on its input; then
prints {"rows": [acknowledged], "gap_s": longest time between two of them, "failed": transactions that failed}."""
import json
import select
import sys
import time

import psycopg2


def connect():
    # What has no answer after a minute is lost with its machine.
    connection = psycopg2.connect(sys.argv[1], tcp_user_timeout=60000, keepalives_idle=20, keepalives_interval=10, keepalives_count=3)
    connection.autocommit = True
    return connection


def main():
    rows, failed, gap, last = [], 0, 0.0, time.monotonic()
    connection, number = None, 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        try:
            if connection is None:
                connection = connect()
            with connection.cursor() as cursor:
                cursor.execute("INSERT INTO written VALUES (%s)", (number,))
        except psycopg2.Error:
            failed += 1
            connection = None
            time.sleep(0.02)
            continue
        rows.append(number)
        now = time.monotonic()
        gap, last = max(gap, now - last), now
        if len(rows) == 1:
            gap = 0.0
            print("first", flush=True)
    print(json.dumps({"rows": rows, "gap_s": round(gap, 3), "failed": failed}), flush=True)


main()
