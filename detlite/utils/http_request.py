"""One HTTP request for a file or the rest of it, and its failures in words."""

import base64
import functools
import http.client
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote, urlsplit, urlunsplit

_CHUNK = 1 << 18


class TransferError(Exception):
    """A try that failed; the message is the reason, without the URL.

    Args:
        transient: Whether another try may do better.
        status: What the server answered; 0 if it did not.
        retry_after: Seconds that the server asks to wait.
    """

    def __init__(
        self, reason: str, *, transient: bool, status: int = 0, retry_after: float = 0.0
    ) -> None:
        super().__init__(reason)
        self.transient = transient
        self.status = status
        self.retry_after = retry_after


class Answer:
    """What the server sends, to be used in a ``with``.

    Attributes:
        offset: The place of the first byte in the file; 0 also where a rest was asked for and the
            server sends everything.
        size: Bytes of the whole file; None if the server does not tell.
        version: The strong ETag or the date of the file; "" if the server tells neither.
    """

    def __init__(self, response: http.client.HTTPResponse, host: str, timeout: float) -> None:
        self.offset, self.size = _extent(response)
        # A weak ETag (W/"...") may stand for files that differ in bytes.
        etag = response.headers.get("ETag", "")
        date = response.headers.get("Last-Modified", "")
        self.version = etag if etag.startswith('"') else date
        self._response = response
        self._host = host
        self._timeout = timeout

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, whatever it would still send."""
        self._response.close()

    def chunks(self) -> Iterator[bytes]:
        """The bytes as they come. Ends early where the server hangs up before the end.

        Raises:
            TransferError: The connection broke.
        """
        while True:
            try:
                # read1 hands out at once what is here; read would lose it if the connection broke
                chunk = self._response.read1(_CHUNK)
            except (OSError, http.client.HTTPException) as error:
                raise _failure(error, self._host, self._timeout) from error
            if not chunk:
                return
            yield chunk


def open_url(url: str, timeout: float, *, offset: int = 0, version: str = "") -> Answer:
    """Ask for a file from ``offset`` on if it is still of ``version``, otherwise for all of it.

    Proxies come from the environment. Certificates are verified. A ``user:password@`` in the URL
    is sent to its host only.

    Raises:
        TransferError: There is no answer, or it is not the file.
    """
    parts = urlsplit(url)
    account, _, host = parts.netloc.rpartition("@")
    # Spaces and the like are escaped, what is escaped already stays.
    address = quote(
        urlunsplit(parts._replace(netloc=host, fragment="")), safe="%/:=&?~+!$,;'@()*[]"
    )
    request = urllib.request.Request(address, headers={"User-Agent": "detlite"})
    if account:
        token = base64.b64encode(unquote(account).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        request.add_header("If-Range", version)
    try:
        response = _opener().open(request, timeout=timeout)
    except HTTPError as error:
        with error:
            raise _refusal(error) from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(error, host, timeout) from error
    if response.status == 200 or (response.status == 206 and offset):
        return Answer(response, host, timeout)
    response.close()
    raise TransferError(_status(response.status), transient=False, status=response.status)


def without_secrets(url: str) -> str:
    """A URL as it may stand in a message: without ``user:password@`` and what follows a ``?``."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


def proxy_state(url: str) -> str:
    """Whether a request goes "through the proxy ..." or "without a proxy", and why."""
    parts = urlsplit(url)
    variable = f"{parts.scheme}_proxy"
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy:
        return f"without a proxy ({variable} is not set)"
    if urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return "without a proxy (no_proxy names its host)"
    return f"through the proxy {proxy.rpartition('@')[2].rpartition('//')[2]} ({variable})"


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to another web address, but from an encrypted one to no other kind."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if newurl.partition(":")[0] not in {"https", req.type}:
            fp.close()
            raise TransferError(
                f"{code}: redirected to {without_secrets(newurl)}, which is not followed from "
                f"an {req.type} address",
                transient=False,
                status=code,
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Made for each request, as it reads the proxies of the environment when it is made."""
    files = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    secure = urllib.request.HTTPSHandler(context=_verifying(*files))
    return urllib.request.build_opener(secure, _Redirects())


@functools.cache
def _verifying(*_: str | None) -> ssl.SSLContext:
    """The check of certificates, read once (in 0.1 s) for each setting of the environment.

    It is our own: other code of the process may have made the default one verify nothing.
    """
    return ssl.create_default_context()


def _extent(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """The place of the first byte, and the size of the whole file."""
    sent = response.length
    if response.status != 206:
        return 0, sent
    pattern = r"bytes (\d+)-\d+/(\d+|\*)"
    match = re.fullmatch(pattern, response.headers.get("Content-Range", ""))
    if match is None:
        return -1, None
    offset = int(match[1])
    if match[2] != "*":
        return offset, int(match[2])
    return offset, None if sent is None else offset + sent


def _refusal(error: HTTPError) -> TransferError:
    status = error.code
    if 300 <= status < 400:
        # urllib's text holds the address, which may hold a token.
        reason = f"{status}: the server's redirect leads in a circle or to no web address"
        return TransferError(reason, transient=False, status=status)
    wait = error.headers.get("Retry-After", "") if error.headers else ""
    return TransferError(
        _status(status),
        transient=status >= 500 or status in (408, 429),
        status=status,
        retry_after=float(wait) if wait.isdecimal() else 0.0,
    )


def _status(status: int) -> str:
    return f"{status} {http.client.responses.get(status, '')}".strip()


def _failure(error: Exception, host: str, timeout: float) -> TransferError:
    """Why there is no answer, or no more of it."""
    cause = getattr(error, "reason", error)  # urllib wraps what happened while connecting
    if isinstance(cause, TimeoutError):
        return TransferError(f"nothing came for {timeout:g} s", transient=True)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = (
            f"the certificate of {host} is not trusted ({cause.verify_message}); SSL_CERT_FILE "
            "names the certificates of authorities"
        )
        return TransferError(reason, transient=False)
    if isinstance(cause, socket.gaierror):
        reason = f"the address of {host} is not known ({cause.strerror})"
        return TransferError(reason, transient=cause.errno != socket.EAI_NONAME)
    if isinstance(cause, http.client.InvalidURL):
        # Its text may hold the password of a proxy.
        return TransferError("a redirect or a proxy has no proper address", transient=False)
    reason = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return TransferError(reason, transient=True)
