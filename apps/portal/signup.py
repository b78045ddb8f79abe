"""Signing up: a person, their organization and its default project in one transaction."""

from typing import Any, ClassVar, cast

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.forms import SignupForm as BaseSignupForm
from django import forms
from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from apps.accounts.models import Organization, User
from apps.accounts.organizations import create_organization
from apps.core.name_fields import NameFormField


class AccountAdapter(DefaultAccountAdapter):
    """Whether strangers may sign up, and the words in which sign-up and login say what went wrong."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return bool(settings.SIGNUP_IS_OPEN)

    error_messages: dict[str, Any] = {
        **DefaultAccountAdapter.error_messages,
        "account_inactive": "This account has been deactivated.",
        "email_password_mismatch": "Email address and password do not match.",
        "email_taken": "There is an account with this email address already. Log in, or reset its password.",
        "too_many_login_attempts": "Too many failed attempts. Wait a few minutes, then try again.",
        "invalid_password_reset": "This link has been used or has expired. Ask for a new one.",
        "rate_limited": "Too many attempts. Wait a few minutes, then try again.",
    }


class SignupForm(BaseSignupForm):
    """Email address, password and the name of a first organization."""

    field_order: ClassVar[list[str]] = ["organization_name", "email", "password1"]

    organization_name = NameFormField(
        label="Organization",
        max_length=Organization._meta.get_field("name").max_length,
        help_text="A company, a team or just you. It owns keys and usage; its name can be changed later.",
        widget=forms.TextInput(attrs={"autocomplete": "organization"}),
    )

    def save(self, request: HttpRequest) -> User:
        """The new user, owner of a new organization. All of it is stored, or nothing."""
        with transaction.atomic():
            user = super().save(request)
            create_organization(self.cleaned_data["organization_name"], owner=cast(User, user))
        return cast(User, user)
