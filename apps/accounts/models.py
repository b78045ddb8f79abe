"""Users, organizations with their plans, projects, and who belongs to which."""

from functools import partial
from typing import Any, ClassVar

from django.contrib.auth.base_user import BaseUserManager
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models.functions import Lower

from apps.accounts.roles import Role
from apps.core.brake_fields import BRAKE_CONSTRAINTS, Braked
from apps.core.ids import ID_LENGTH, new_id
from apps.core.limit_fields import Limited
from apps.core.models import OrganizationScoped
from apps.core.name_fields import NameField
from apps.core.priority_fields import PRIORITY_CONSTRAINT, Prioritized


class UserQuerySet(BaseUserManager["User"]):
    """Creates users, who are known by their e-mail address."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)


class User(AbstractUser):
    """A person. The e-mail address is the login."""

    username = None  # type: ignore[assignment]  # Django's way to drop an inherited field
    email = models.EmailField(unique=True)

    USERNAME_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects: ClassVar[UserQuerySet] = UserQuerySet()  # type: ignore[assignment]  # keyed by e-mail, not by username

    class Meta:
        constraints = [models.UniqueConstraint(Lower("email"), name="user_email_unique_in_any_case")]

    def __str__(self) -> str:
        return self.email


new_organization_id = partial(new_id, "org")
new_project_id = partial(new_id, "proj")


class Plan(Limited, Braked, Prioritized):
    """Limits that several organizations share; each may have its own instead, limit by limit. So with the brake of
    keys."""

    id = models.SlugField("short name", primary_key=True, max_length=60)
    name = NameField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(Limited.Meta):
        ordering = ["name"]
        constraints = [*Limited.Meta.constraints, *BRAKE_CONSTRAINTS, PRIORITY_CONSTRAINT]

    def __str__(self) -> str:
        return self.name


class Organization(Limited, Prioritized):
    """A customer: owns projects, keys, usage and money. Its own limits win over those of its plan."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_organization_id, editable=False)
    name = NameField(max_length=100)
    slug = models.SlugField(max_length=60, unique=True)
    plan = models.ForeignKey(
        Plan, null=True, blank=True, on_delete=models.PROTECT, related_name="organizations", help_text="Empty: none."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    members = models.ManyToManyField(User, through="Membership", related_name="organizations")

    class Meta(Limited.Meta):
        ordering = ["name"]
        constraints = [*Limited.Meta.constraints, PRIORITY_CONSTRAINT]

    def __str__(self) -> str:
        return self.name


class Project(OrganizationScoped, Limited):
    """A part of an organization that keys and usage belong to."""

    id = models.CharField(primary_key=True, max_length=ID_LENGTH, default=new_project_id, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="projects")
    name = NameField(max_length=100)
    slug = models.SlugField(max_length=60)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(Limited.Meta):
        ordering = ["name"]
        constraints = [
            *Limited.Meta.constraints,
            models.UniqueConstraint(fields=["organization", "slug"], name="project_slug_unique"),
        ]

    def __str__(self) -> str:
        return self.name


class Membership(OrganizationScoped):
    """A user's role in an organization."""

    organization = models.ForeignKey(Organization, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=20, choices=[(role.value, role.value.title()) for role in Role])
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="membership_unique")]

    def __str__(self) -> str:
        return f"{self.user} in {self.organization} as {self.role}"
