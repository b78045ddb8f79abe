"""Guardrails of an organization: the list, trying a text, and a page for each rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.cache import patch_cache_control

from apps.accounts.roles import Capability
from apps.core.errors import Conflict, InvalidInput
from apps.core.limit_fields import sentence
from apps.policies import guardrails as keeping
from apps.policies.compiled import MAX_RULES, Guards
from apps.policies.guarding import Guarding, Verdict
from apps.policies.models import KINDS, MODES, GuardrailRule
from apps.policies.scanning import Blocked
from apps.portal.access import Access, organization_page
from apps.portal.guardrail_forms import FORMS, GuardrailForm, TryForm
from apps.portal.pages import render_page

MANAGE: Final = Capability.MANAGE_ORGANIZATION
EXPLAINED: Final = {
    "models": "Which models may be asked.",
    "pattern": "What an expression matches.",
    "keywords": "Words and phrases.",
    "personal_data": "Addresses and numbers of people.",
    "moderation": "What a moderation model flags.",
}


@dataclass(frozen=True)
class Tried:
    """What rules did with a text that was tried."""

    text: str
    verdicts: Sequence[Verdict]
    blocked_by: str = ""


@organization_page(get=MANAGE, post=MANAGE)
def guardrails(request: HttpRequest, access: Access) -> HttpResponse:
    """The rules; a POST reads a text with them."""
    form = TryForm(access.organization, request.POST if request.method == "POST" else None)
    if not form.is_bound:
        return _list(request, access, form)
    if not form.is_valid():
        return _list(request, access, form, status=422)
    return _list(request, access, form, tried=_tried(access, form))


@organization_page(get=MANAGE, post=MANAGE)
def new_guardrail(request: HttpRequest, access: Access, kind: str) -> HttpResponse:
    """The form of a new rule of this kind."""
    if kind not in FORMS or (kind == "moderation" and not keeping.moderation_is_offered()):
        raise Http404
    form = FORMS[kind](access.organization, request.POST or None)
    if form.is_bound and form.is_valid():
        try:
            row = keeping.add_guardrail(access.organization, form.draft(), created_by=access.user)
        except (InvalidInput, Conflict) as error:
            _refuse(form, error)
        else:
            messages.success(request, f"“{row.name}” is kept. It holds within a second.")
            return redirect("portal:guardrails", slug=access.organization.slug)
    return _page(request, access, form, kind)


@organization_page(get=MANAGE, post=MANAGE)
def guardrail(request: HttpRequest, access: Access, guardrail_id: str) -> HttpResponse:
    """One rule, to be changed."""
    row = _row(access, guardrail_id)
    form = FORMS[row.kind](access.organization, request.POST or None, row=row)
    if form.is_bound and form.is_valid():
        try:
            keeping.change_guardrail(row, form.draft())
        except (InvalidInput, Conflict) as error:
            _refuse(form, error)
            row = _row(access, guardrail_id)
        else:
            messages.success(request, f"“{row.name}” is changed. It holds so within a second.")
            return redirect("portal:guardrails", slug=access.organization.slug)
    return _page(request, access, form, row.kind, row=row)


@organization_page(post=MANAGE)
def switch_guardrail(request: HttpRequest, access: Access, guardrail_id: str) -> HttpResponse:
    """On, off or log only."""
    row = _row(access, guardrail_id)
    try:
        keeping.set_mode(row, request.POST.get("mode", ""))
    except (InvalidInput, Conflict) as error:
        messages.error(request, _words(error))
    else:
        messages.success(request, f"“{row.name}”: {dict(MODES)[row.mode].lower()}.")
    return redirect("portal:guardrails", slug=access.organization.slug)


@organization_page(get=MANAGE, post=MANAGE)
def delete_guardrail(request: HttpRequest, access: Access, guardrail_id: str) -> HttpResponse:
    """Asks, then forgets the rule."""
    row = _row(access, guardrail_id)
    if request.method == "POST":
        keeping.delete_guardrail(row)
        messages.success(request, f"“{row.name}” is deleted.")
        return redirect("portal:guardrails", slug=access.organization.slug)
    return render_page(request, access, "portal/delete_guardrail.html", {"row": row, "section": "guardrails"})


def _list(
    request: HttpRequest, access: Access, form: TryForm, *, tried: Tried | None = None, status: int = 200
) -> HttpResponse:
    rows = GuardrailRule.objects.for_organization(access.organization.id).select_related("key")
    context = {
        "rows": [{"row": row, "words": keeping.in_words(row)} for row in rows],
        "kinds": [(kind, name, EXPLAINED[kind]) for kind, name in KINDS if _is_offered(kind)],
        "modes": MODES,
        "most": MAX_RULES,
        "form": form,
        "tried": tried,
        "section": "guardrails",
    }
    response = render_page(request, access, "portal/guardrails.html", context, status=status)
    if form.is_bound:
        patch_cache_control(response, no_store=True)
    return response


def _is_offered(kind: str) -> bool:
    return kind != "moderation" or keeping.moderation_is_offered()


def _page(request: HttpRequest, access: Access, form: GuardrailForm, kind: str, *, row: Any = None) -> HttpResponse:
    context = {"form": form, "kind": dict(KINDS)[kind], "explained": EXPLAINED[kind], "row": row}
    status = 422 if form.is_bound else 200
    return render_page(request, access, "portal/guardrail.html", {**context, "section": "guardrails"}, status=status)


def _tried(access: Access, form: TryForm) -> Tried:
    chosen, key = form.cleaned_data, form.cleaned_data["key"]
    rows = GuardrailRule.objects.for_organization(access.organization.id)
    rules = keeping.guardrails_of([row for row in rows if row.key_id is None or (key and row.key_id == key.pk)])
    guarding = Guarding(Guards(rules))
    try:
        text = guarding.read(chosen["text"], chosen["side"])
    except Blocked as blocked:
        return Tried("", guarding.verdicts, blocked_by=blocked.guardrail.name)
    return Tried(text, guarding.verdicts)


def _row(access: Access, guardrail_id: str) -> GuardrailRule:
    rows = GuardrailRule.objects.for_organization(access.organization.id)
    row: GuardrailRule | None = rows.filter(pk=guardrail_id).first()
    if row is None:
        raise Http404
    return row


def _refuse(form: GuardrailForm, error: InvalidInput | Conflict) -> None:
    form.add_error(form.what[0] if isinstance(error, InvalidInput) else None, _words(error))


def _words(error: InvalidInput | Conflict) -> str:
    return sentence(error) if isinstance(error, InvalidInput) else f"{error.message[:1].upper()}{error.message[1:]}."
