from __future__ import annotations

import getpass
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from convexport.benchmarks.host import (
    cores,
    cpu_quota,
    describe_host,
    load_between,
    load_snapshot,
    power,
)
from convexport.benchmarks.trace import machine_reader


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_machine_is_json_and_names_nobody() -> None:
    text = json.dumps(describe_host(), allow_nan=False)
    secrets = (platform.node(), getpass.getuser(), str(Path.home()))
    words = set(text.replace('"', " ").replace("/", " ").split())
    for secret in secrets:
        assert secret not in words
    assert str(Path.home()) + "/" not in text
    assert '"numpy"' in text


def test_describing_the_host_imports_no_framework() -> None:
    code = (
        "import sys; from convexport.benchmarks.host import describe_host; describe_host();"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, check=True)
    assert result.stdout.strip() == b"[]"


def test_x86_server(tmp_path: Path) -> None:
    root = _write(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Xeon Q\nmicrocode\t: 0x2b\n"
            "flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 pge\n\nprocessor\t: 1\n",
            "proc/meminfo": "MemTotal:       1024 kB\nMemFree: 5 kB\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/smt/active": "1\n",
        },
    )
    host = describe_host(root)
    assert host["cpu"] == "Xeon Q"
    assert host["microcode"] == "0x2b"
    assert host["flags"] == ["avx2", "avx512f", "avx512_vnni", "amx_int8"]
    assert (host["governor"], host["smt"], host["ram_bytes"]) == ("powersave", True, 1 << 20)


def test_arm_board(tmp_path: Path) -> None:
    info = "processor : 0\nFeatures : fp asimd asimddp\nCPU implementer : 0x41\nCPU part : 0xd42\n"
    host = describe_host(_write(tmp_path / "a", {"proc/cpuinfo": info}))
    assert host["cpu"] == "ARM implementer 0x41 part 0xd42"
    assert host["flags"] == ["asimd", "asimddp"]
    board = {"proc/cpuinfo": info, "proc/device-tree/model": "Orin Nano\0"}
    assert describe_host(_write(tmp_path / "b", board))["cpu"] == "Orin Nano"


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    host = describe_host(tmp_path)
    assert (host["ram_bytes"], host["governor"], host["cpu_quota"]) == (None, None, None)
    assert host["flags"] == []
    snapshot = load_snapshot(tmp_path)
    assert load_between(snapshot, snapshot).others is None


def test_quota_v2_is_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    group = "sys/fs/cgroup"
    root = _write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a/b\n",
            f"{group}/a/b/cpu.max": "300000 100000\n",
            f"{group}/a/cpu.max": "150000 100000\n",
            f"{group}/cpu.max": "max 100000\n",
        },
    )
    assert cpu_quota(root) == 1.5
    assert cores(root) == 1


@pytest.mark.parametrize(
    ("line", "folders"), [("0::/a/b", ("", "a", "a/b")), ("1:cpu,cpuacct:/a", ("cpu", "cpu/a"))]
)
def test_a_quota_below_the_root_is_counted(
    tmp_path: Path, line: str, folders: tuple[str, ...]
) -> None:
    stats = {f"sys/fs/cgroup/{each}/cpu.stat": "nr_throttled 2\n" for each in folders}
    root = _write(tmp_path, {"proc/self/cgroup": f"{line}\n", **stats})
    assert load_snapshot(root).throttles == 2 * len(folders)
    assert machine_reader(os.getpid(), root)()["throttles"] == 2 * len(folders)


@pytest.mark.parametrize(
    ("online", "expected"), [((), None), (("0", "1"), "mains"), (("0", "0"), "battery")]
)
def test_the_plug(tmp_path: Path, online: tuple[str, ...], expected: str | None) -> None:
    files = {f"sys/class/power_supply/AC{i}/online": text for i, text in enumerate(online)}
    assert power(_write(tmp_path, files)) == expected


def test_quota_v2_of_a_container_whose_path_is_not_mounted(tmp_path: Path) -> None:
    files = {"proc/self/cgroup": "0::/outside/x\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}
    root = _write(tmp_path, files)
    assert cpu_quota(root) == 0.5
    assert cores(root) == 1


@pytest.mark.parametrize(("quota", "expected"), [("400000", 4.0), ("-1", None)])
def test_quota_v1(tmp_path: Path, quota: str, expected: float | None) -> None:
    root = _write(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpuset:/x\n1:cpu,cpuacct:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": quota,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    )
    assert cpu_quota(root) == expected


def test_shares_between_two_snapshots(tmp_path: Path) -> None:
    second = os.sysconf("SC_CLK_TCK")

    def stat(name: str, user: int, idle: int, iowait: int, steal: int, throttled: int) -> Path:
        ticks = [seconds * second for seconds in (user, 0, 0, idle, iowait, 0, 0, steal, 7, 0)]
        cpu = "cpu  " + " ".join(map(str, ticks)) + "\ncpu0 1 2\n"
        heat = "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
        quota = f"nr_periods 9\nnr_throttled {throttled}\n"
        files = {"proc/stat": cpu, "proc/loadavg": "1.25 0 0 1/2 3\n", heat: "2"}
        return _write(tmp_path / name, {**files, "sys/fs/cgroup/cpu.stat": quota})

    before = load_snapshot(stat("a", 100, 1000, 10, 5, 1))
    after = load_snapshot(stat("b", 140, 1030, 20, 25, 4))
    load = load_between(before, after)
    # 40 s busy, 30 s idle, 10 s waiting, 20 s stolen: 100 s
    assert load.steal == pytest.approx(0.2)
    assert load.own is not None and load.others is not None
    assert load.own + load.others == pytest.approx(0.4)
    assert (load.load_1m, load.throttles) == (1.25, 3)


def _burn(seconds: float) -> None:
    deadline = time.process_time() + seconds
    while time.process_time() < deadline:
        pass


def test_our_own_work_is_not_others() -> None:
    before = load_snapshot()
    _burn(0.5)
    load = load_between(before, load_snapshot())
    if load.own is None:
        pytest.skip("no /proc/stat")
    assert load.own > 0.5 / (os.cpu_count() or 1) * 0.2


def test_somebody_elses_work_is_seen() -> None:
    code = "import time; print(flush=True)\nwhile True: pass"
    before = load_snapshot()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        time.sleep(1)
        # It is still running, so its time is not yet counted as that of an ended child.
        load = load_between(before, load_snapshot())
        other.kill()
    if load.others is None:
        pytest.skip("no /proc/stat")
    assert load.others > 0.25 / (os.cpu_count() or 1)
