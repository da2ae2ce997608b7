"""Bundles on an Android phone: the real adb, and a fake daemon of the phone's."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest

import native_harness as harness
import sparrow
from fake_adbd import AWAKE, Phone, fake_phones, free_port
from small_models import classifier
from sparrow.cli import main
from sparrow.device.cpu import host_isa
from sparrow.device.here import host_machine
from sparrow.device.runners import find_runner
from sparrow.errors import BadInput, DeviceError
from sparrow.targets import target

HERE = host_machine(host_isa())


def test_a_bundle_runs_and_is_timed_on_a_phone_that_stays_awake(phone: Phone, folder: Path) -> None:
    there = sparrow.load_bundle(folder, device="adb")
    x = np.random.default_rng(0).standard_normal((1, 3, 12, 12), np.float32)
    np.testing.assert_array_equal(there.run(x)["y"], sparrow.load_bundle(folder).run(x)["y"])
    assert all(s.ns > 0 for s in there.profile(runs=5).steps)
    assert phone.setting(AWAKE) == "15"
    assert "input keyevent KEYCODE_WAKEUP" in (phone.root / "log").read_text()


def test_a_bundle_is_proved_there(
    phone: Phone, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (phone.root / "settings" / AWAKE).write_text("3\n")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(folder), "--device", f"adb:{phone.serial}"])
    assert ended.value.code == 0
    assert "every layer within its own bound: 6 of 6" in capsys.readouterr().out
    gc.collect()
    assert phone.left() == [] and phone.setting(AWAKE) == "3"
    (phone.root / "settings" / AWAKE).unlink()


def test_an_android_bundle_is_proved_on_a_phone_of_its_kind(phone: Phone, tmp_path: Path) -> None:
    machine = target("aarch64_android").machine
    harness.emulator(machine)
    phone.become("aarch64")
    bundle = sparrow.build(classifier(), "aarch64_android", tmp_path / "out")
    proof = bundle.verify("adb")
    assert proof.ok and len(proof.layers) == 6
    with pytest.raises(DeviceError, match="is aarch64, the bundle is for x86_64"):
        find_runner(HERE, "adb")


def test_a_phone_says_what_it_measures_under(phone: Phone) -> None:
    runner = find_runner(HERE, "adb")
    now = runner.conditions()
    assert now.device == "Pixel Tensor G9" and now.cores == tuple(range(8))
    assert now.governor == "schedutil" and now.celsius == 61.5
    assert now.limits == tuple(f"core {c} is capped at 2100 of 2800 MHz" for c in range(4, 8))
    assert str(now).endswith("cores 0-7, 1800-2100 MHz of 1800-2800, schedutil, 62 C")


@pytest.mark.parametrize(("cores", "found"), [("big", (4, 5, 6, 7)), ("little", (0, 1, 2, 3))])
def test_big_and_little_cores_are_told_apart(
    cores: str, found: tuple[int, ...], phone: Phone
) -> None:
    assert find_runner(HERE, "adb", cores).conditions().cores == found


def test_a_full_disk_is_one_line(phone: Phone, folder: Path) -> None:
    cat = phone.root / "bin" / "cat"
    cat.write_text(
        "#!/bin/sh\n[ -f /dev/stdout ] || exec /bin/cat\n"
        'head -c 1000; echo "cat: write error: No space left on device" >&2; exit 1\n'
    )
    cat.chmod(0o755)
    with pytest.raises(DeviceError, match=r"bytes do not go to .*No space left.*free some space"):
        sparrow.load_bundle(folder, device="adb")


def test_a_phone_that_is_unplugged_is_one_line(private: Path, folder: Path) -> None:
    with fake_phones(private, True) as (phone,):
        there = sparrow.load_bundle(folder, device="adb")
        x = np.zeros((1, 3, 12, 12), np.float32)
        there.run(x)
        phone.unplug()
        with pytest.raises(DeviceError, match=r"^adb:.*(lost|not found|closed).*plugged in"):
            there.run(x)
        assert phone.left() == []
        assert phone.setting(AWAKE) == "null"


def test_phones_that_cannot_be_used_are_one_line(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_phones(private), pytest.raises(DeviceError, match=r"no phone is connected; enable"):
        find_runner(HERE, "adb")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    with fake_phones(private, True, False) as (_, locked):
        with pytest.raises(DeviceError, match=r"is not connected; connected: 127"):
            find_runner(HERE, "adb:moon")
        with pytest.raises(BadInput, match=r"2 phones are connected; name one: adb:127"):
            find_runner(HERE, "adb")
        with pytest.raises(DeviceError, match=r"is (unauthorized|offline)"):
            find_runner(HERE, f"adb:{locked.serial}")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BadInput, match=r"adb is not installed; install"):
        find_runner(HERE, "adb")
