"""Every setting, from the environment; docs/configuration.md explains each variable."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
from celery.schedules import crontab
from django.core.exceptions import ImproperlyConfigured

from apps.console.unfold import UNFOLD as UNFOLD
from apps.core.addresses import private_networks
from apps.core.crypto import parse_key_ring
from apps.core.logging import logging_settings
from crun.home import BASE_DIR, load_environment

HOME = load_environment()
env = environ.Env()

# --- the installation ---------------------------------------------------------------------------------------------
DEBUG = env.bool("DEBUG", default=False)
HOST = env.str("HOST", default="127.0.0.1")
PORT = env.int("PORT", default=8000)
PUBLIC_URL = env.str("CRUN_PUBLIC_URL", default=f"http://{HOST}:{PORT}").rstrip("/")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]", HOST])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[PUBLIC_URL])

# --- secrets: missing ones are system check errors (apps/core/checks.py), so that tools can load the settings ------
SECRET_KEY = env.str("CRUN_SECRET_KEY", default="")
_peppers = env.str("CRUN_KEY_PEPPERS", default="")
_encryption_keys = env.str("CRUN_ENCRYPTION_KEYS", default="")
KEY_PEPPERS = parse_key_ring(_peppers, variable="CRUN_KEY_PEPPERS") if _peppers else {}
ENCRYPTION_KEYS = parse_key_ring(_encryption_keys, variable="CRUN_ENCRYPTION_KEYS") if _encryption_keys else {}

# --- stores -------------------------------------------------------------------------------------------------------
REDIS_URL = env.str("REDIS_URL", default="") or HOME.redis_url()
DATABASE_ROLE = env.str("CRUN_DATABASE_ROLE", default="")  # which process this is; empty: the owner of the tables
_role_urls = {
    "gateway": env.str("CRUN_DATABASE_URL_GATEWAY", default=""),
    "worker": env.str("CRUN_DATABASE_URL_WORKER", default=""),
    "web": env.str("CRUN_DATABASE_URL_WEB", default=""),
}
_database_url = _role_urls.get(DATABASE_ROLE) or env.str("DATABASE_URL", default="")
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        **(env.db_url_config(_database_url) if _database_url else HOME.database_settings(DATABASE_ROLE)),
        # Under ASGI every page runs in a thread of its own, so a kept connection would be kept once for each page.
        "CONN_MAX_AGE": 0,
    }
}
DATABASES["default"]["OPTIONS"] = {
    "connect_timeout": 2,
    # A server that a network took away is noticed in seconds, not hours.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    **DATABASES["default"].get("OPTIONS", {}),
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
JOURNAL_DIR = Path(env.str("CRUN_JOURNAL_DIR", default="") or HOME.journal)
JOURNAL_MAX_BYTES = env.int("CRUN_JOURNAL_MAX_BYTES", default=1 << 30)
JOURNAL_FSYNC = env.str("CRUN_JOURNAL_FSYNC", default="never")
VENDOR_DRIFT_PERCENT = env.int("CRUN_VENDOR_DRIFT_PERCENT", default=5)
# Who moderates for guardrails: provider/model, such as openai/omni-moderation-latest.
MODERATION = env.str("CRUN_MODERATION", default="")
MODERATION_TIMEOUT_S = env.float("CRUN_MODERATION_TIMEOUT_S", default=2.0)
METRICS_TOKEN = env.str("CRUN_METRICS_TOKEN", default="")

# --- the gateway: every wait has a bound ----------------------------------------------------------------------------
PRIVATE_UPSTREAMS = private_networks(env.str("CRUN_PRIVATE_UPSTREAMS", default="on"))
ENTRA_AUTHORITY = env.str("CRUN_ENTRA_AUTHORITY", default="").rstrip("/")
UPSTREAM_CONNECT_TIMEOUT_S = env.float("CRUN_UPSTREAM_CONNECT_TIMEOUT_S", default=5.0)
UPSTREAM_FIRST_BYTE_TIMEOUT_S = env.float("CRUN_UPSTREAM_FIRST_BYTE_TIMEOUT_S", default=60.0)
UPSTREAM_IDLE_TIMEOUT_S = env.float("CRUN_UPSTREAM_IDLE_TIMEOUT_S", default=60.0)
UPSTREAM_TOTAL_TIMEOUT_S = env.float("CRUN_UPSTREAM_TOTAL_TIMEOUT_S", default=600.0)
CLIENT_WRITE_TIMEOUT_S = env.float("CRUN_CLIENT_WRITE_TIMEOUT_S", default=30.0)
HEARTBEAT_S = env.float("CRUN_HEARTBEAT_S", default=15.0)
STARTS_PER_TURN = env.int("CRUN_STARTS_PER_TURN", default=2)
SHED_LATE_S = [float(text) for text in env.list("CRUN_SHED_LATE_S", default=["0.25", "1", "2.5"])]
SHED_BUSY_PERCENT = env.int("CRUN_SHED_BUSY_PERCENT", default=50)
if SHED_LATE_S and (len(SHED_LATE_S) != 3 or sorted(SHED_LATE_S) != SHED_LATE_S or SHED_LATE_S[0] <= 0):
    raise ImproperlyConfigured("CRUN_SHED_LATE_S is three rising numbers of seconds above 0, or empty for no shedding.")

# --- repeated requests: answers are kept, encrypted, for those that bring an Idempotency-Key -------------------------
SHOW_PROVIDERS = env.bool("CRUN_SHOW_PROVIDERS", default=False)
IDEMPOTENCY = env.bool("CRUN_IDEMPOTENCY", default=True)
IDEMPOTENCY_TTL_S = env.int("CRUN_IDEMPOTENCY_TTL_S", default=86_400)
IDEMPOTENCY_MAX_BYTES = env.int("CRUN_IDEMPOTENCY_MAX_BYTES", default=1 << 18)
IDEMPOTENCY_WAIT_S = env.float("CRUN_IDEMPOTENCY_WAIT_S", default=30.0)

# --- the response cache: answers are kept, encrypted, for those that ask for it, or by a model's terms ----------------
CACHE = env.bool("CRUN_CACHE", default=True)
CACHE_TTL_S = env.int("CRUN_CACHE_TTL_S", default=300)
CACHE_PRICE_PPM = env.int("CRUN_CACHE_PRICE_PPM", default=0)
CACHE_MAX_BYTES = env.int("CRUN_CACHE_MAX_BYTES", default=1 << 18)

# --- the room that kept answers of both kinds share ------------------------------------------------------------------
ANSWERS_URL = env.str("CRUN_ANSWERS_URL", default="") or REDIS_URL
ANSWERS_BYTES = env.int("CRUN_ANSWERS_BYTES", default=1 << 28)
ANSWERS_ORGANIZATION_BYTES = env.int("CRUN_ANSWERS_ORGANIZATION_BYTES", default=1 << 26)

# --- stored responses: kept, encrypted, in PostgreSQL for requests of /responses that may go on from them -------------
RESPONSES_DAYS = env.int("CRUN_RESPONSES_DAYS", default=30)  # 0: none are stored
RESPONSES_MAX_BYTES = env.int("CRUN_RESPONSES_MAX_BYTES", default=8 << 20)
RESPONSES_ORGANIZATION_BYTES = env.int("CRUN_RESPONSES_ORGANIZATION_BYTES", default=1 << 30)

# --- payments: without a key there are none by card -----------------------------------------------------------------
STRIPE_SECRET_KEY = env.str("CRUN_STRIPE_SECRET_KEY", default="").strip()
STRIPE_WEBHOOK_SECRETS = env.list("CRUN_STRIPE_WEBHOOK_SECRETS", default=[])
STRIPE_API_URL = env.str("CRUN_STRIPE_API_URL", default="https://api.stripe.com").rstrip("/")
STRIPE_TIMEOUT_S = env.float("CRUN_STRIPE_TIMEOUT_S", default=20.0)
TOP_UP_MIN_USD = env.int("CRUN_TOP_UP_MIN_USD", default=5)
TOP_UP_MAX_USD = env.int("CRUN_TOP_UP_MAX_USD", default=5000)
AUTO_TOP_UP_MAX_FAILURES = env.int("CRUN_AUTO_TOP_UP_MAX_FAILURES", default=3)
if STRIPE_SECRET_KEY and not any(secret.strip() for secret in STRIPE_WEBHOOK_SECRETS):
    # Not a system check alone: no process of any kind may run in which an event could pass without a signature.
    raise ImproperlyConfigured(
        "CRUN_STRIPE_SECRET_KEY is set, but CRUN_STRIPE_WEBHOOK_SECRETS is empty: anybody could forge payments. "
        "Set it to the signing secret (whsec_...) of your webhook endpoint at Stripe."
    )

# --- Django -------------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "django.contrib.admin.apps.SimpleAdminConfig",  # its pages are loaded with their URLs, by those who serve them
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django.contrib.postgres",
    "rest_framework",
    "drf_spectacular",
    "allauth",
    "allauth.account",
    "apps.core",
    "apps.accounts",
    "apps.policies",
    "apps.keys",
    "apps.catalog",
    "apps.responses",
    "apps.usage",
    "apps.billing",
    "apps.gateway",
    "apps.api",
    "apps.portal",
    "apps.console",
]
MIDDLEWARE = [
    "apps.portal.security.ContentSecurityPolicy",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
]
ROOT_URLCONF = "crun.urls"
WSGI_APPLICATION = "crun.wsgi.application"
ASGI_APPLICATION = "crun.asgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]
LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # static files are served from where they lie; nothing has to be collected
LOGGING = logging_settings(level=env.str("CRUN_LOG_LEVEL", default="INFO"))

# --- people and their sessions ------------------------------------------------------------------------------------
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_EMAIL_VERIFICATION = env.str("CRUN_EMAIL_VERIFICATION", default="none")
SIGNUP_IS_OPEN = env.bool("CRUN_SIGNUP", default=True)
ACCOUNT_ADAPTER = "apps.portal.signup.AccountAdapter"
ACCOUNT_FORMS = {"signup": "apps.portal.signup.SignupForm"}
# Guessing is bounded for each address; the bound for each account is high, or anybody could lock anybody out.
ACCOUNT_RATE_LIMITS = {"login_failed": "10/m/ip,100/5m/key"}
ACCOUNT_SESSION_REMEMBER = True
ACCOUNT_LOGOUT_ON_GET = False
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))  # EMAIL_BACKEND, EMAIL_HOST, EMAIL_USE_TLS ...
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="CRUN <crun@localhost>")
EMAIL_TIMEOUT = 15  # seconds: a mail server that hangs must not hold a worker
OPERATOR_EMAILS = env.list("CRUN_OPERATOR_EMAILS", default=[])
WEBHOOKS_ALLOW_PRIVATE = env.bool("CRUN_WEBHOOKS_ALLOW_PRIVATE", default=False)
SESSION_COOKIE_AGE = int(timedelta(days=14).total_seconds())
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SECURE_REFERRER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", default=0)
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("CRUN_BEHIND_PROXY", default=False) else None
X_FRAME_OPTIONS = "DENY"

# --- Django REST framework and OpenAPI ------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "UNAUTHENTICATED_USER": None,
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
}
SPECTACULAR_SETTINGS = {"TITLE": "CRUN API", "VERSION": "1.0.0", "SERVE_INCLUDE_SCHEMA": False}

# --- Celery -------------------------------------------------------------------------------------------------------
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TIMEZONE = "UTC"
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "protocol": 2}
CELERY_BEAT_SCHEDULE = {
    "settle usage": {"task": "billing.settle_usage", "schedule": 1.0, "options": {"expires": 5}},
    "maintain partitions": {
        "task": "usage.maintain_partitions",
        "schedule": 3600.0,
        "options": {"expires": 600},
    },
    "forget responses": {"task": "responses.forget", "schedule": 600.0, "options": {"expires": 500}},
    "auto top-up": {"task": "billing.auto_top_up", "schedule": 60.0, "options": {"expires": 50}},
    "follow payments": {"task": "billing.follow_payments", "schedule": 60.0, "options": {"expires": 50}},
    "evaluate alerts": {"task": "alerts.evaluate", "schedule": 60.0, "options": {"expires": 50}},
    "look ahead for alerts": {"task": "alerts.look_ahead", "schedule": 300.0, "options": {"expires": 250}},
    "brake keys": {"task": "alerts.brake", "schedule": 5.0, "options": {"expires": 5}},
    "send alert e-mails": {"task": "alerts.send_emails", "schedule": 5.0, "options": {"expires": 5}},
    "prune deliveries": {"task": "alerts.prune", "schedule": 3600.0, "options": {"expires": 600}},
    "send webhooks": {"task": "api.send_webhooks", "schedule": 2.0, "options": {"expires": 5}},
    "expire grants": {"task": "billing.expire_grants", "schedule": 3600.0, "options": {"expires": 600}},
    "issue invoices": {"task": "billing.issue_invoices", "schedule": 60.0, "options": {"expires": 50}},
    "send invoices": {"task": "billing.send_invoices", "schedule": 60.0, "options": {"expires": 50}},
    # Hourly, not only on the 1st: a month is invoiced as soon as it is closed, also after a pause.
    "invoice months": {
        "task": "billing.invoice_months",
        "schedule": crontab(minute="20"),
        "options": {"expires": 3000},
    },
    "finish re-ratings": {"task": "billing.finish_reratings", "schedule": 5.0, "options": {"expires": 5}},
    "reconcile when asked": {"task": "billing.reconcile_asked", "schedule": 5.0, "options": {"expires": 5}},
    "prove the ledger": {
        "task": "billing.prove_ledger",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"expires": 3600},
    },
}
