"""Ready-made splits are told from classes by their names."""

import pytest

from fishnet.data.split_names import look_like_splits

SPLITS = [
    ["train", "test"],
    ["Training Set", "Test Set"],
    ["train_images", "test_images"],
    ["annotations", "train", "valid"],
    ["training", "validation", "testing"],
    ["train-data", "test-data"],
    ["train", "val"],
    ["train2017", "val2017", "test2017", "annotations"],
    ["trainA", "trainB", "testA", "testB"],
    ["seg_train", "seg_test", "seg_pred"],
    ["reef_train", "reef_test"],
    ["fish-val", "fish-train", "labels"],
    ["TRAIN", "TEST"],
    ["images_train", "images_val", "masks"],
    ["train", "test", "extra"],
    ["train", "labels"],
    ["Train", "Validation", "Test", "my notes"],
    ["trainset", "testset", "README"],
    ["cats_train", "cats_test", "dogs_train", "dogs_test"],
    ["trainval", "test"],
    ["public_test", "private_test", "training"],
    ["test", "train", "unlabelled"],
    ["training_set", "test_set", "single_prediction"],
    ["train", "test", "test_labels"],
    ["train", "train_labels", "test"],
    ["train", "train_labels"],
    ["train", "test", "models"],
    ["train", "test", "sample"],
    ["original", "train", "test"],
    ["01_train", "02_test"],
    ["1-train", "2-val", "3-test"],
    ["crop_train", "crop_test", "crop_other"],
    ["train", "val", "test", "old", "backup"],
    ["train labels", "test labels"],
    ["train_masks", "train", "test_masks", "test", "models", "runs"],
]
CLASSES = [
    ["bus", "car", "train"],
    ["train", "tram"],
    ["bus", "test"],
    ["freight train", "passenger train"],
    ["steam train", "bullet train", "tram"],
    ["train 1", "train 2"],
    ["bus", "car", "test", "train"],
    ["annotations", "labels"],
    ["cat", "dog"],
    ["labels", "stamps", "envelopes"],
    ["valley", "training ground", "testudo"],
    ["Testudo hermanni", "Testudo graeca"],
    ["contest", "trainer", "valid id card"],
    ["protest", "parade"],
    ["evaluated", "held"],
    ["devil ray", "valentini"],
    ["positive test", "negative test"],
    ["documents", "images", "scripts"],
    ["test pattern", "train", "tram"],
    ["test pattern", "test tube", "train"],
    ["bus", "train", "validation", "stamp", "car"],
    ["1 train", "2 train", "3 train"],
    ["01 bus", "02 train", "03 car"],
    ["single", "double"],
    ["sample", "train"],
    ["0", "1"],
    ["", "a"],
]


@pytest.mark.parametrize("names", SPLITS, ids=", ".join)
def test_splits_are_known(names):
    assert look_like_splits(sorted(names))


@pytest.mark.parametrize("names", CLASSES, ids=", ".join)
def test_classes_are_not_refused(names):
    assert look_like_splits(sorted(names)) == {}


def test_what_each_is():
    found = look_like_splits(["Test Set", "Training Set", "annotations"])
    assert found == {"Test Set": "test", "Training Set": "train"}
