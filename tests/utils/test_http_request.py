import re
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from detlite.errors import UserError
from detlite.utils import download as download_module
from detlite.utils.download import DownloadError, URLHandler
from detlite.utils.http_request import proxy_state


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final(server, fetch, cached, status):
    server.steps = [server.refusal(status)]
    with pytest.raises(DownloadError, match=rf"/w\.pth: {status} [A-Z]\w+") as caught:
        fetch(f"{server.url}/w.pth")
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, UserError)
    assert "download the file by hand and give its path" in str(caught.value)
    assert ("http_proxy is not set" in str(caught.value)) == (status < 404)
    assert len(server.requests) == 1
    assert cached() == set()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_passing_failure_is_tried_again(server, fetch, status):
    server.steps = [server.refusal(status), server.file()]
    assert fetch(f"{server.url}/w.pth").read_bytes() == server.data
    server.steps = [server.refusal(status)]
    with pytest.raises(DownloadError, match=rf"{status} .*\(3 tries\)"):
        fetch(f"{server.url}/other.pth")
    assert len(server.requests) == 5


def test_the_pauses_grow_and_a_server_may_ask_for_a_longer_one(server, monkeypatch):
    pauses = []
    monkeypatch.setattr(download_module.time, "sleep", pauses.append)
    waits = [server.refusal(429, Retry_After=7), server.refusal(503, Retry_After=9999)]
    server.steps = [server.refusal(500), *waits]
    with pytest.raises(DownloadError, match=r"5 tries"):
        URLHandler()._get_local_path(f"{server.url}/w.pth")
    assert pauses == [1, 7, 60, 60]


def test_nobody_at_the_address_is_told(server, fetch, cached):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/w.pth"
        with pytest.raises(DownloadError, match=r"Connection refused \(3 tries\)"):
            fetch(url)
    assert cached() == set()


def test_a_silent_server_is_given_up(server, fetch):
    silence = threading.Event()
    server.steps = [lambda _: silence.wait(10)]
    try:
        with pytest.raises(DownloadError, match=r"nothing came for 0.05 s \(2 tries\)"):
            fetch(f"{server.url}/w.pth", tries=2, timeout=0.05)
    finally:
        silence.set()


def test_redirects_are_followed_with_the_range(server, fetch):
    moved = server.refusal(302, Location=f"{server.url}/there")
    server.steps = [moved, server.file(stop=server.half), moved, server.file()]
    path = fetch(f"{server.url}/here/{server.hashed}")
    assert path.read_bytes() == server.data
    assert path.name == server.hashed
    assert server.ranges == [None, None, f"bytes={server.half}-", f"bytes={server.half}-"]


@pytest.mark.parametrize("target", ["file:///etc/passwd?secret", "ftp://host/x?secret", "/w.pth"])
def test_a_redirect_to_elsewhere_or_in_a_circle_is_refused(server, fetch, target):
    server.steps = [server.refusal(302, Location=target)]
    with pytest.raises(DownloadError, match=r"302: .*redirect") as caught:
        fetch(f"{server.url}/w.pth")
    assert "secret" not in str(caught.value)


def test_secrets_are_used_but_never_told(server, fetch, cache, caplog):
    caplog.set_level("INFO")
    server.steps = [server.refusal(500), server.file(), server.refusal(403)]
    url = server.url.replace("//", "//user:pass%40word@")
    first = fetch(f"{url}/w.pth?token=a%2F1")
    with pytest.raises(DownloadError) as caught:
        fetch(f"{url}/w.pth?token=b")
    assert [path for path, _ in server.requests[1:]] == ["/w.pth?token=a%2F1", "/w.pth?token=b"]
    # base64 of "user:pass@word"
    assert server.requests[0][1]["Authorization"] == "Basic dXNlcjpwYXNzQHdvcmQ="
    everything = caplog.text + str(caught.value) + str(first) + str(list(cache.rglob("*")))
    assert not re.search("user|pass%40|pass@|token", everything)
    assert first.name == "w.pth"


def test_names_that_a_url_may_hold_are_taken(server, fetch):
    for name in ["a b.pth", "gr%C3%BC%C3%9Fe.pth", "größe.pth", "x" * 300 + ".pth"]:
        assert fetch(f"{server.url}/{name}").read_bytes() == server.data
    paths = [path for path, _ in server.requests]
    assert paths[:3] == ["/a%20b.pth", "/gr%C3%BC%C3%9Fe.pth", "/gr%C3%B6%C3%9Fe.pth"]


def test_proxies_of_the_environment_are_used_and_told(server, fetch, monkeypatch):
    url = "http://weights.invalid/w.pth"
    assert proxy_state(url) == "without a proxy (http_proxy is not set)"
    monkeypatch.setenv("http_proxy", server.url.replace("//", "//user:word@"))
    assert fetch(url).read_bytes() == server.data
    assert server.requests[0][0] == url
    assert proxy_state(url) == f"through the proxy 127.0.0.1:{server.server_port} (http_proxy)"
    monkeypatch.setenv("no_proxy", "weights.invalid")
    assert proxy_state(url) == "without a proxy (no_proxy names its host)"


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(server, fetch, tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.handle_error = lambda *_: None  # the handshake that the client breaks off
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://localhost:{server.server_port}"
    # What some programs do to be rid of the check must not reach this one.
    monkeypatch.setattr(ssl, "_create_default_https_context", ssl._create_unverified_context)
    with pytest.raises(DownloadError, match=r"the certificate of localhost:\d+ is not trusted"):
        fetch(f"{url}/w.pth")
    assert server.requests == []
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(f"{url}/w.pth").read_bytes() == server.data
    server.steps = [server.refusal(302, Location="http://localhost/w.pth")]
    with pytest.raises(DownloadError, match=r"302: redirected to http://localhost/w.pth, which"):
        fetch(f"{url}/v.pth")
