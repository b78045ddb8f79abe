"""The ids that may stand in a URL: anything else is a 404 before any look-up."""

from django.urls.converters import StringConverter


class KeyId(StringConverter):
    regex = "key_[0-9a-f]{32}"


class RequestId(StringConverter):
    regex = "req_[0-9a-f]{32}"
