"""The limits of a container, in both versions of control groups."""

import cgroup
import pytest

UNLIMITED_V1 = 9223372036854771712


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Writes the files of control groups."""

    def write(membership, **files):
        (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            file = tmp_path / "cgroup" / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "MEMBERSHIP", tmp_path / "membership")
    return write


def test_the_root_of_a_container_has_its_limits(container):
    container("0::/\n", **{"memory.max": "8589934592\n", "cpu.max": "150000 100000\n"})
    assert cgroup.memory_limit() == 2**33
    assert cgroup.core_limit() == 1.5


def test_the_smallest_limit_of_all_groups_holds(container):
    limits = {"a__memory.max": "300", "a__b__memory.max": "max", "a__b__c__memory.max": "900"}
    cores = {"a__cpu.max": "max 100000", "a__b__cpu.max": "400000 100000"}
    container("0::/a/b/c\n", **limits, **cores)
    assert cgroup.memory_limit() == 300
    assert cgroup.core_limit() == 4


def test_a_path_of_the_host_leads_to_the_root(container):
    container("0::/system.slice/docker-1.scope\n", **{"memory.max": "500"})
    assert cgroup.memory_limit() == 500


def test_version_1_has_a_hierarchy_for_each_controller(container):
    container(
        "3:memory:/docker/1\n2:cpu,cpuacct:/docker/1\n1:name=systemd:/\n",
        **{"memory__memory.limit_in_bytes": str(UNLIMITED_V1)},
        **{"memory__docker__1__memory.limit_in_bytes": "700"},
        **{"cpu__docker__1__cpu.cfs_quota_us": "50000"},
        **{"cpu__docker__1__cpu.cfs_period_us": "100000"},
        **{"cpu__cpu.cfs_quota_us": "-1", "cpu__cpu.cfs_period_us": "100000"},
    )
    assert cgroup.memory_limit() == 700
    assert cgroup.core_limit() == 0.5


@pytest.mark.parametrize("membership", ["0::/\n", "", "5:memory:/\n4:cpu:/\n"])
def test_a_process_without_limits(container, membership):
    container(membership)
    assert cgroup.memory_limit() is None
    assert cgroup.core_limit() is None


def test_a_system_without_control_groups(container):
    assert cgroup.memory_limit() is None
    assert cgroup.core_limit() is None
