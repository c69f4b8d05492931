"""The part of a kubelet that serves logs: the file FOLDER/POD is what a pod has printed.

An API server passes `pods/POD/log` on to the kubelet of the pod's node, over TLS. As a kubelet does, this one ends
an answer to `follow` when the container has ended, which here is when there is a file FOLDER/POD.ended.

    python log_kubelet.py FOLDER CERTIFICATE-AND-KEY     # prints its port
"""

from __future__ import annotations

import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse


class Logs(BaseHTTPRequestHandler):
    """GET /containerLogs/NAMESPACE/POD/CONTAINER"""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlparse(self.path)
        query = parse_qs(url.query)
        log = Path(sys.argv[1]) / url.path.split("/")[3]
        ended = log.with_name(f"{log.name}.ended")
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with log.open("rb") as file:
            while True:
                over = "follow" not in query or ended.exists()
                data = file.read()
                if "tailLines" in query:
                    data = b"".join(data.splitlines(keepends=True)[-int(query["tailLines"][0]) :])
                if data:
                    self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                if over:
                    break
                time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        return


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Logs)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
