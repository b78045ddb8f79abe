"""Routes of the data path, below /api/v1/."""

from django.urls import path

from apps.gateway.server.client_envelope import ClientNotFound
from apps.gateway.views.chat import ChatCompletions
from apps.gateway.views.completions import Completions
from apps.gateway.views.conversations import Conversation, ConversationItem, ConversationItems, Conversations
from apps.gateway.views.credits import AccountBalance, Credits
from apps.gateway.views.document import ApiDocument
from apps.gateway.views.embeddings import Embeddings
from apps.gateway.views.generation import Generation
from apps.gateway.views.key import Key
from apps.gateway.views.messages import CountTokens, Messages
from apps.gateway.views.models import ModelDetail, ModelEndpoints, Models
from apps.gateway.views.responses import Responses
from apps.gateway.views.stored_responses import CancelResponse, InputItems, StoredResponse

app_name = "gateway"

urlpatterns = [
    path("chat/completions", ChatCompletions.as_view(), name="chat-completions"),
    path("completions", Completions.as_view(), name="completions"),
    path("embeddings", Embeddings.as_view(), name="embeddings"),
    path("messages/count_tokens", CountTokens.as_view(), name="count-tokens"),
    path("messages", Messages.as_view(), name="messages"),
    path("responses", Responses.as_view(), name="responses"),
    path("responses/<str:response_id>", StoredResponse.as_view(), name="response"),
    path("responses/<str:response_id>/input_items", InputItems.as_view(), name="response-input-items"),
    path("responses/<str:response_id>/cancel", CancelResponse.as_view(), name="response-cancel"),
    path("conversations", Conversations.as_view(), name="conversations"),
    path("conversations/<str:conversation_id>", Conversation.as_view(), name="conversation"),
    path("conversations/<str:conversation_id>/items", ConversationItems.as_view(), name="conversation-items"),
    path(
        "conversations/<str:conversation_id>/items/<str:item_id>", ConversationItem.as_view(), name="conversation-item"
    ),
    path("models", Models.as_view(), name="models"),
    path("models/<path:model_id>/endpoints", ModelEndpoints.as_view(), name="model-endpoints"),
    path("models/<path:model_id>", ModelDetail.as_view(), name="model"),
    path("openapi.json", ApiDocument.as_view(), name="openapi"),
    path("key", Key.as_view(), name="key"),
    path("credits", Credits.as_view(), name="credits"),
    path("generation", Generation.as_view(), name="generation"),
    path("client/account/balance", AccountBalance.as_view(), name="account-balance"),
    path("client/<path:rest>", ClientNotFound.as_view(), name="client-not-found"),
]
