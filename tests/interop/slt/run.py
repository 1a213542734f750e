#!/usr/bin/env python3
"""Files of the sqllogictest project against servers: each statement and query gives what the file says.

    run.py --write URL[,URL…] --read URL[,URL…] [--switch-every SECONDS] FILE…

Statements go to the first list of servers, queries to the second, one after the other, each with the bookmark of what
came before it. With --switch-every the cluster's primary is changed so often meanwhile. Each file is a database of its
own; four run at once. Exit code 1: something differed, or nothing ran.
"""
import argparse
import concurrent.futures
import decimal
import hashlib
import http.client
import itertools
import json
import pathlib
import re
import sys
import threading
import time
import urllib.parse
import uuid

AT_ONCE = 4
GIVES_UP_AFTER_S = 60
SHOWN_MAX = 5


class Servers:
    """Kept connections to some nodes, taken in turn."""

    def __init__(self, urls):
        self.hosts = itertools.cycle([urllib.parse.urlsplit(url).netloc for url in urls])
        self.connections = {}

    def ask(self, method, path, body, headers):
        """The status and the parsed answer; a node that is not there, or not sure, is asked again."""
        until = time.monotonic() + GIVES_UP_AFTER_S
        while True:
            host = next(self.hosts)
            try:
                connection = self.connections.setdefault(host, http.client.HTTPConnection(host, timeout=GIVES_UP_AFTER_S))
                connection.request(method, path, json.dumps(body), headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status not in (500, 503):
                    return answer.status, json.loads(text) if text else {}
                why = text.decode()
            except (OSError, http.client.HTTPException) as error:
                self.connections.pop(host).close()
                why = repr(error)
            if time.monotonic() > until:
                raise RuntimeError(f"{host}: {why}")
            time.sleep(0.01)


def shown(value, kind):
    """As the project's own runner prints it."""
    if value is None:
        return "NULL"
    if kind == "I":
        if isinstance(value, str):
            number = re.match(r"\s*[-+]?\d+", value)
            return str(int(number.group())) if number else "0"
        return str(int(value))
    if kind == "R":
        return f"{decimal.Decimal(f'{float(value):.15e}'):.3f}"  # 16 digits count, as in SQLite's printf
    if isinstance(value, float):
        text = f"{value:.15g}"
        return text if re.search(r"[.einf]", text) else text + ".0"
    text = str(value)
    return "".join(c if " " <= c <= "~" else "@" for c in text) or "(empty)"


def records(path):
    """(line, words of the head, SQL, expected lines or None), without those for other engines."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    at, skips = 0, False
    while at < len(lines):
        line = re.sub(r"\s*#.*$", "", lines[at]).split()
        at += 1
        if not line:
            continue
        if line[0] in ("skipif", "onlyif"):
            skips = skips or (line[1] == "sqlite") == (line[0] == "skipif")
            continue
        if line[0] == "halt" and not skips:
            return
        if line[0] not in ("statement", "query"):
            skips = False
            continue
        first, sql, expected = at, [], None
        while at < len(lines) and lines[at].strip() and lines[at] != "----":
            sql.append(lines[at])
            at += 1
        if at < len(lines) and lines[at] == "----":
            expected = []
            at += 1
            while at < len(lines) and lines[at].strip():
                expected.append(lines[at])
                at += 1
        if not skips:
            yield first, line, "\n".join(sql), expected
        skips = False


def differs(words, expected, rows):
    """What is wrong with the rows of a query; nothing: nothing is."""
    kinds, order = words[1], words[2] if len(words) > 2 else "nosort"
    table = [[shown(value, kinds[column]) for column, value in enumerate(row)] for row in rows]
    if order == "rowsort":
        table.sort()
    values = list(itertools.chain.from_iterable(table))
    if order == "valuesort":
        values.sort()
    hashed = re.fullmatch(r"(\d+) values hashing to ([0-9a-f]{32})", expected[0]) if len(expected) == 1 else None
    if hashed:
        digest = hashlib.md5("".join(value + "\n" for value in values).encode()).hexdigest()
        same = int(hashed.group(1)) == len(values) and digest == hashed.group(2)
        return None if same else f"{len(values)} values hashing to {digest}"
    return None if values == expected else f"{values[:10]}"


def is_refused(sql, temporary):
    """TEMP objects are not to be had over HTTP (docs/sql.md): what is about one is passed over."""
    if made := re.match(r"\s*CREATE\s+TEMP(?:ORARY)?\s+\w+\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", sql, re.IGNORECASE):
        temporary.add(made.group(1))
    return any(re.search(rf"\b{name}\b", sql) for name in temporary)


def run_file(path, options):
    name = "slt-" + re.sub(r"[^a-z0-9]+", "-", path.stem.lower())[:40] + "-" + uuid.uuid4().hex[:8]
    writers, readers = Servers(options.write), Servers(options.read)
    status, answer = writers.ask("POST", "/v1/databases", {"name": name}, {})
    if status != 201:
        return 0, [f"{path.name}: {answer}"]
    bookmark, count, wrong, temporary = "", 0, [], set()
    for line, words, sql, expected in records(path):
        if is_refused(sql, temporary):
            continue
        count += 1
        headers = {"Offprint-Bookmark": bookmark} if bookmark else {}
        is_query = words[0] == "query"
        if not is_query:
            headers["Idempotency-Key"] = uuid.uuid4().hex
        texts = [{"sql": text} for text in re.split(r";\s*\n", sql) if text.strip()]
        body = texts[0] if len(texts) == 1 else texts
        status, answer = (readers if is_query else writers).ask("POST", f"/db/{name}/query", body, headers)
        bookmark = max(bookmark, answer.get("bookmark", ""))
        fails = status != 200
        if fails and is_query and expected == []:  # so the project's files say that a query fails
            continue
        if fails != (words[1] == "error" and not is_query):
            wrong.append(f"{path.name}:{line}: {answer}: {sql[:200]}")
        elif is_query and expected is not None:
            if why := differs(words, expected, answer["results"][0]["rows"]):
                wrong.append(f"{path.name}:{line}: {why} instead of {expected[:10]}: {sql[:200]}")
    writers.ask("DELETE", f"/v1/databases/{name}", {}, {})
    return count, wrong


def switch(options, done):
    servers = Servers(options.write)
    while not done.wait(options.switch_every):
        servers.ask("POST", "/v1/cluster/switchover", {}, {})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", type=lambda text: text.split(","), required=True)
    parser.add_argument("--read", type=lambda text: text.split(","), required=True)
    parser.add_argument("--switch-every", type=float)
    parser.add_argument("files", type=pathlib.Path, nargs="+")
    options = parser.parse_args()
    done, begun = threading.Event(), time.monotonic()
    if options.switch_every:
        threading.Thread(target=switch, args=(options, done), daemon=True).start()
    total, wrong = 0, []
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for count, its in pool.map(lambda path: run_file(path, options), options.files):
            total += count
            wrong += its
    done.set()
    for each in wrong[:SHOWN_MAX]:
        print(each)
    print(f"{total} records of {len(options.files)} files in {time.monotonic() - begun:.0f} s, {len(wrong)} wrong")
    sys.exit(1 if wrong or total == 0 else 0)


if __name__ == "__main__":
    main()
