"""The shared state of one viewer."""

from __future__ import annotations

import gc
import weakref
from unittest.mock import Mock

import pytest
from psygnal import EmitLoopError

from napari_dinobloom.io.study import Study
from napari_dinobloom.ui.session import Job, Session, session_of


class Viewer:
    """Anything that can be weakly referenced."""


class Proxy:
    """What napari hands to a plugin."""

    def __init__(self, viewer):
        self.__wrapped__ = viewer


def test_one_session_per_viewer_also_through_proxies():
    one, other = Viewer(), Viewer()
    assert session_of(Proxy(one)) is session_of(one) is session_of(Proxy(one))
    assert session_of(one) is not session_of(other)


def test_a_session_goes_with_its_viewer_and_gives_the_lock_back(tmp_path):
    viewer = Viewer()
    session = session_of(viewer)
    stop = Mock()
    session.show(Study.create(tmp_path / "a.dinobloom"))
    session.job = Job("something", stop)
    gone = weakref.ref(session)
    del viewer, session
    gc.collect()
    assert gone() is None
    stop.assert_called_once_with()
    with Study.open(tmp_path / "a.dinobloom") as again:
        assert not again.read_only


def test_select_sets_selection_and_focus_and_tells():
    session = session_of(viewer := Viewer())
    heard = Mock()
    session.events.selected.connect(heard)
    session.select("f:00001", "f:00002")
    assert (session.selected, session.focus) == (("f:00001", "f:00002"), "f:00002")
    session.select("f:00001", "f:00002")
    heard.assert_called_once()
    session.select()
    assert (session.selected, session.focus) == ((), "")
    assert viewer is not None


def test_showing_another_study_closes_the_one_before_and_clears_the_selection(tmp_path):
    session = session_of(viewer := Viewer())
    first = Study.create(tmp_path / "a.dinobloom")
    second = Study.create(tmp_path / "b.dinobloom")
    session.show(first)
    session.select("f:00001")
    session.show(first)
    assert session.focus == "f:00001"
    session.show(second)
    assert session.study is second
    assert session.selected == ()
    assert first.read_only
    assert not second.read_only
    session.close_study()
    assert second.read_only
    assert viewer is not None


def test_the_lock_is_given_back_whatever_a_listener_does(tmp_path):
    session, path = Session(), tmp_path / "one.dinobloom"
    session.show(Study.create(path))

    @session.events.leaving.connect
    def fail() -> None:
        raise ValueError("a listener")

    with pytest.raises(EmitLoopError):
        session.close_study()
    assert session.study is None
    with Study.open(path) as again:
        assert not again.read_only
