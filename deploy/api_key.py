"""Stores the Datadog API key in Secrets Manager, through standard input.

A key that this module stored is recognized by a hash in a tag of the secret, so it is never read. A key that another
tool stored is read.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import re
import sys

from aws_cli import NOT_YET, Aws, AwsError, Failure, echo

# The form of a Datadog API key.
KEY_FORM = re.compile(r"[0-9a-fA-F]{32}")
# Tag of the secret: a version of the secret, and a hash of the key in that version.
FINGERPRINT_TAG = "hello-service:key"
NO_KEY = "The secret has no Datadog API key yet: set DD_API_KEY."


def store(aws: Aws, arn: str) -> str:
    """Store the API key unless the secret has it already. Return the version of the secret that contains the key."""
    key = os.environ.get("DD_API_KEY", "")
    secret = aws.run("secretsmanager", "describe-secret", "--secret-id", arn) if arn != NOT_YET else {}
    if secret.get("DeletedDate"):
        raise Failure(
            f"The secret {arn} is scheduled for deletion. Run aws secretsmanager restore-secret --secret-id {arn}, "
            "then the same command again."
        )
    tags = {tag["Key"]: tag.get("Value", "") for tag in secret.get("Tags", [])}
    stages_by_version = secret.get("VersionIdsToStages", {})
    current_version = next((version for version, stages in stages_by_version.items() if "AWSCURRENT" in stages), "")
    tagged_version, _, fingerprint = tags.get(FINGERPRINT_TAG, "").partition(":")
    is_own_key = bool(current_version) and tagged_version == current_version
    if is_own_key and (not key or fingerprint == _fingerprint(arn, key)):
        echo("  unchanged")
        return current_version
    is_from_other_tool = bool(current_version) and not is_own_key
    stored_key, problem = _stored_key(aws, arn) if is_from_other_tool else ("", "")
    if not key and problem:
        raise Failure(f'The secret {problem}. Set DD_API_KEY: deploy/deploy up stores it as {{"DD_API_KEY": "..."}}.')
    if not key and not current_version and sys.stdin.isatty():
        key = getpass.getpass("  Datadog API key: ")
    if not key and not current_version and not aws.dry_run:
        raise Failure(NO_KEY)
    # The stored key stays if DD_API_KEY is unset, or is the same key.
    if (not key and current_version) or (key and key == stored_key):
        echo("  unchanged")
        return current_version
    command = ["put-secret-value", "--secret-id", arn, "--secret-string", "file:///dev/stdin"]
    response = aws.change("secretsmanager", *command, stdin=json.dumps({"DD_API_KEY": key}))
    version = str((response or {}).get("VersionId", ""))
    # A dry run has no version, so the command that it prints contains the word instead.
    tag = f"Key={FINGERPRINT_TAG},Value={version or 'VERSION'}:{_fingerprint(arn, key)}"
    aws.change("secretsmanager", "tag-resource", "--secret-id", arn, "--tags", tag)
    consequence = "; running tasks are replaced in step 5, because they keep the old key" if current_version else ""
    echo("  would be stored" if aws.dry_run else f"  stored{consequence}")
    return version


def _stored_key(aws: Aws, arn: str) -> tuple[str, str]:
    """Return the key that another tool stored, and the problem with the secret's content.

    The key is "" if there is a problem, and the problem is "" if the key is valid. Both are "" if these credentials
    may not read the secret.
    """
    try:
        secret = aws.run("secretsmanager", "get-secret-value", "--secret-id", arn)
    except AwsError as error:
        if "AccessDenied" not in str(error):
            raise
        echo("  not verified: these credentials may not read the secret")
        return "", ""
    requirement = "The task reads the field DD_API_KEY of a JSON object"
    try:
        value = json.loads(secret["SecretString"])
        key = value["DD_API_KEY"]
    except KeyError as error:
        return "", f"has no {error.args[0]}. {requirement}"
    except ValueError:
        return "", f"holds plain text. {requirement}"
    except TypeError:
        return "", f"is JSON, but not an object. {requirement}"
    if not isinstance(key, str) or not KEY_FORM.fullmatch(key):
        return "", "holds a DD_API_KEY that is not 32 hexadecimal digits"
    return key, ""


def _fingerprint(arn: str, key: str) -> str:
    """Return a short hash that differs between keys and does not reveal the key.

    The ARN of the secret is hashed with the key, so equal keys of two secrets have different hashes.
    """
    return hashlib.sha256(f"{arn} {key}".encode()).hexdigest()[:16]
