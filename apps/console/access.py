"""What an operator may do in the console: the permissions that every page declares."""

from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from unfold.admin import ModelAdmin

from apps.accounts.models import User


def is_operator(user: User | AnonymousUser) -> bool:
    """Staff run the installation: whoever has the flag may do everything that the console offers."""
    return bool(user.is_active and user.is_staff)


class OperatorPermissions:
    """Operators may look, add and change. Deleting is off: most rows are named by usage records for ever."""

    def has_module_permission(self, request: HttpRequest) -> bool:
        return is_operator(request.user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request.user)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request.user)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return is_operator(request.user)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class AppendOnlyPermissions(OperatorPermissions):
    """New rows, but no edit of an old one."""

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReadOnlyPermissions(AppendOnlyPermissions):
    """Nothing but looking."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ConsoleAdmin(OperatorPermissions, ModelAdmin):
    """What all pages of the console share."""

    list_per_page = 50
    list_filter_submit = True
    warn_unsaved_form = True

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        title = str(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title[0].upper() + title[1:], **(extra_context or {})})
