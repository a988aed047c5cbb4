"""The runtime interface of AWS Lambda for one function, as AWS documents it for custom runtimes.

argv[1] is the port on 127.0.0.1. One JSON request a line on stdin, one JSON answer a line on stdout:
  {"event": {...}}   -> {"response": {...}}, or {"failure": {...}} when the function says that it failed
  {"do": "ready"}    -> null, once the interface is there
  {"do": "init"}     -> what the function says when it could not begin, null when it has asked for work
"""

import json
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PREFIX = "/2018-06-01/runtime/"
events, answers, begun = queue.Queue(), queue.Queue(), queue.Queue()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path != PREFIX + "invocation/next":
            return self.reply(404)
        begun.put(None)
        number, event = events.get()
        self.reply(200, json.dumps(event).encode(), Lambda_Runtime_Aws_Request_Id=str(number))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        what = self.path.removeprefix(PREFIX).split("/")
        if what == ["init", "error"]:
            begun.put(body)
        else:
            answers.put((what[1], {"response": body} if what[2] == "response" else {"failure": body}))
        self.reply(202)


def main():
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for number, line in enumerate(sys.stdin):
        request = json.loads(line)
        if request.get("do") == "ready":
            answer = None
        elif request.get("do") == "init":
            failure = begun.get(timeout=500)
            answer = failure
        else:
            events.put((number, request["event"]))
            of, answer = answers.get(timeout=500)
            assert of == str(number), f"an answer to {of} for {number}"
        print(json.dumps({"answer": answer}), flush=True)


main()
