"""Abstract bases: the tenant scope as a queryset word."""

from typing import Any, Self

from django.db import models


class OrganizationScopedQuerySet(models.QuerySet[Any]):
    """Rows that belong to an organization; delivery code reads them through `for_organization` only."""

    def for_organization(self, organization_id: str) -> Self:
        """The rows of one organization, by its id."""
        return self.filter(organization_id=organization_id)


class OrganizationScoped(models.Model):
    """A row owned by one organization."""

    objects = OrganizationScopedQuerySet.as_manager()

    class Meta:
        abstract = True
