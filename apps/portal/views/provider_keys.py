"""Own provider keys of an organization: which there are, how they do, and everything that can be done with them."""

from django.contrib import messages
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils import timezone

from apps.accounts.roles import Capability
from apps.billing.pricing.loading import load_book
from apps.billing.receipts import percent_of
from apps.core.errors import Conflict, InvalidInput
from apps.policies import credentials
from apps.policies.models import ProviderCredential
from apps.portal.access import Access, organization_page
from apps.portal.pages import render_page
from apps.portal.provider_key_forms import NewProviderKeyForm, SecretForm, TermsForm, usable_providers

MANAGE = Capability.MANAGE_ORGANIZATION
SECTION = {"section": "provider_keys"}


@organization_page(get=MANAGE, post=MANAGE)
def provider_keys(request: HttpRequest, access: Access) -> HttpResponse:
    """The keys; a POST adds one."""
    providers = usable_providers()
    owner = access.organization.id
    if request.method != "POST":
        return _list(request, access, NewProviderKeyForm(organization_id=owner, providers=providers))
    form = NewProviderKeyForm(request.POST, organization_id=owner, providers=providers)
    if not form.is_valid():
        return _list(request, access, form, status=422)
    provider = form.providers[form.cleaned_data["provider"]]
    if not form.check_kind(provider):
        return _list(request, access, form, status=422)
    try:
        row = credentials.add_credential(
            owner, provider, form.cleaned_data["secret"], form.terms(provider), actor=access.user.email
        )
    except (Conflict, InvalidInput) as error:
        _blame(form, error)
        return _list(request, access, form, status=422)
    messages.success(request, f"“{row.label}” is used from now on.")
    return redirect("portal:provider_keys", slug=access.organization.slug)


@organization_page(get=MANAGE, post=MANAGE)
def provider_key(request: HttpRequest, access: Access, credential_id: str) -> HttpResponse:
    """One key; a POST changes its settings."""
    row = _row(access, credential_id)
    if request.method != "POST":
        return _one(request, access, row)
    form = _terms_form(row, request.POST)
    if not form.is_valid() or not form.check_kind(row.provider):
        return _one(request, access, row, form=form, status=422)
    try:
        credentials.change_credential(row, row.provider, form.terms(row.provider), actor=access.user.email)
    except (Conflict, InvalidInput) as error:
        _blame(form, error)
        return _one(request, access, row, form=form, status=422)
    messages.success(request, "The key is changed.")
    return _back(access, row)


@organization_page(post=MANAGE)
def rotate_provider_key(request: HttpRequest, access: Access, credential_id: str) -> HttpResponse:
    """Another key in the place of this one."""
    row = _row(access, credential_id)
    form = SecretForm(request.POST)
    if form.is_valid():
        try:
            credentials.rotate_credential(row, row.provider, form.cleaned_data["secret"], actor=access.user.email)
        except (Conflict, InvalidInput) as error:
            _blame(form, error)
        else:
            messages.success(request, "The new key is used from now on.")
            return _back(access, row)
    return _one(request, access, row, secret_form=form, status=422)


@organization_page(post=MANAGE)
def switch_provider_key(request: HttpRequest, access: Access, credential_id: str) -> HttpResponse:
    """Use the key, or leave it alone."""
    is_on = request.POST.get("on") == "yes"
    row = credentials.switch_credential(_row(access, credential_id), on=is_on, actor=access.user.email)
    messages.success(request, f"The key is {'on' if is_on else 'off'}.")
    return _back(access, row)


@organization_page(get=MANAGE, post=MANAGE)
def delete_provider_key(request: HttpRequest, access: Access, credential_id: str) -> HttpResponse:
    """Asks, then forgets the key."""
    row = _row(access, credential_id)
    if request.method == "POST":
        credentials.delete_credential(row)
        messages.success(request, "The key is deleted.")
        return redirect("portal:provider_keys", slug=access.organization.slug)
    return render_page(request, access, "portal/delete_provider_key.html", {"credential": row, **SECTION})


def _list(request: HttpRequest, access: Access, form: NewProviderKeyForm, *, status: int = 200) -> HttpResponse:
    rows = ProviderCredential.objects.for_organization(access.organization.id).select_related("provider")
    fee = load_book(organization_id=access.organization.id).fee_ppm(
        access.organization.id, moment=timezone.now().timestamp()
    )
    context = {"credentials": rows, "form": form, "fee_percent": percent_of(fee), **SECTION}
    return render_page(request, access, "portal/provider_keys.html", context, status=status)


def _one(
    request: HttpRequest,
    access: Access,
    row: ProviderCredential,
    *,
    form: TermsForm | None = None,
    secret_form: SecretForm | None = None,
    status: int = 200,
) -> HttpResponse:
    context = {
        "credential": row,
        "form": form or _terms_form(row),
        "secret_form": secret_form or SecretForm(),
        **SECTION,
    }
    return render_page(request, access, "portal/provider_key.html", context, status=status)


def _terms_form(row: ProviderCredential, posted: QueryDict | None = None) -> TermsForm:
    initial = TermsForm.initial_of(row)
    return TermsForm(posted, initial=initial, organization_id=row.organization_id, providers=[row.provider])


def _row(access: Access, credential_id: str) -> ProviderCredential:
    rows = ProviderCredential.objects.for_organization(access.organization.id).select_related("provider")
    row: ProviderCredential | None = rows.filter(pk=credential_id).first()
    if row is None:
        raise Http404
    return row


def _blame(form: Form, error: Conflict | InvalidInput) -> None:
    field = "label" if isinstance(error, Conflict) and "label" in form.fields else None
    if field is None and "secret" in form.fields and "key must" in error.message:
        field = "secret"
    form.add_error(field, f"{error.message[:1].upper()}{error.message[1:]}.")


def _back(access: Access, row: ProviderCredential) -> HttpResponse:
    return redirect("portal:provider_key", slug=access.organization.slug, credential_id=row.pk)
