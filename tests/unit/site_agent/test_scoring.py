"""Pixel accuracy and mean IoU against counts by hand; what has no label takes no part."""

import math

import pytest
import torch

from rootstock.site_agent.scoring import confusion, error_percent, mean_iou_percent, score

NAN = math.nan
LABELS = torch.tensor([[[1, 1, 1, 0], [0, 0, NAN, NAN]], [[0, 0, 0, 0], [1, NAN, 0, 0]]])
Y = torch.tensor([[[2.0, 1, -1, 3], [-2, -1, 9, -9]], [[-1, -1, 2, -1], [1, 5, -3, -4]]])
# Labelled: 4 of the category, 3 said so; 9 of the rest, 7 said so.


def test_counts_are_those_of_labelled_pixels() -> None:
    assert confusion(Y, LABELS).tolist() == [[7, 2], [1, 3]]


def test_pixel_accuracy_and_mean_iou_by_hand() -> None:
    assert error_percent(Y, LABELS) == pytest.approx(100 * 3 / 13)
    category, rest = 3 / (3 + 1 + 2), 7 / (7 + 2 + 1)
    assert mean_iou_percent(Y, LABELS) == pytest.approx(50 * (category + rest))


def test_unlabelled_pixels_change_nothing() -> None:
    other = torch.where(LABELS.isnan(), -Y, Y)
    assert error_percent(other, LABELS) == error_percent(Y, LABELS)
    assert mean_iou_percent(other, LABELS) == mean_iou_percent(Y, LABELS)
    assert score(other, LABELS).loss == score(Y, LABELS).loss


def test_a_classification_has_no_iou() -> None:
    y_N, labels_N = torch.tensor([1.0, -1.0, 2.0]), torch.tensor([1.0, 1.0, 0.0])
    assert mean_iou_percent(y_N, labels_N) is None
    assert error_percent(y_N, labels_N) == pytest.approx(100 * 2 / 3)


def test_a_number_that_is_none_is_wrong_on_either_side() -> None:
    y = torch.full_like(Y, NAN)
    assert error_percent(y, LABELS) == 100
    assert mean_iou_percent(y, LABELS) == 0


def test_a_class_that_is_nowhere_takes_no_part() -> None:
    y = -torch.ones(1, 2, 2)
    assert mean_iou_percent(y, torch.zeros(1, 2, 2)) == 100
