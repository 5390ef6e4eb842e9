import json

import numpy as np
import pytest
import torch

from detlite.structures import Instances
from detlite.visualization import Visualizer, class_color, text, visualizer
from detlite.visualization.text import plate_size

NAMES = ["RBC", "WBC", "Platelets"]
GREY = 128


def grey_image(height, width):
    return np.full((height, width, 3), GREY, np.uint8)


def detections(image_size, boxes, scores=None, classes=None):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Instances(
        image_size,
        pred_boxes=boxes,
        scores=torch.linspace(0.5, 0.9, len(boxes)) if scores is None else torch.tensor(scores),
        pred_classes=torch.arange(len(boxes)) if classes is None else torch.tensor(classes),
    )


def ground_truth(image_size, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Instances(image_size, gt_boxes=boxes, gt_classes=torch.arange(len(boxes)))


def has_color(picture, color):
    return bool((picture == np.array(color, np.uint8)).all(axis=2).any())


@pytest.fixture
def drawn_labels(monkeypatch):
    """The (text, x1, y1, x2, y2) of every label, in the order of drawing."""
    labels = []

    def record(image, label, corner, text_size, background):
        width, height = plate_size(label, text_size)
        labels.append((label, *corner, corner[0] + width, corner[1] + height))
        text.draw_plate(image, label, corner, text_size, background)

    monkeypatch.setattr(visualizer, "draw_plate", record)
    return labels


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 300), (120, 200), (480, 640)])
@pytest.mark.parametrize("kind", [detections, ground_truth])
def test_a_drawing_is_a_new_uint8_rgb_image_of_the_same_size(height, width, kind):
    image = grey_image(height, width)
    objects = kind((height, width), [[0, 0, width, height]])
    picture = Visualizer(image, NAMES).draw(objects)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    assert not np.array_equal(picture, image)
    assert (image == GREY).all()


def test_arrays_tensors_and_views_of_one_image_give_one_picture():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    tensor = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    read_only = image.copy()
    read_only.flags.writeable = False
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    objects = detections((60, 90), [[10, 20, 50, 50]])
    expected = Visualizer(image).draw(objects)
    for same in (tensor, read_only, flipped):
        assert np.array_equal(Visualizer(same).draw(objects), expected)
    assert torch.equal(tensor, torch.from_numpy(image).permute(2, 0, 1))


@pytest.mark.parametrize(
    ("image", "came"),
    [
        (np.zeros((4, 5, 3), np.float32), r"ndarray of float32 and shape \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"shape \(4, 5\)"),
        (np.zeros((3, 4, 5), np.uint8), r"shape \(3, 4, 5\)"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\)"),
        (torch.zeros(3, 4, 5), r"Tensor of torch.float32 and shape \(3, 4, 5\)"),
        (torch.zeros(4, 5, 3, dtype=torch.uint8), r"shape \(4, 5, 3\)"),
        ("photo.jpg", "got str"),
    ],
)
def test_an_image_of_another_kind_is_refused_with_what_came(image, came):
    with pytest.raises(ValueError, match=came):
        Visualizer(image)


@pytest.mark.parametrize(
    "nothing",
    [Instances((40, 60)), detections((40, 60), []), ground_truth((40, 60), [])],
)
def test_no_objects_leave_the_image_as_it_is(nothing):
    image = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    picture = Visualizer(image).draw(nothing)
    assert np.array_equal(picture, image)
    assert not np.shares_memory(picture, image)


def test_a_box_has_the_color_of_its_class_and_its_line_on_its_edge():
    objects = detections((100, 100), [[20, 30, 80, 90]], classes=[5])
    picture = Visualizer(grey_image(100, 100)).draw(objects)
    for y, x in [(60, 20), (60, 79), (89, 50)]:
        assert tuple(picture[y, x]) == class_color(5)
    assert (picture[50:80, 30:70] == GREY).all()


@pytest.mark.parametrize("size", [(64, 64), (480, 640), (1001, 1500)])
def test_all_four_edges_of_a_box_around_the_whole_image_are_seen(size):
    objects = Instances(size, pred_boxes=torch.tensor([[0.0, 0, size[1], size[0]]]))
    picture = Visualizer(grey_image(*size)).draw(objects)
    for border in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (border != GREY).any(axis=1).mean() > 0.9


def test_a_box_that_leaves_the_image_is_open_there():
    objects = Instances((100, 100), pred_boxes=torch.tensor([[-50.0, 20, 60, 80]]))
    picture = Visualizer(grey_image(100, 100)).draw(objects)
    assert (picture[40:60, 0] == GREY).all()
    assert (picture[50, 58:61] != GREY).any()


CROWD = [[x, y, x + 40, y + 30] for x in range(-30, 660, 60) for y in range(-20, 490, 45)]


@pytest.mark.parametrize("size", [(60, 90), (128, 128), (480, 640)])
@pytest.mark.parametrize(
    "boxes",
    [
        [[0, 0, 20, 20], [70, 0, 90, 20], [0, 40, 20, 60], [70, 40, 90, 60]],
        [[0, 0, 1e4, 1e4], [-1e30, -1e30, 1e30, 1e30]],
        [[-20, -20, 5, 5], [55, 55, 1e9, 1e9]],
        [[30, 30, 30, 30]],
        CROWD,
    ],
)
def test_labels_never_leave_the_image(size, boxes, drawn_labels):
    names = ["a class name that is longer than any small image is wide"] * 200
    Visualizer(grey_image(*size), names, labels="all").draw(detections(size, boxes))
    assert drawn_labels
    for _, x1, y1, x2, y2 in drawn_labels:
        assert 0 <= x1 < x2 <= size[1]
        assert 0 <= y1 < y2 <= size[0]


def test_an_image_too_small_for_a_letter_has_no_labels(drawn_labels):
    Visualizer(grey_image(8, 8), NAMES).draw(detections((8, 8), [[1, 1, 7, 7]]))
    assert not drawn_labels


def test_labels_say_name_and_score(drawn_labels):
    boxes = [[10, 50, 90, 90], [110, 50, 190, 90], [210, 50, 290, 90]]
    objects = detections((100, 300), boxes, scores=[0.25, 0.5, 0.974], classes=[7, -1, 0])
    Visualizer(grey_image(100, 300), NAMES).draw(objects)
    Visualizer(grey_image(100, 300), ["white\nblood  cell"]).draw(
        ground_truth((100, 300), boxes[:1])
    )
    texts = [label[0] for label in drawn_labels]
    assert texts == ["class 7 0.25", "class -1 0.50", "RBC 0.97", "white blood cell"]


def test_a_score_without_a_class_is_the_whole_label(drawn_labels):
    box, score = torch.tensor([[10.0, 20, 40, 40]]), torch.tensor([0.5])
    Visualizer(grey_image(99, 99)).draw(Instances((99, 99), pred_boxes=box, scores=score))
    assert [label[0] for label in drawn_labels] == ["0.50"]


def test_every_drawing_starts_from_the_image_as_it_was_given():
    image = grey_image(50, 60)
    vis = Visualizer(image)
    vis.draw(detections((50, 60), [[5, 5, 40, 40]]))
    image[:] = 0
    assert (vis.draw(Instances((50, 60))) == GREY).all()


def test_boxes_alone_are_drawn_without_labels(drawn_labels):
    objects = Instances((50, 50), pred_boxes=torch.tensor([[10.0, 10, 40, 40]]))
    assert has_color(Visualizer(grey_image(50, 50)).draw(objects), class_color(0))
    assert not drawn_labels


def test_the_best_detection_lies_on_top(drawn_labels):
    box = [40, 40, 90, 90]
    objects = detections((100, 100), [box] * 3, scores=[0.4, 0.9, 0.6])
    picture = Visualizer(grey_image(100, 100), NAMES).draw(objects)
    assert [label[0] for label in drawn_labels] == ["RBC 0.40", "Platelets 0.60", "WBC 0.90"]
    assert tuple(picture[60, 40]) == class_color(1)


def test_the_smallest_ground_truth_lies_on_top():
    objects = ground_truth((100, 100), [[40, 40, 60, 60], [40, 10, 90, 90]])
    assert tuple(Visualizer(grey_image(100, 100)).draw(objects)[50, 40]) == class_color(0)


def test_detections_below_the_threshold_are_left_out(drawn_labels):
    objects = detections((99, 99), [[9, 9, 90, 90]] * 3, scores=[0.25, 0.5, 0.75])
    Visualizer(grey_image(99, 99), score_thresh=0.5).draw(objects)
    assert [label[0] for label in drawn_labels] == ["class 1 0.50", "class 2 0.75"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_image_and_objects_may_live_on_a_gpu():
    image = torch.full((3, 50, 50), GREY, dtype=torch.uint8)
    objects = detections((50, 50), [[8, 8, 32, 32]])
    picture = Visualizer(image.cuda()).draw(objects.to("cuda"))
    assert np.array_equal(picture, Visualizer(image).draw(objects))


@pytest.mark.parametrize(("side", "enlarged"), [(128, 512), (399, 798), (400, 400), (640, 640)])
def test_a_small_image_is_enlarged_by_a_whole_factor(side, enlarged):
    image = np.random.default_rng(2).integers(0, 256, (side, side, 3), np.uint8)
    plain = Visualizer(image, min_side=400).draw(Instances((side, side)))
    factor = enlarged // side
    assert np.array_equal(plain, image.repeat(factor, axis=0).repeat(factor, axis=1))
    box = torch.tensor([[20.0, 30, 60, 70]])
    picture = Visualizer(image, min_side=400).draw(Instances((side, side), pred_boxes=box))
    assert tuple(picture[50 * factor, 20 * factor]) == class_color(0)


@pytest.mark.parametrize("num_objects", [2, 9, 30])
def test_labels_do_not_cover_each_other_where_there_is_room(num_objects, drawn_labels):
    boxes = [[5 + 90 * (i % 6), 40 + 90 * (i // 6)] for i in range(num_objects)]
    boxes = [[x, y, x + 50, y + 50] for x, y in boxes]
    boxes[1] = boxes[0]
    Visualizer(grey_image(520, 560)).draw(detections((520, 560), boxes))
    marks = np.zeros((520, 560), int)
    for _, x1, y1, x2, y2 in drawn_labels:
        marks[y1:y2, x1:x2] += 1
    assert marks.max() == 1


@pytest.mark.parametrize("name", ["Erythrozyt, größer", "血小板", "клетка", "🦠", ""])
def test_every_class_name_can_be_drawn(name):
    objects = ground_truth((200, 300), [[50, 50, 250, 150]])
    picture = Visualizer(grey_image(200, 300), [name]).draw(objects)
    assert has_color(picture, class_color(0))


def test_opencv_before_version_5_draws_with_its_stroke_font(monkeypatch):
    monkeypatch.setattr(text, "_font_face", lambda: None)
    objects = ground_truth((200, 300), [[50, 50, 250, 150]])
    picture = Visualizer(grey_image(200, 300), ["Größe"]).draw(objects)
    assert (picture[:48] < 64).all(axis=2).any()


def test_boxes_of_another_image_are_refused():
    with pytest.raises(ValueError, match=r"\(50, 60\), this one is \(60, 50\)"):
        Visualizer(grey_image(60, 50)).draw(detections((50, 60), [[1, 1, 9, 9]]))


def test_instances_without_boxes_are_refused():
    with pytest.raises(ValueError, match=r"need pred_boxes or gt_boxes, got .*scores"):
        Visualizer(grey_image(50, 50)).draw(Instances((50, 50), scores=torch.ones(2)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_boxes_of_every_float_type_are_drawn_also_within_a_graph(dtype):
    boxes = torch.tensor([[8, 8, 32, 32]], dtype=dtype, requires_grad=True)
    scores = torch.tensor([0.5], dtype=dtype, requires_grad=True)
    objects = Instances((50, 50), pred_boxes=boxes, scores=scores, pred_classes=torch.tensor([0]))
    expected = detections((50, 50), [[8, 8, 32, 32]], scores=[0.5], classes=[0])
    image = grey_image(50, 50)
    assert np.array_equal(Visualizer(image).draw(objects), Visualizer(image).draw(expected))


def test_a_comparison_shows_ground_truth_left_and_predictions_right():
    truth = ground_truth((120, 160), [[20, 30, 80, 90], [90, 40, 140, 100]])
    found = detections((120, 160), [[30, 30, 70, 80]], classes=[4])
    vis = Visualizer(grey_image(120, 160), NAMES)
    picture = vis.draw_comparison(truth, found)
    height, width = picture.shape[:2]
    assert height > 120
    assert 2 * 160 < width < 2 * 160 + 30
    left, right = picture[:, : width // 2], picture[:, width // 2 :]
    assert has_color(left, class_color(0))
    assert has_color(left, class_color(1))
    assert not has_color(left, class_color(4))
    assert has_color(right, class_color(4))
    assert not has_color(right, class_color(1))
    for side, objects in ((left, truth), (right, found)):
        drawn = vis.draw(objects)
        found_at = [
            np.array_equal(side[y : y + 120, x : x + 160], drawn)
            for y in range(side.shape[0] - 119)
            for x in range(side.shape[1] - 159)
        ]
        assert any(found_at)


DENSE = [[x, y, x + 14, y + 12] for x in range(5, 380, 20) for y in range(5, 280, 20)]


def test_labels_that_would_hide_many_small_objects_give_way_to_a_legend(drawn_labels):
    objects = detections((300, 400), DENSE, classes=[i % 2 for i in range(len(DENSE))])
    picture = Visualizer(grey_image(300, 400), NAMES).draw(objects)
    assert not drawn_labels
    boxes_alone = Visualizer(grey_image(300, 400), NAMES, labels="none").draw(objects)
    assert np.array_equal(picture[:300], boxes_alone)
    assert 300 < picture.shape[0] < 350
    legend = picture[300:]
    assert has_color(legend, class_color(0))
    assert has_color(legend, class_color(1))
    assert Visualizer(grey_image(300, 400), NAMES, labels="all").draw(objects).shape[0] == 300
    assert len(drawn_labels) == len(DENSE)


def test_labels_of_few_or_of_large_objects_stay(drawn_labels):
    Visualizer(grey_image(300, 400), NAMES).draw(detections((300, 400), DENSE[:9]))
    assert len(drawn_labels) == 9
    large = [[x, y, x + 100, y + 80] for x in range(0, 900, 120) for y in range(0, 700, 100)]
    Visualizer(grey_image(720, 960), NAMES).draw(detections((720, 960), large))
    assert len(drawn_labels) == 9 + len(large)


@pytest.mark.datasets
def test_the_boxes_of_300_small_objects_are_seen(cases_dir, drawn_labels):
    content = json.loads((cases_dir / "dense-labels/t.json").read_text())
    image = content["images"][0]
    boxes = [(x, y, x + w, y + h) for x, y, w, h in (a["bbox"] for a in content["annotations"])]
    size = (image["height"], image["width"])
    objects = detections(size, boxes, classes=[0] * len(boxes))
    assert Visualizer(grey_image(*size), NAMES).draw(objects).shape[0] > size[0]
    assert not drawn_labels


def test_scores_and_the_width_of_lines_are_options(drawn_labels):
    objects = detections((100, 100), [[20, 40, 80, 90]], classes=[1])
    picture = Visualizer(grey_image(100, 100), NAMES, show_scores=False, line_width=8).draw(objects)
    assert [label[0] for label in drawn_labels] == ["WBC"]
    assert (picture[70] != GREY).any(axis=1).sum() == 16 + 2  # OpenCV's lines are of odd width


@pytest.mark.parametrize("options", [{"labels": "some"}, {"line_width": 0}])
def test_options_that_there_are_not_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Visualizer(grey_image(9, 9), **options)
