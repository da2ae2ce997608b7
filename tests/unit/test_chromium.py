"""The server of a browser's page tells what went wrong in it, and no hang-up."""

from __future__ import annotations

import pytest

from sparrow.device.chromium import _Server


@pytest.mark.parametrize(
    ("error", "said"), [(BrokenPipeError(32, "gone"), False), (ValueError("odd"), True)]
)
def test_a_browser_that_hangs_up_is_no_news(
    error: Exception, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with _Server(("127.0.0.1", 0), lambda *_: None) as server:  # type: ignore[arg-type]
        try:
            raise error
        except Exception:
            server.handle_error(None, ("127.0.0.1", 1))
    assert ("Traceback" in capsys.readouterr().err) is said
