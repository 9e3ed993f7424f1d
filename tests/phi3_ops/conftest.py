from azure_fixtures import azure, one_azure, phi3, provisioned, snapshot  # noqa: F401 - fixtures
