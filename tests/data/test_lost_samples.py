"""What becomes of samples whose workers were lost, and of images that cannot be read."""

import numpy as np
import pytest

from detlite import DataError
from detlite.data import mapper
from detlite.data.loader import Loader
from detlite.data.mapper import TestData
from detlite.data.samplers import TestBatchSampler

from .faulty_dataset import NUM_IMAGES, WITHOUT_FAULT, images_of, take


def test_a_sample_that_is_lost_twice_is_an_error_that_names_it(faulty, training):
    dataset = faulty({3: ("exit", 9)})
    loader = training(dataset)
    with pytest.raises(DataError) as error:
        take(loader, 4)
    assert f"ended with exit code 7, at '{dataset.file_name(3)}' (position 3), for the second" in (
        str(error.value)
    )
    assert "data.lost_sample=skip" in str(error.value)
    assert dataset.reads()[3] == 2


def test_the_policy_may_be_to_stop_at_the_first_loss(faulty, training):
    dataset = faulty({3: ("exit", 1)})
    with pytest.raises(DataError, match=r"3\.png' \(position 3\)\. data\.lost_sample=retry would"):
        take(training(dataset, lost_sample="stop"), 4)
    assert dataset.reads()[3] == 1


@pytest.mark.parametrize("kind", ["exit", pytest.param("hang", marks=pytest.mark.slow)])
def test_the_policy_may_be_to_skip_after_one_retry(faulty, training, caplog, kind):
    dataset = faulty({3: (kind, 99)})
    loader = training(dataset, lost_sample="skip", sample_timeout=1.0)
    seen = take(loader, 4)
    # What the position draws takes the place of the image, and only there.
    drawn = int(np.random.default_rng([0, 3, 1]).choice(np.arange(NUM_IMAGES)))
    assert drawn != 3
    assert seen == [[0, 1], [2, drawn], [4, 5], [6, 7]]
    assert dataset.reads()[3] == 2
    name = "worker_died" if kind == "exit" else "sample_hung"
    assert loader.faults == {name: 2, "skipped": 1}
    assert "for the second time; another image takes its place" in caplog.text
    assert "skipped an image, another takes its place: data workers were lost at" in caplog.text


def test_a_resumed_run_skips_the_same_images_without_reading_them(faulty, training):
    dataset = faulty({3: ("exit", 99)})
    first = training(dataset, lost_sample="skip")
    expected = take(first, 4)
    assert first.state_dict() == {"lost": [[3, 3]], "faults": {"worker_died": 2, "skipped": 1}}
    again = training(dataset, lost_sample="skip", num_workers=0)
    again.load_state_dict(first.state_dict())
    assert take(again, 4) == expected
    assert dataset.reads()[3] == 2
    assert again.faults == {"worker_died": 2, "skipped": 2}


def test_the_states_of_several_ranks_are_joined(faulty, training):
    loader = training(faulty())
    states = [
        {"lost": [[3, 1], [3, 5]], "faults": {"skipped": 2}},
        {"lost": [[3, 1], [8, 2]], "faults": {"skipped": 1, "unreadable": 4}},
    ]
    loader.load_state_dict(states)
    assert loader.state_dict()["lost"] == [[3, 1], [3, 5], [8, 2]]
    assert loader.faults == {"skipped": 3, "unreadable": 4}
    loader.load_state_dict({})
    assert loader.state_dict() == {"lost": [], "faults": {}}


def test_every_loss_of_another_sample_is_a_new_case(faulty, training):
    loader = training(faulty(dict.fromkeys(range(1, 6), ("exit", 1))))
    assert take(loader, 6) == WITHOUT_FAULT
    assert loader.faults["worker_died"] == 5


def test_a_test_image_is_tried_again_and_never_skipped(faulty):
    def loader(dataset):
        batches = TestBatchSampler(NUM_IMAGES, batch_size=2)
        return Loader(TestData(dataset, []), batches, num_workers=1, lost_sample="skip")

    once = loader(faulty({3: ("exit", 1)}))
    assert take(once, 9) == WITHOUT_FAULT
    assert once.faults == {"worker_died": 1}
    assert take(once, 9) == WITHOUT_FAULT  # a second evaluation
    with pytest.raises(DataError, match=r"for the second time\. A test image cannot be"):
        take(loader(faulty({2: ("exit", 99)})), 9)


def test_an_error_that_may_pass_is_read_again(faulty, training, monkeypatch, caplog):
    monkeypatch.setattr(mapper, "RETRY_PAUSE", 0.001)
    dataset = faulty({3: ("EIO", 1), 4: ("EIO", 2)})
    loader = training(dataset, data={"read_retries": 2})
    assert take(loader, 4) == WITHOUT_FAULT[:4]
    assert loader.faults == {"retried_reads": 3}
    assert f"'{dataset.file_name(4)}' took 2 more attempts to read" in caplog.text


def test_an_error_that_does_not_pass_is_told_with_its_attempts(faulty, training, monkeypatch):
    monkeypatch.setattr(mapper, "RETRY_PAUSE", 0.001)
    dataset = faulty({3: ("EIO", 9)})
    with pytest.raises(DataError, match=r"3\.png' cannot be read: .*Input/output error \(the last"):
        take(training(dataset, data={"read_retries": 2}), 4)
    assert dataset.reads()[3] == 3


def test_a_file_that_is_missing_is_not_waited_for(faulty, training):
    dataset = faulty({3: ("ENOENT", 9)})
    loader = training(dataset, data={"read_retries": 5, "skip_broken": True})
    assert [3 in batch for batch in take(loader, 4)] == [False] * 4
    assert dataset.reads()[3] == 1
    assert loader.faults == {"unreadable": 1, "skipped": 1}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_resumed_run_reads_nothing_twice(faulty, training, num_workers):
    dataset = faulty()
    loader = training(dataset, start=6, num_workers=num_workers)
    batches = iter(loader)
    assert [images_of(next(batches)) for _ in range(2)] == WITHOUT_FAULT[:2]
    if num_workers == 0:
        assert dataset.reads() == {0: 1, 1: 1, 2: 1, 3: 1}
    loader.close()
    # A worker reads ahead, yet nothing before where the run goes on.
    first = dataset.notes.read_text().split()[:8]
    assert list(map(int, first)) == [0, 1, 2, 3, 4, 5, 6, 7][: len(first)]
