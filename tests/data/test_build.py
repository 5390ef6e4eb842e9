import itertools
import logging
import re

import numpy as np
import pytest
import torch

from detlite import ConfigError, DataError
from detlite.config.schema import (
    ClipGradients,
    Config,
    DataSection,
    EMASection,
    SolverSection,
    TrainSection,
)
from detlite.config.schema import TestSection as SectionOfTest
from detlite.data import (
    ImageReader,
    build_datasets,
    build_test_loader,
    build_train_loader,
    check_class_count,
)
from detlite.evaluation import COCOEvaluator
from detlite.evaluation.detection_evaluator import Detections
from detlite.registry import Block


def config(**data):
    return Config(
        model=Block(name="RetinaNet"),
        data=DataSection(**{"batch_size": 2, "num_workers": 0, **data}),
        solver=SolverSection(clip_gradients=ClipGradients()),
        train=TrainSection(ema=EMASection()),
        test=SectionOfTest(batch_size=2),
    )


FLIP = Block(name="RandomHorizontalFlip", p=0.5)


def take(loader, num_batches):
    batches = []
    for batch in itertools.islice(loader, num_batches):
        batches.append([(s["file_name"], s["image"].tolist(), s["height"]) for s in batch])
    return batches


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_loader_goes_on_with_the_same_samples(painted_dataset, num_workers):
    datasets = [painted_dataset(9)]
    section = {"train_transforms": [FLIP], "num_workers": num_workers}
    whole = take(build_train_loader(config(**section), datasets), 6)
    rest = take(build_train_loader(config(**section), datasets, start=4), 2)
    assert rest == whole[4:]


def test_the_seed_decides_on_order_and_augmentation(painted_dataset):
    datasets = [painted_dataset(9)]
    one, other = config(train_transforms=[FLIP]), config(train_transforms=[FLIP])
    other.seed = 1
    batches = [take(build_train_loader(each, datasets), 5) for each in (one, one, other)]
    assert batches[0] == batches[1] != batches[2]


def test_batches_are_of_one_orientation(painted_dataset):
    batches = take(build_train_loader(config(), [painted_dataset(8)]), 20)
    assert {len({height for _, _, height in batch}) for batch in batches} == {1}
    mixed = take(build_train_loader(config(aspect_ratio_grouping=False), [painted_dataset(8)]), 20)
    assert {len({height for _, _, height in batch}) for batch in mixed} == {1, 2}


@pytest.mark.parametrize(("batch_size", "warns"), [(8, False), (9, True)])
def test_a_batch_larger_than_the_data_set_warns(painted_dataset, caplog, batch_size, warns):
    build_train_loader(config(batch_size=batch_size), [painted_dataset(8)])
    told = [message for message in caplog.messages if "data.batch_size=9" in message]
    assert len(told) == warns
    assert all("8 training images" in message for message in told)


def test_a_loader_for_an_own_loop_reads_the_data_itself():
    shapes = Block(name="Shapes", num_images=3, image_size=[64, 64])
    (batch,) = take(build_train_loader(config(train=[shapes], aspect_ratio_grouping=False)), 1)
    assert len(batch) == 2


@pytest.mark.parametrize(("keep", "expected"), [(True, 9), (False, 6)])
def test_images_without_a_box_are_kept_or_left_out(painted_dataset, caplog, keep, expected):
    caplog.set_level(logging.INFO, "detlite")
    section = {"keep_empty_images": keep, "aspect_ratio_grouping": False, "batch_size": 1}
    loader = build_train_loader(config(**section), [painted_dataset(9)])
    assert len({batch[0][0] for batch in take(loader, expected)}) == expected
    assert f"training on {expected} images of 'painted', 3 without a box" in caplog.text
    assert re.search(r"boxes: ball \d+, box \d+$", caplog.text, re.MULTILINE)
    assert ("left out" in caplog.text) is not keep


def test_a_data_set_with_nothing_to_train_on_is_an_error(painted_dataset):
    with pytest.raises(DataError, match="'painted': there is no image to train on among 1"):
        build_train_loader(config(keep_empty_images=False), [painted_dataset(1)])


def test_the_sampler_of_the_config_sees_the_classes_of_all_data_sets(painted_dataset):
    datasets = [painted_dataset(3, name="a"), painted_dataset(6, name="b")]
    block = Block(name="RepeatFactorSampler", threshold=1.0)
    loader = build_train_loader(config(sampler=block), datasets)
    sampler = loader.loader.batch_sampler.sampler
    # Of 9 images 3 show each class, so that those come sqrt(9 / 3) times; 3 are empty.
    assert sampler.factors.tolist() == pytest.approx([1, 3**0.5, 3**0.5] * 3)


def test_every_test_image_comes_once_in_order(painted_dataset):
    dataset = painted_dataset(5)
    loader = build_test_loader(config(), dataset)
    assert [len(batch) for batch in loader] == [2, 2, 1]
    assert [s["image_id"] for batch in loader for s in batch] == [0, 1, 2, 3, 4]
    assert loader.dataset is dataset
    assert len(loader) == 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_broken_image_stops_training_with_its_name(painted_dataset, num_workers):
    datasets = [painted_dataset(2, broken=[0, 1])]
    loader = build_train_loader(config(num_workers=num_workers), datasets)
    with pytest.raises(DataError, match=r"\.jpg' is broken: .*\n.*set data\.broken_image=skip"):
        take(loader, 1)


def test_a_skipped_image_is_told_in_the_log(painted_dataset, caplog):
    section = {"broken_image": "skip", "aspect_ratio_grouping": False}
    loader = build_train_loader(config(**section), [painted_dataset(4, broken=[1])])
    take(loader, 2)
    assert "skipped an image, another takes its place: image file" in caplog.text
    assert "001.jpg' is broken" in caplog.text


def test_the_keys_of_the_config_reach_the_loaders(painted_dataset):
    dataset = painted_dataset(4)
    section = {"read_retries": 5, "sample_timeout": 7.0, "lost_sample": "skip"}
    given = config(broken_image="skip", num_workers=1, **section)
    given.imports = ["json"]
    train, test = build_train_loader(given, [dataset]), build_test_loader(given, dataset)
    for loader in (train, test):
        assert (loader.sample_timeout, loader.lost_sample) == (7.0, "skip")
        assert loader.data.read_retries == 5
        assert loader.data.modules.entries == ["json"]
        assert loader.loader.num_workers == 1
    assert train.data.skip_broken
    assert not build_train_loader(config(), [dataset]).data.skip_broken


def test_images_that_are_left_out_take_no_place_of_another(painted_dataset):
    given = config(keep_empty_images=False, broken_image="skip")
    loader = build_train_loader(given, [painted_dataset(6)])
    assert loader.data.replacements.tolist() == [1, 2, 4, 5]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_shares_of_the_ranks_may_differ(painted_dataset, monkeypatch, world_size):
    datasets = [painted_dataset(9)]
    whole = take(build_train_loader(config(batch_size=8), datasets), 3)
    monkeypatch.setattr("detlite.data.build.world_size", lambda: world_size)
    for r in range(world_size):
        monkeypatch.setattr("detlite.data.build.rank", lambda r=r: r)
        shares = take(build_train_loader(config(batch_size=8), datasets), 3)
        assert shares == [batch[r::world_size] for batch in whole]


def test_accumulation_needs_an_image_for_each_part(painted_dataset):
    given = config(batch_size=2)
    given.train.accumulate = 3
    with pytest.raises(ConfigError, match=r"train\.accumulate 3 need at least 3 images a step"):
        build_train_loader(given, [painted_dataset(4)])


@pytest.mark.parametrize(("section", "told"), [({"sample_timeout": 9.0}, True), ({}, False)])
def test_a_timeout_that_nothing_can_keep_is_told(painted_dataset, caplog, section, told):
    build_train_loader(config(num_workers=0, **section), [painted_dataset(4)])
    assert ("data.sample_timeout=9 has no effect with data.num_workers=0" in caplog.text) is told


def test_no_data_set_is_an_error_that_shows_one():
    with pytest.raises(ConfigError, match=r"data\.train names no data set; .* e\.g\. data\.train"):
        build_datasets([], "data.train")


def blocks_of(painted_coco, **classes):
    return [
        Block(name="CocoDetection", **painted_coco(6, name=name, classes=names))
        for name, names in classes.items()
    ]


def names_of_boxes(dataset):
    """The class of each box by its name, and its id in the file."""
    return [(dataset.class_names[k], dataset.category_ids[k]) for k in dataset.classes]


def test_classes_are_numbered_by_their_names_in_all_data_sets(painted_coco, caplog):
    caplog.set_level(logging.INFO, "detlite")
    blocks = blocks_of(painted_coco, a=("ball", "box", "cup"), b=("cup", "ball"))
    before = [names_of_boxes(build_datasets([block], "data.train")[0]) for block in blocks]
    for order in (blocks, blocks[::-1]):
        datasets = build_datasets(order, "data.train")
        assert {d.class_names for d in datasets} == {("ball", "box", "cup")}
        assert {d.name: names_of_boxes(d) for d in datasets} == dict(zip("ab", before, strict=True))
        assert sorted(datasets[0].category_ids) == [1, 2, 3]
    assert "'b': classes are numbered by their names as in 'a'; it lacks 1 of the 3: box" in (
        caplog.text
    )


def test_classes_that_the_model_lacks_are_refused_until_they_are_left_out(painted_coco):
    (block,) = blocks_of(painted_coco, val=("ball", "dog"))
    with pytest.raises(DataError) as error:
        build_datasets([block], "data.test", ["ball", "box"])
    told = str(error.value)
    assert "data.test: the training data lacks 1 of the 2 classes of 'val': dog." in told
    assert "`classes: [ball]` leaves out the other boxes" in told
    (dataset,) = build_datasets([Block(block, classes=["ball"])], "data.test", ["ball", "box"])
    assert dataset.class_names == ("ball", "box")
    assert {*dataset.classes.tolist()} == {0}


@pytest.mark.datasets
def test_a_val_that_lacks_a_class_is_evaluated_without_it(cases_dir, monkeypatch):
    monkeypatch.setenv("DETLITE_DATASETS", str(cases_dir / "val-lacks-class"))
    train, val = (
        Block(name="CocoDetection", json=f"{split}.json", images="img")
        for split in ("train", "val")
    )
    (train,) = build_datasets([train], "data.train")
    (val,) = build_datasets([val], "data.test", train.class_names)
    assert val.class_names == train.class_names
    lacking = [k for k, count in enumerate(val.class_counts()) if count == 0]
    assert len(lacking) == 1
    found = []
    for i in range(len(val)):
        boxes = val.clipped_boxes(i)
        ones = np.ones(len(boxes))
        found.append(Detections(boxes.astype(float), ones, val.classes[val.boxes_of(i)]))
    results = COCOEvaluator(dataset=val).score(found)["bbox"]
    assert results["AP"] == pytest.approx(100)
    assert np.isnan(results[f"AP-{val.class_names[lacking[0]]}"])


def test_the_line_that_counts_images_names_the_classes(painted_coco, caplog):
    caplog.set_level(logging.INFO, "detlite")
    datasets = build_datasets(blocks_of(painted_coco, a=("ball", "box", "cup")), "data.train")
    build_train_loader(config(), datasets)
    build_test_loader(config(), datasets[0])
    assert "training on 6 images of 'a', 2 without a box, 4 boxes: box 2, cup 2, ball 0" in (
        caplog.text
    )
    assert "testing on 6 images of 'a', 4 boxes: box 2, cup 2, ball 0" in caplog.text


def test_of_many_classes_the_commonest_are_named(painted_coco, caplog):
    caplog.set_level(logging.INFO, "detlite")
    names = [f"c{k}" for k in range(30)]
    build_train_loader(config(), build_datasets(blocks_of(painted_coco, a=names), "data.train"))
    assert "4 boxes: c1 1, c2 1, c4 1, c5 1, c0 0, " in caplog.text
    assert "and 10 more classes with 0, 10 with none" in caplog.text


def test_a_training_set_without_any_box_warns(painted_dataset, caplog):
    build_train_loader(config(), [painted_dataset(1)])
    assert "'painted': no training image has a box" in caplog.text


def test_a_stated_number_of_classes_must_be_that_of_the_data(painted_dataset):
    dataset = painted_dataset(3)
    check_class_count(DataSection(num_classes=2), dataset)
    check_class_count(DataSection(), dataset)
    with pytest.raises(
        ConfigError, match=r"num_classes is 3, but 'painted' has 2 classes: ball, box"
    ):
        check_class_count(DataSection(num_classes=3), dataset)


def test_a_batch_is_a_list_of_dicts(painted_dataset):
    (batch,) = itertools.islice(build_train_loader(config(), [painted_dataset(4)]), 1)
    assert isinstance(batch, list)
    assert {type(sample["image"]) for sample in batch} == {torch.Tensor}


ODD_TITLES = [
    "/data/cells",
    "a/b",
    "..",
    "a\\b",
    " ",
    "a\nb",
    "a\0",
    "\ud800",
    "x" * 201,
    "é" * 101,
]


@pytest.mark.parametrize("name", ODD_TITLES)
def test_a_data_set_is_called_what_a_folder_of_results_can_be(painted_coco, name):
    block = Block(name="CocoDetection", **painted_coco(1), title=name)
    with pytest.raises(DataError, match=r"data.test.0 \(CocoDetection\).*called.*`title`"):
        build_datasets([block], "data.test")


def test_the_keys_of_image_files_reach_training_and_test_data(class_folders):
    folder = class_folders({"cat/0.png": (60, 40), "dog/1.png": (40, 40)})
    section = config(max_pixels=2000, image_range=[0, 4095])
    blocks = [Block(name="ImageFolder", folder=str(folder))]
    train, test = (build_datasets(blocks, "data.train")[0] for _ in range(2))
    build_train_loader(section, [train])
    build_test_loader(section, test)
    for dataset in (train, test):
        assert dataset.reader == ImageReader(2000, (0, 4095))
        with pytest.raises(DataError, match=r"data\.max_pixels is 2,000"):
            dataset[0]
        assert dataset[1]["image"].shape == (3, 40, 40)
