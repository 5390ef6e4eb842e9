import functools
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision

from detlite.errors import UserError
from detlite.utils.download import DownloadError
from detlite.utils.file_io import PATH_MANAGER, published_url, resolve_path


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("/data", "bccd/images", "/data/bccd/images"),
        ("/data", "/elsewhere/images", "/elsewhere/images"),
        (None, "bccd/images", "datasets/bccd/images"),
        ("/data", "~/images", "/home/someone/images"),
        ("/data", "odd/a://b", "/data/odd/a://b"),
        ("/data", Path("bccd/images"), "/data/bccd/images"),
    ],
)
def test_relative_paths_lie_under_the_data_root(monkeypatch, root, path, expected):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("DETLITE_DATASETS", raising=False)
    if root:
        monkeypatch.setenv("DETLITE_DATASETS", root)
    assert resolve_path(path) == expected


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The URL of a server of the standard library, and the folder that it serves."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()
        thread.join()


def test_urls_are_resolved_opened_and_kept(site):
    url, folder = site
    (folder / "instances.json").write_text("{}")
    path = resolve_path(f"{url}/instances.json")
    assert Path(path).read_text() == "{}"
    (folder / "instances.json").unlink()
    assert PATH_MANAGER.get_local_path(f"{url}/instances.json") == path
    with PATH_MANAGER.open(f"{url}/instances.json", "r") as file:
        assert file.read() == "{}"
    with pytest.raises(DownloadError, match=r"/none\.json: 404 Not Found"):
        resolve_path(f"{url}/none.json")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (
            "detectron2://COCO-Detection/retinanet_R_50_FPN_1x/190397773/model_final_bfca0b.pkl",
            "https://dl.fbaipublicfiles.com/detectron2/"
            "COCO-Detection/retinanet_R_50_FPN_1x/190397773/model_final_bfca0b.pkl",
        ),
        (
            "mmdet://retinanet/x/x-c2398f9e.pth",
            "https://download.openmmlab.com/mmdetection/v2.0/retinanet/x/x-c2398f9e.pth",
        ),
        (
            "timm://resnet50.a1_in1k",
            "https://huggingface.co/timm/resnet50.a1_in1k/resolve/main/model.safetensors",
        ),
        (
            "torchvision://ResNet50_Weights.IMAGENET1K_V1",
            "https://download.pytorch.org/models/resnet50-0676ba61.pth",
        ),
        (
            "torchvision://RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1",
            torchvision.models.detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1.url,
        ),
        (
            "torchvision://ResNet50_Weights.DEFAULT",
            torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url,
        ),
        ("https://host/x.pth", "https://host/x.pth"),
    ],
)
def test_published_names_are_urls(name, url):
    assert published_url(name) == url


def test_a_published_name_finds_the_file_that_iopath_has_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    path = tmp_path / "detectron2/ImageNetPretrained/MSRA/R-50.pkl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    name = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    assert PATH_MANAGER.get_local_path(name) == str(path)
    assert resolve_path(name) == str(path)
    with PATH_MANAGER.open(name, "rb") as file:
        assert file.read() == b"weights"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("torchvision://RetinaNet_ResNet50_FPN_Weights.COCO_V2", "'RetinaNet_ResNet50_FPN_W"),
        ("torchvision://resnet50", "'ResNet50_Weights.DEFAULT'"),
        ("torchvision://", "names nothing"),
        ("detectron2://", "names nothing"),
        ("timm://resnet50", "timm://resnet50.a1_in1k"),
        ("timm://../x.y", "timm://resnet50.a1_in1k"),
        ("detectron://x.pkl", "did you mean 'detectron2'"),
        ("foo://x.pth", "https://, http://, detectron2://, mmdet://, torchvision://, timm://"),
        ("file:///x.pth", "by its path alone"),
        ("s3://bucket/x.pth", "is of no known kind"),
    ],
)
def test_what_nobody_published_is_refused_with_what_would_do(name, told):
    with pytest.raises(UserError) as caught:
        published_url(name)
    assert told in str(caught.value)
    for resolve in (PATH_MANAGER.get_local_path, resolve_path):
        with pytest.raises(DownloadError) as again:
            resolve(name)
        assert str(again.value) == str(caught.value)


def test_plain_paths_are_left_as_they_are():
    assert PATH_MANAGER.get_local_path("runs/model.pth") == "runs/model.pth"
