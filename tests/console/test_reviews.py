"""The queue of usage to review: filled by recording, emptied by an operator's note; records stay as they are."""

from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.usage.models import UsageRecord, UsageReview
from tests.console.cast import Rows, add_record, add_review

LIST = "/console/usage/usagereview/"


def page_of(review: UsageReview) -> str:
    return reverse("console:usage_usagereview_change", args=[quote(review.pk)])


def found(response: Any) -> list[str]:
    assert response.status_code == 200
    return [review.request_id for review in response.context["cl"].result_list]


def test_a_note_takes_a_record_off_the_queue_and_says_who_looked(console: Client, operator: User, rows: Rows) -> None:
    later = add_review(add_record(rows.key, rows.model, rows.price), reason="usage is no object")
    assert found(console.get(LIST, {"state": "Waiting"})) == [later.pk, rows.review.pk]
    answer = console.post(page_of(rows.review), {"note": "Vendor sends text; told them."}, follow=True)
    assert "is marked as reviewed" in answer.content.decode()
    assert found(answer) == [later.pk]
    rows.review.refresh_from_db()
    assert (rows.review.note, rows.review.reviewed_by) == ("Vendor sends text; told them.", operator.email)
    assert rows.review.reviewed_at is not None
    assert found(console.get(LIST, {"state": "Reviewed"})) == [rows.review.pk]


def test_the_page_shows_what_was_told_and_what_is_billed(console: Client, rows: Rows) -> None:
    told = '{"prompt_tokens":3,"completion_tokens":"3"}'
    record = add_record(rows.key, rows.model, rows.price, raw_usage=told, review="wrong", estimated=True)
    shown = console.get(page_of(add_review(record))).content.decode()
    assert told.replace('"', "&quot;") in shown
    assert "1,000 tokens in, 20 out, by our own estimate: $0.000162000" in shown
    assert reverse("console:usage_usagerecord_change", args=[quote(record.pk)]) in shown


def test_a_review_needs_a_note(console: Client, rows: Rows) -> None:
    answer = console.post(page_of(rows.review), {"note": " "})
    assert answer.context["adminform"].form.errors["note"] == ["This field is required."]
    assert UsageReview.objects.get().reviewed_at is None


def test_a_review_changes_nothing_but_itself(console: Client, rows: Rows) -> None:
    before = UsageRecord.objects.values().get()
    console.post(page_of(rows.review), {"note": "Seen.", "reason": "mine", "provider": "mine"})
    assert UsageRecord.objects.values().get() == before
    review = UsageReview.objects.get()
    assert (review.reason, review.provider) == (rows.review.reason, rows.review.provider)


@pytest.mark.parametrize("page", ["add/", "{}/delete/"])
def test_nobody_adds_or_deletes_a_review(console: Client, rows: Rows, page: str) -> None:
    answer = console.post(LIST + page.format(quote(rows.review.pk)), {"note": "Gone", "post": "yes"})
    assert answer.status_code == 403
    assert UsageReview.objects.count() == 1
