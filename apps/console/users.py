"""People: making accounts, setting passwords, naming operators."""

from typing import Any, ClassVar

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.contrib.filters.admin import BooleanRadioFilter
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.accounts.models import Membership, User
from apps.console.access import ConsoleAdmin, OperatorPermissions
from apps.console.figures import moment
from apps.console.site import console_site


class UserAddForm(UserCreationForm):
    """A new person with a first password."""

    class Meta:
        model = User
        fields = ("email", "is_staff")
        labels: ClassVar = {"is_staff": "Operator"}
        help_texts: ClassVar = {"is_staff": "May enter this console and do everything in it."}

    def clean_email(self) -> str:
        """Addresses are stored in lower case: one person, one account."""
        return str(self.cleaned_data["email"]).lower()


class UserEditForm(UserChangeForm):
    """What an operator may change of a person."""

    class Meta:
        model = User
        fields = "__all__"
        labels: ClassVar = {"is_staff": "Operator"}
        help_texts: ClassVar = {
            "is_active": "Off: no login, portal or console.",
            "is_staff": "May enter this console and do everything in it.",
        }


class MembershipInline(OperatorPermissions, TabularInline):
    """The organizations of a person."""

    model = Membership
    fields = ("organization", "role")
    autocomplete_fields = ("organization",)
    extra = 0
    hide_title = True
    verbose_name_plural = "Organizations"

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_change_permission(request, obj)


@admin.register(User, site=console_site)
class UserAdmin(ConsoleAdmin, DjangoUserAdmin):
    """Accounts. They are deactivated, not deleted, so that what they did keeps its name.

    The e-mail address stays: changing it under an account would leave password resets with the old one."""

    form = UserEditForm
    add_form = UserAddForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("email", "full_name", "role", "state", "last_seen", "joined")
    list_filter = (("is_staff", BooleanRadioFilter), ("is_active", BooleanRadioFilter))
    search_fields = ("email", "first_name", "last_name")
    ordering = ("email",)
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("email", "password", ("first_name", "last_name"))}),
        ("Access", {"fields": (("is_active", "is_staff"), ("last_seen", "joined"))}),
    )
    add_fieldsets = ((None, {"fields": ("email", "password1", "password2", "is_staff")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        own = ("is_active", "is_staff") if obj.pk == request.user.pk else ()  # nobody locks themselves out
        return ("email", "last_seen", "joined", *own)

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return (MembershipInline,) if obj else ()

    @display(description="Name", ordering="first_name")
    def full_name(self, row: User) -> str:
        return row.get_full_name()

    @display(description="Role", label={"Operator": "primary"}, ordering="is_staff")
    def role(self, row: User) -> str:
        return "Operator" if row.is_staff else "Customer"

    @display(description="State", label={"Active": "success", "Deactivated": "danger"}, ordering="is_active")
    def state(self, row: User) -> str:
        return "Active" if row.is_active else "Deactivated"

    @display(description="Last login (UTC)", ordering="last_login")
    def last_seen(self, row: User) -> str:
        return moment(row.last_login)

    @display(description="Joined (UTC)", ordering="date_joined")
    def joined(self, row: User) -> str:
        return moment(row.date_joined)
