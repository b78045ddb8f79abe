"""Routes of the data path, below /api/v1/."""

from django.urls import path

from apps.gateway.views.chat import ChatCompletions
from apps.gateway.views.key import Key
from apps.gateway.views.models import ModelDetail, Models

app_name = "gateway"

urlpatterns = [
    path("chat/completions", ChatCompletions.as_view(), name="chat-completions"),
    path("models", Models.as_view(), name="models"),
    path("models/<path:model_id>", ModelDetail.as_view(), name="model"),
    path("key", Key.as_view(), name="key"),
]
