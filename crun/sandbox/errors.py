"""The one error of the sandbox, in OpenAI's shape: ApiError carries status and body fields to the server."""

from dataclasses import dataclass

import orjson


@dataclass(eq=False)
class ApiError(Exception):
    """A request that is refused. `headers` are added to the answer's."""

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def body(self) -> bytes:
        """The error as JSON, `{"error": {"message", "type", "param", "code"}}`."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": fields})


def bad_request(message: str, *, param: str | None = None, code: str | None = "invalid_value") -> ApiError:
    return ApiError(400, message, param=param, code=code)


def unknown_model(model: str) -> ApiError:
    text = f"The model `{model}` does not exist in the sandbox. GET /v1/models lists them."
    return ApiError(404, text, param="model", code="model_not_found")
