"""Tests deploy/deploy with the real AWS CLI against an AWS API on loopback: its changes, its output and its errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import aws
import pytest
from aws import Account, Ran
from containers import Engine
from running import ROOT, Running, service

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(600)]

KEY = "00112233445566778899aabbccddeeff"
NOWHERE = "http://127.0.0.1:1"
DENIED = "An error occurred (AccessDeniedException) when calling the GetSecretValue operation: User is not authorized"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An AWS account; image builds are only recorded."""
    with aws.account(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.fixture(scope="module")
def versions() -> Iterator[dict[str, Running]]:
    """The service in two versions, in place of the load balancers, which the API does not run."""
    with service(NOWHERE, {"DD_VERSION": "1.0.0"}) as one, service(NOWHERE, {"DD_VERSION": "2.0.0"}) as two:
        yield {"1.0.0": one, "2.0.0": two}


def sets(account: Account) -> list[str]:
    return [part for name, value in account.network().items() for part in ("--set", f"{name}={value}")]


def ok(ran: Ran, code: int = 0) -> Ran:
    assert ran.code == code, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    assert KEY not in ran.stdout + ran.stderr
    assert KEY not in json.dumps(ran.commands)
    return ran


def actions(command: list[str]) -> set[str]:
    """Return the IAM actions that a command of the AWS CLI needs."""
    service, verb = command[:2]
    if service in {"docker", "sts"}:
        return set()
    verb = {
        "wait": f"describe-{command[2].partition('-')[0].rstrip('s')}s",
        "get-login-password": "get-authorization-token",
    }.get(verb, verb)
    return {f"{service}:{''.join(part.capitalize() for part in verb.split('-'))}"}


def allowed() -> set[str]:
    """Return the actions of DeployRole."""
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    role = template[template.index("  DeployRole:") : template.index("  Scaling:")].split("Policies:")[1]
    return set(re.findall(r"\b(?:cloudformation|secretsmanager|ecr|ecs|iam):\w+", role))


def revisions(account: Account, family: str) -> list[str]:
    found: list[str] = account.client("ecs").list_task_definitions(familyPrefix=family)["taskDefinitionArns"]
    return found


def test_a_service_is_deployed_updated_rolled_back_and_deleted(account: Account, versions: dict[str, Running]) -> None:
    """Each run makes only the changes that are left to make, and ends with a request to the right version."""
    first_up = ["up", "--version", "1.0.0", "--url", versions["1.0.0"].url]
    first_up += ["--env", "staging", "--site", "datadoghq.eu", "--sample-rate", "0.1", *sets(account)]
    again, next_up = first_up[:5], ["up", "--version", "2.0.0", "--url", versions["2.0.0"].url]
    ecs, secrets, ecr = account.client("ecs"), account.client("secretsmanager"), account.client("ecr")

    first = ok(account.deploy(*first_up, DD_API_KEY=KEY))
    (secret,) = secrets.list_secrets()["SecretList"]
    assert first.changes == [
        "cloudformation create-stack",
        "secretsmanager put-secret-value",
        "secretsmanager tag-resource",
        "docker build",
        "docker login",
        "docker push",
        "ecs register-task-definition",
        "cloudformation update-stack",
        "cloudformation update-termination-protection",
        "ecs tag-resource",
    ]
    assert json.loads(secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"]) == {"DD_API_KEY": KEY}
    (running,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert running["taskDefinition"].endswith("task-definition/hello-service:1")
    assert "/health: 200, version 1.0.0" in first.stdout

    with account.stubbed(secretsmanager__get_secret_value=DENIED):
        second = ok(account.deploy(*again, DD_API_KEY=KEY))
    assert second.changes == []
    assert "env staging, site datadoghq.eu, sample rate 0.1\n" in second.stdout.partition("\n")[0] + "\n"
    assert second.stdout.count("unchanged") == 3
    assert len(revisions(account, "hello-service")) == 1

    updated = ok(account.deploy(*next_up))
    assert updated.changes == [
        "docker build",
        "docker login",
        "docker push",
        "ecs register-task-definition",
        "cloudformation update-stack",
        "ecs tag-resource",
    ]
    # The role for a workflow may do each of these commands.
    needed = {action for command in updated.commands for action in actions(command)}
    assert needed <= allowed()
    images = ecr.list_images(repositoryName="hello-service")["imageIds"]
    assert {each["imageTag"] for each in images} == {"1.0.0", "2.0.0"}
    described = ecs.describe_task_definition(taskDefinition="hello-service:2")["taskDefinition"]
    assert {"name": "DD_TRACE_SAMPLE_RATE", "value": "0.1"} in described["containerDefinitions"][0]["environment"]
    assert {"name": "DD_SITE", "value": "datadoghq.eu"} in described["containerDefinitions"][1]["environment"]
    assert described["containerDefinitions"][0]["image"].endswith("/hello-service:2.0.0")

    # A revision that did not become stable, and ten that never ran.
    for _ in range(10):
        ecs.register_task_definition(family="hello-service", containerDefinitions=described["containerDefinitions"])
    third = ok(account.deploy("up", "--version", "3.0.0", "--url", versions["2.0.0"].url, "--patience", "0"), code=1)
    assert "version 2.0.0 responds, not 3.0.0" in third.stderr
    back = ok(account.deploy("rollback", "--url", versions["2.0.0"].url))
    assert back.changes == ["cloudformation update-stack"]
    assert "from hello-service:13 back to hello-service:2" in back.stdout
    ok(account.deploy("rollback", "--url", versions["1.0.0"].url))
    (running,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert running["taskDefinition"].endswith(":1")
    no_further = account.deploy("rollback")
    assert (no_further.code, no_further.changes) == (1, [])
    assert "No revision before hello-service:1 was stable" in no_further.stderr
    assert "There is no task definition hello-service:99." in account.deploy("rollback", "--to", "99").stderr

    protected = account.deploy("destroy", "--yes")
    assert (protected.code, protected.changes) == (1, [])
    lift = "deploy/deploy unprotect --stack hello-service --region eu-west-1"
    assert protected.stderr.splitlines()[1] == lift
    unprotected = ok(account.run([str(ROOT / lift.split(maxsplit=1)[0]), *lift.split()[1:]]))
    assert unprotected.changes == ["cloudformation update-termination-protection", "cloudformation update-stack"]
    for typed in ("no\n", ""):
        kept = account.deploy("destroy", stdin=typed)
        assert (kept.code, kept.changes, "Nothing is deleted" in kept.stderr) == (1, [], True)
    gone = ok(account.deploy("destroy", stdin="hello-service\n"))
    assert gone.changes[0] == "cloudformation delete-stack"
    assert revisions(account, "hello-service") == []
    assert secrets.list_secrets()["SecretList"] == []
    again_gone = ok(account.deploy("destroy", "--yes"))
    assert (again_gone.changes, "There is no stack hello-service" in again_gone.stdout) == ([], True)


def test_a_dry_run_changes_nothing_and_shows_the_definition(account: Account) -> None:
    """It prints every command that would be run, and the filled-in JSON."""
    dry = ok(account.deploy("up", "--dry-run", "--stack", "dry", "--version", "3.0.0", *sets(account), DD_API_KEY=KEY))
    shown = json.loads(dry.stdout[dry.stdout.index("{\n") : dry.stdout.index("\n}\n") + 2])

    assert dry.changes == []
    assert shown["family"] == "dry"
    assert shown["containerDefinitions"][0]["image"].endswith(":3.0.0")
    assert dry.stdout.count("would run: aws cloudformation create-stack --stack-name dry") == 1
    assert dry.stdout.count("would run: aws cloudformation update-stack --stack-name dry") == 1
    assert "--secret-string file:///dev/stdin" in dry.stdout


def test_missing_credentials_are_reported(account: Account) -> None:
    """They are reported before any change."""
    without = {**account.environment, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ran = Account(account.url, account.place, without).deploy("up", "--version", "1")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.stderr.startswith("deploy: No usable AWS credentials: ")


def test_a_region_is_needed(account: Account) -> None:
    """Neither a variable nor the CLI's configuration sets one."""
    ran = account.deploy("up", "--version", "1", AWS_DEFAULT_REGION="")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.stderr == "deploy: No region: set AWS_DEFAULT_REGION, or add --region eu-west-1.\n"


def test_a_region_that_does_not_respond_is_reported(account: Account) -> None:
    """This is what a misspelled region looks like."""
    ran = account.deploy(
        "up", "--version", "1", "--region", "eu-wset-1", AWS_ENDPOINT_URL=NOWHERE, AWS_MAX_ATTEMPTS="1"
    )

    assert ran.code == 1
    assert ran.stderr.startswith("deploy: The region eu-wset-1 does not respond")


def test_a_network_of_another_region_is_reported(account: Account) -> None:
    """The wrong region is the usual reason."""
    elsewhere = account.client("ec2", "us-east-1").describe_vpcs()["Vpcs"][0]["VpcId"]
    ran = account.deploy("up", "--stack", "far", "--version", "1", *sets(account), "--set", f"VpcId={elsewhere}")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.stderr == f"deploy: {elsewhere} is not in eu-west-1: is that the right region?\n"


def test_all_parameters_without_a_value_are_reported(account: Account) -> None:
    ran = account.deploy("up", "--stack", "new", "--version", "1", "--set", "VpcId=vpc-1")

    assert (ran.code, ran.changes) == (1, [])
    needed = "--set LoadBalancerSubnets=..., --set TaskSubnets=..., --set AllowedCidr=..."
    assert ran.stderr == f"deploy: The stack needs {needed}\n"


def test_a_placeholder_without_a_value_is_reported(account: Account, tmp_path: Path) -> None:
    """A user's own placeholder is reported before any change; --fill sets its value."""
    text = (ROOT / "deploy" / "task-definition.json").read_text()
    own = tmp_path / "task-definition.json"
    own.write_text(text.replace('"${SAMPLE_RATE}"', '"${MY_RATE}"'))
    up = ["up", "--dry-run", "--stack", "own", "--version", "1", "--task-definition", str(own), *sets(account)]
    ran = account.deploy(*up)
    filled = ok(account.deploy(*up, "--fill", "MY_RATE=0.25"))

    assert ran.code == 1
    assert ran.stderr == (
        "deploy: The task definition has placeholders without a value: MY_RATE. Add --fill MY_RATE=....\n"
    )
    assert '"value": "0.25"' in filled.stdout


def test_a_key_is_needed_once(account: Account) -> None:
    """Without a key in the secret or in the environment, nothing is built or run."""
    ran = account.deploy("up", "--stack", "keyless", "--version", "1", *sets(account))

    assert (ran.code, ran.changes) == (1, [])
    assert ran.stderr == "deploy: The secret has no Datadog API key yet: set DD_API_KEY.\n"


def test_the_reason_of_a_rollback_is_shown(account: Account) -> None:
    """It is the first resource that failed, not those that were cancelled because of it; the next run shows what to do."""
    with aws.cloudformation_that_rolls_back() as url:
        up = ["up", "--version", "1", *sets(account)]
        ran = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url, DD_API_KEY=KEY)
        next_run = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url)

    reason = "LoadBalancer: At least two subnets in two different Availability Zones must be specified"
    assert ran.code == 1
    destroy = "run deploy/deploy destroy --stack hello-service --region eu-west-1"
    assert f"The stack hello-service is ROLLBACK_COMPLETE. {reason}. It could not be created." in ran.stderr
    assert next_run.changes == []
    assert f"The stack hello-service is ROLLBACK_COMPLETE ({reason}). " in next_run.stderr
    assert destroy in ran.stderr
    assert destroy in next_run.stderr


def test_outside_of_git_a_version_is_needed(account: Account, tmp_path: Path) -> None:
    """Without a commit, there is no name for the image."""
    copy = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy", copy, ignore=shutil.ignore_patterns("__pycache__"))
    ran = account.run([str(copy / "deploy"), "up"])

    assert ran.code == 1
    assert "not a git checkout: add --version" in ran.stderr


def test_a_service_of_another_version_fails_the_deployment(account: Account, versions: dict[str, Running]) -> None:
    """The request at the end checks the version, not only that there is a response."""
    up = ["up", "--stack", "other", "--version", "5.0.0", "--url", versions["1.0.0"].url, "--patience", "1"]
    ran = account.deploy(*up, *sets(account), DD_API_KEY=KEY)

    assert ran.code == 1
    assert "version 1.0.0 responds, not 5.0.0." in ran.stderr


def test_all_malformed_options_are_reported_by_name_and_value(account: Account) -> None:
    """They are reported before any command runs."""
    options = ["--sample-rate", "10%", "--site", "https://app.datadoghq.eu", "--version", "my version/1"]
    ran = ok(account.deploy("up", *options, "--set", "VpcID=vpc-1", *sets(account), DD_API_KEY=KEY), code=1)
    names = [each.strip().split(":")[0] for each in ran.stderr.splitlines()]

    assert ran.commands == []
    assert names[1:] == ["--version my version/1", "--site https", "--sample-rate 10%", "--set VpcID=vpc-1"]


@pytest.mark.parametrize("option", [["--stack", "Hello"], ["--stack", "hello-"], ["--region", "nowhere"]])
def test_a_malformed_stack_or_region_is_rejected(account: Account, option: list[str]) -> None:
    ran = ok(account.deploy("up", "--version", "1", *option, DD_API_KEY=KEY), code=1)

    assert ran.changes == []
    assert option[1] in ran.stderr


def test_a_mistake_in_the_task_definition_stops_a_deployment(account: Account, tmp_path: Path) -> None:
    """check.py reads the filled-in file before the stack is made."""
    own = tmp_path / "own.json"
    text = (ROOT / "deploy" / "task-definition.json").read_text()
    own.write_text(text.replace('"stopTimeout": 60', '"stopTimeout": 600'))
    for dry in ([], ["--dry-run"]):
        ran = account.deploy(
            "up", *dry, "--version", "1", "--task-definition", str(own), *sets(account), DD_API_KEY=KEY
        )

        assert (ran.code, ran.changes) == (1, [])
        assert "check.py found mistakes" in ran.stderr
        assert "stopTimeout" in ran.stderr


def test_plain_http_for_the_internet_needs_a_flag(account: Account) -> None:
    """A certificate or an internal load balancer makes the flag unnecessary."""
    up = ["up", "--dry-run", "--stack", "open", "--version", "1", *sets(account), "--set", "AllowedCidr=0.0.0.0/0"]
    certificate = "CertificateArn=arn:aws:acm:eu-west-1:123456789012:certificate/x"
    refused = ok(account.deploy(*up, DD_API_KEY=KEY), code=1)

    assert "AllowedCidr=0.0.0.0/0 without CertificateArn" in refused.stderr
    assert "--allow-open-http" in refused.stderr
    for options in (["--allow-open-http"], ["--set", "Scheme=internal"], ["--set", certificate]):
        ok(account.deploy(*up, *options, DD_API_KEY=KEY))


@pytest.mark.parametrize(
    ("parameters", "trusted"),
    [
        ([], "false"),
        (["Scheme=internal"], "true"),
        (["TrustTraceHeaders=true"], "true"),
        (["Scheme=internal", "TrustTraceHeaders=false"], "false"),
    ],
)
def test_trace_headers_from_the_internet_are_not_trusted(account: Account, parameters: list[str], trusted: str) -> None:
    """By default the service continues a caller's trace only where callers are inside the network."""
    given = [part for each in parameters for part in ("--set", each)]
    dry = ok(account.deploy("up", "--dry-run", "--stack", "trust", "--version", "1", *sets(account), *given))
    shown = json.loads(dry.stdout[dry.stdout.index("{\n") : dry.stdout.index("\n}\n") + 2])

    assert {"name": "TRUST_TRACE_HEADERS", "value": trusted} in shown["containerDefinitions"][0]["environment"]


def described(status: str, **more: object) -> dict[str, object]:
    stack = {"StackName": "hello-service", "StackStatus": status, "CreationTime": "2026-01-01T00:00:00Z"}
    return {"Stacks": [{**stack, "Parameters": [{"ParameterKey": "TaskDefinition", "ParameterValue": ""}], **more}]}


EVENTS = {
    "StackEvents": [
        {
            "LogicalResourceId": "Cluster",
            "ResourceType": "AWS::ECS::Cluster",
            "ResourceStatus": "UPDATE_FAILED",
            "ResourceStatusReason": "Unable to assume the service linked role",
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --stack-name hello-service"),
        ("UPDATE_FAILED", "aws cloudformation rollback-stack --stack-name hello-service"),
        ("ROLLBACK_COMPLETE", "run deploy/deploy destroy"),
        ("ROLLBACK_FAILED", "run deploy/deploy destroy"),
        ("CREATE_FAILED", "run deploy/deploy destroy"),
        ("DELETE_FAILED", "run deploy/deploy destroy"),
        ("REVIEW_IN_PROGRESS", "run deploy/deploy destroy"),
        ("UPDATE_IN_PROGRESS", "wait until"),
    ],
)
def test_a_stack_that_can_not_be_changed_is_reported_with_advice(account: Account, status: str, advice: str) -> None:
    """The error shows the state, the reason of the first resource that failed, and the next command."""
    responses = {"cloudformation__describe_stacks": described(status), "cloudformation__describe_stack_events": EVENTS}
    with account.stubbed(**responses):
        for command in (["up", "--version", "1"], ["rollback"]):
            ran = ok(account.deploy(*command), code=1)

            assert ran.changes == []
            assert status in ran.stderr
            assert advice.lower() in ran.stderr.lower()
            assert "create-service-linked-role" in ran.stderr or "IN_PROGRESS" in status


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("An error occurred (ExpiredToken) when calling the DescribeStacks operation: expired", "sign in again"),
        ("An error occurred (AccessDenied) when calling DescribeStacks: not authorized", '"Rights"'),
        ("An error occurred (Throttling) when calling DescribeStacks: Rate exceeded", "wait a minute"),
        ("Something else", "Correct"),
    ],
)
def test_an_error_of_aws_comes_with_advice(account: Account, message: str, advice: str) -> None:
    with account.stubbed(cloudformation__describe_stacks=message):
        ran = ok(account.deploy("up", "--version", "1"), code=1)

    assert ran.stderr.startswith("deploy: aws cloudformation describe-stacks failed: ")
    assert message in ran.stderr
    assert advice in ran.stderr


def test_the_pushed_image_is_built_by_the_engine(engine: Engine, versions: dict[str, Running], tmp_path: Path) -> None:
    """The build command of deploy/deploy, with the platform of the stack, produces an image of that version."""
    with aws.account(tmp_path, engine.environment) as account:
        up = ["up", "--version", "2.0.0", "--url", versions["2.0.0"].url, *sets(account)]
        ran = ok(account.deploy(*up, DD_API_KEY=KEY))
        (build,) = [command for command in ran.commands if command[:2] == ["docker", "build"]]
        tag = build[build.index("--tag") + 1]
        built = engine.inspect(tag)
        engine.docker("rmi", tag)

    assert build[build.index("--platform") + 1] == "linux/amd64"
    assert "DD_VERSION=2.0.0" in built["Config"]["Env"]
    assert tag == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/hello-service:2.0.0"
