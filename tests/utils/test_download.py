import hashlib
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from detlite.utils import download as download_module
from detlite.utils.download import DownloadError, cache_path, hash_in_name


@pytest.mark.parametrize("digits", [0, 8, 64])
def test_a_file_comes_whole_and_the_second_call_asks_nobody(server, fetch, cached, digits):
    name = f"weights-{server.digest[:digits]}.pth"
    path = fetch(f"{server.url}/models/{name}")
    assert path.read_bytes() == server.data
    assert fetch(f"{server.url}/models/{name}") == path
    assert len(server.requests) == 1
    assert cached() == {name}
    assert path.parent.name == "models"
    assert fetch(f"{server.url}/models/{name}", force=True) == path
    assert len(server.requests) == 2


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("version", [{}, {"etag": "", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}])
def test_a_broken_transfer_goes_on_where_it_broke_off(server, fetch, cached, version, reset):
    server.steps = [server.file(stop=server.half, reset=reset, **version), server.file(**version)]
    assert fetch(f"{server.url}/{server.hashed}").read_bytes() == server.data
    first, second = server.ranges
    begin = int(re.fullmatch(r"bytes=(\d+)-", second or "bytes=0-")[1])
    assert first is None
    # A crash takes along what the kernel had not sent yet.
    assert begin <= server.half if reset else begin == server.half
    assert server.sent == server.half + len(server.data) - begin
    assert cached() == {server.hashed}


def test_what_came_stays_after_the_last_try_and_the_next_call_goes_on(server, fetch, cached):
    quarter = len(server.data) // 4
    server.steps = [server.file(stop=quarter), server.file(stop=server.half), server.refusal(503)]
    with pytest.raises(DownloadError, match=r"503 Service Unavailable \(4 tries\)") as caught:
        fetch(f"{server.url}/w.pth", tries=4)
    assert "0.5 MB are kept; another try goes on from there" in str(caught.value)
    assert cached() == {"w.pth.part", "w.pth.part.version"}
    server.steps = [server.file()]
    assert fetch(f"{server.url}/w.pth").read_bytes() == server.data
    expected = [
        None,
        f"bytes={quarter}-",
        f"bytes={server.half}-",
        f"bytes={server.half}-",
        f"bytes={server.half}-",
    ]
    assert server.ranges == expected
    assert server.sent == len(server.data) + 2 * len(b"sorry")


def test_a_server_that_breaks_off_at_the_same_place_is_given_up(server, fetch, cached):
    server.steps = [server.file(stop=server.half, ranges=False)]
    with pytest.raises(DownloadError, match=r"broke off at 0.5 MB of 1.0 MB \(3 tries\)"):
        fetch(f"{server.url}/w.pth")
    assert len(server.requests) == 3
    assert "w.pth" not in cached()


def rest_with_range(text):
    """A step that sends the second half, under a Content-Range of its own."""
    return lambda request: request.send(
        206, request.server.data[request.server.half :], ETag='"1"', Content_Range=text
    )


@pytest.mark.parametrize(
    "steps",
    [
        lambda s: [s.file(ranges=False)],
        lambda s: [s.file(etag='"2"')],
        lambda s: [s.file(etag='"2"', honest=False), s.file(etag='"2"')],
        lambda s: [s.file(s.data[: s.half], honest=False), s.file()],
        lambda s: [rest_with_range(f"bytes {s.half + 1}-{len(s.data)}/{len(s.data)}"), s.file()],
        lambda s: [rest_with_range("nonsense"), s.file()],
    ],
    ids=["ignores Range", "changed", "changed, ignores If-Range", "too short", "elsewhere", "odd"],
)
def test_a_rest_that_does_not_belong_to_the_beginning_is_not_glued_to_it(server, fetch, steps):
    server.steps = [server.file(server.data[::-1], stop=server.half), *steps(server)]
    assert fetch(f"{server.url}/w.pth", tries=2).read_bytes() == server.data
    assert server.ranges[:2] == [None, f"bytes={server.half}-"]
    assert server.requests[1][1]["If-Range"] == '"1"'


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_a_file_without_a_version_is_begun_anew(server, fetch, etag):
    server.steps = [
        server.file(server.data[::-1], stop=server.half, etag=etag),
        server.file(etag=etag),
    ]
    assert fetch(f"{server.url}/w.pth").read_bytes() == server.data
    assert server.ranges == [None, None]


def chunked(data, *, whole=True):
    """A step that sends a file without saying how long it is, and perhaps not its end."""

    def step(request):
        request.protocol_version = "HTTP/1.1"
        body = b"%x\r\n%b\r\n" % (len(data), data) + (b"0\r\n\r\n" if whole else b"")
        request.send(200, body, Transfer_Encoding="chunked", Connection="close")
        request.close_connection = True

    return step


def test_a_file_of_unknown_size_is_taken(server, fetch):
    name = server.hashed
    server.steps = [lambda request: request.send(200, server.data)]
    assert fetch(f"{server.url}/close/{name}").read_bytes() == server.data
    server.steps = [chunked(server.data, whole=False), chunked(server.data)]
    assert fetch(f"{server.url}/chunked/{name}").read_bytes() == server.data
    assert len(server.requests) == 3


def test_a_wrong_hash_is_told_and_leaves_nothing(server, fetch, cached):
    server.steps = [server.file(server.data[::-1])]
    actual = hashlib.sha256(server.data[::-1]).hexdigest()[:8]
    url = f"{server.url}/{server.hashed}"
    with pytest.raises(DownloadError, match=rf"{url} .* {actual}, not with {server.digest[:8]};"):
        fetch(url)
    assert len(server.requests) == 1
    assert cached() == set()


@pytest.mark.parametrize(
    ("name", "digits"),
    [
        ("resnet50-0676ba61.pth", "0676ba61"),
        ("vgg13-19584684.pth", "19584684"),
        ("retinanet_r50_fpn_1x_coco_20200130-c2398f9e.pth", "c2398f9e"),
        ("a-0123abcd.tar.gz", None),
        ("resnet18_fbgemm_16fa66dd.pth", None),
        ("model_final_bfca0b.pkl", None),
        ("model-0123abc.pth", None),
        ("model-20240131.pth", None),
        ("model-epoch-00000012.pth", "00000012"),
        ("model-v2-0123abcd-fp16.pth", None),
    ],
)
def test_the_hash_is_read_from_the_name(name, digits):
    assert hash_in_name(f"https://host/folder-0123abcd.x/{name}?token=-0123abcd.pth") == digits


def test_an_empty_file_is_no_file(server, fetch, cached):
    server.steps = [server.file(b"")]
    with pytest.raises(DownloadError, match=r"the server sent an empty file"):
        fetch(f"{server.url}/w.pth")
    assert "w.pth" not in cached()


def test_ctrl_c_keeps_the_part_and_writes_no_file(server, fetch, cached, monkeypatch):
    class Interrupted(download_module.tqdm):
        def update(self, n=1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download_module, "tqdm", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(f"{server.url}/{server.hashed}")
    assert cached() == {f"{server.hashed}.part", f"{server.hashed}.part.version"}
    assert fetch(f"{server.url}/{server.hashed}").read_bytes() == server.data
    assert re.fullmatch(r"bytes=[1-9]\d*-", server.ranges[1])


# Says that it stands before the lock, where the file is not there yet, and waits to be let on.
WAITING_PROCESS = """
import sys
from detlite.utils import download, file_io

lock = download.file_lock

def waiting_lock(path):
    print("before the lock", flush=True)
    input()
    return lock(path)

download.file_lock = waiting_lock
print(file_io.PATH_MANAGER.get_local_path(sys.argv[1]))
"""


def test_processes_at_once_download_once(server):
    command = [sys.executable, "-c", WAITING_PROCESS, f"{server.url}/{server.hashed}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    runs = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for run in runs:
        assert run.stdout.readline() == "before the lock\n"
    for run in runs:
        run.stdin.write("\n")
        run.stdin.flush()
    paths = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert [Path(path).read_bytes() for path in paths] == [server.data]
    assert len(server.requests) == 1


def test_threads_at_once_download_once(server, fetch, monkeypatch):
    lock, before = download_module.file_lock, threading.Barrier(4)

    def waiting_lock(path):
        before.wait(30)
        return lock(path)

    monkeypatch.setattr(download_module, "file_lock", waiting_lock)
    with ThreadPoolExecutor(4) as pool:
        paths = set(pool.map(fetch, [f"{server.url}/w.pth"] * 4))
    assert [path.read_bytes() for path in paths] == [server.data]
    assert len(server.requests) == 1


def test_published_files_lie_where_iopath_puts_them_and_others_below_their_host(cache):
    published = "https://dl.fbaipublicfiles.com/detectron2/COCO-Detection/1/model.pkl"
    assert cache_path(published) == str(cache / "detectron2/COCO-Detection/1/model.pkl")
    assert cache_path("http://host:80/a/b.pth") == str(cache / "host_80/a/b.pth")
    assert cache_path("http://host/b.pth?1") != cache_path("http://host/b.pth?2")


@pytest.mark.parametrize(
    "url",
    [
        "http://host",
        "http://host/",
        "http://host/folder/",
        "http://host/../../x.pth",
        "http://host/..",
        "http:///x.pth",
        "http://host:port/x.pth",
        "http://[host/x.pth",
        "http://me:sec/ret@host/x.pth",
        "http://me:sec?ret@host/x.pth",
        "file:///etc/passwd",
        "ftp://host/x.pth",
        "x.pth",
    ],
)
def test_what_names_no_file_of_the_web_is_refused(fetch, url):
    with pytest.raises(DownloadError, match=r"names no file|is no address") as caught:
        fetch(url)
    assert "sec" not in str(caught.value)


def test_a_cache_that_cannot_be_written_is_told(server, fetch, cache):
    cache.mkdir()
    (cache / f"127.0.0.1_{server.server_port}").write_text("in the way")
    with pytest.raises(DownloadError, match=r"cannot be written: .*\n.*FVCORE_CACHE"):
        fetch(f"{server.url}/w.pth")
