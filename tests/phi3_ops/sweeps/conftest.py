from sweep_files import server, write_sweep  # noqa: F401 - fixtures
