"""The sheet holds each front member's picture whole, in the front's order, under its label."""

import numpy as np

from memcontrol.report.samples import member_label, samples_sheet


def test_sheet_holds_every_picture_below_its_label(finished):
    sheet = np.asarray(samples_sheet(finished, finished.read_front()))
    tops = []
    for i in range(3):
        rows, columns = np.nonzero((sheet == (250, 10 * i, 0)).all(axis=2))
        assert len(rows) == 90 * 40
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (40, 90)
        tops.append(rows.min())
    assert tops == sorted(tops)
    for top in tops:
        assert (sheet[top - 20 : top - 1] < 128).any(), "a label stands right above"


def test_label(finished):
    front = finished.read_front()
    expected = "trial 3   rate 0.00178   fd@efficientnet-lite0 11.0   copy_gap@pixels 0.0200"
    assert member_label(front["front"][0], front["objectives"]) == expected


def test_a_lost_picture_leaves_its_label(finished):
    whole = samples_sheet(finished, finished.read_front())
    finished.samples(1).unlink()
    sheet = np.asarray(samples_sheet(finished, finished.read_front()))
    assert not (sheet == (250, 10, 0)).all(axis=2).any()
    assert (sheet == (250, 20, 0)).all(axis=2).sum() == 90 * 40
    assert sheet.shape[0] < whole.height
