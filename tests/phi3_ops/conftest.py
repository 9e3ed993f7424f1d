from azure_fixtures import azure, kill_after, one_azure, phi3, provisioned, snapshot  # noqa: F401 - fixtures
