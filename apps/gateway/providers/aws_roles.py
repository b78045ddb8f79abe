"""Short-lived credentials of AWS for roles: of this machine, or assumed. By botocore's own look-up, in a thread."""

import asyncio
from datetime import UTC, datetime
from typing import Any, Final

import botocore.session  # type: ignore[import-untyped]  # botocore has no types
from botocore.config import Config  # type: ignore[import-untyped]  # botocore has no types
from botocore.exceptions import (  # type: ignore[import-untyped]  # botocore has no types
    BotoCoreError,
    ClientError,
    NoCredentialsError,
)

from apps.gateway.providers.short_lived import Granted, NoCredential, Source

SESSION_S: Final = 3_600
"""Roles allow an hour, always."""
LOOKED_UP_S: Final = 240
"""What was looked up is looked up again after this: a machine has its next one five minutes before the last ends."""
_CONFIG: Final = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 1}, proxies={})
"""`proxies`: those of the environment are not asked, as for everything on the data path."""
_REFUSALS: Final = (400, 403)


async def role_credential(source: Source) -> Granted:
    """ACCESS_KEY_ID:SECRET_ACCESS_KEY:SESSION_TOKEN for the role of `source`, assumed with its secret (same form),
    or as this machine where there is none. Raises NoCredential."""
    return await asyncio.to_thread(_looked_up, source)


def _looked_up(source: Source) -> Granted:
    try:
        session = botocore.session.Session()
        if source.secret:
            session.set_credentials(*source.secret.split(":", 2))
        if source.role:
            return _assumed(session, source)
        found = session.get_credentials()
        if found is None:
            raise NoCredential("this machine has no role or credential of AWS", is_refused=True)
        keys = found.get_frozen_credentials()
        return Granted(":".join(filter(None, (keys.access_key, keys.secret_key, keys.token))), LOOKED_UP_S)
    except ClientError as error:
        answer = error.response
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(answer.get("Error", {}).get("Code", ""))[:60]
        raise NoCredential(f"AWS STS answered {status} ({code})", is_refused=status in _REFUSALS) from None
    except NoCredentialsError:
        raise NoCredential("there is no credential to assume the role with", is_refused=True) from None
    except (BotoCoreError, TypeError) as error:  # its messages may have addresses and parts of answers in them
        raise NoCredential(f"AWS gave no credential: {type(error).__name__}") from None


def _assumed(session: Any, source: Source) -> Granted:
    sts = session.create_client("sts", region_name=source.place, config=_CONFIG)
    try:
        answer = sts.assume_role(RoleArn=source.role, RoleSessionName="crun", DurationSeconds=SESSION_S)
    finally:
        sts.close()
    keys = answer["Credentials"]
    lifetime_s = (keys["Expiration"] - datetime.now(UTC)).total_seconds()
    if lifetime_s <= 0:
        raise NoCredential("AWS STS gave a credential that has ended")
    return Granted(f"{keys['AccessKeyId']}:{keys['SecretAccessKey']}:{keys['SessionToken']}", lifetime_s)
