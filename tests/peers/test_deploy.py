"""Tests of deploy/deploy with the real AWS CLI and a fake AWS API: its changes, its output and its errors."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws
import pytest
from aws import Account, CommandResult
from containers import Engine
from running import ROOT, Running, service

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(600)]

KEY = "00112233445566778899aabbccddeeff"
NO_SERVER = "http://127.0.0.1:1"  # nothing listens there
ACCESS_DENIED = (
    "An error occurred (AccessDeniedException) when calling the GetSecretValue operation: User is not authorized"
)


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """Run a fake AWS account for all tests of this module. Image builds are only recorded."""
    with aws.account(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.fixture(scope="module")
def versions() -> Iterator[dict[str, Running]]:
    """Run the service in two versions. They stand in for load balancers, because the fake account runs none."""
    with service(NO_SERVER, {"DD_VERSION": "1.0.0"}) as first, service(NO_SERVER, {"DD_VERSION": "2.0.0"}) as second:
        yield {"1.0.0": first, "2.0.0": second}


def network_options(account: Account) -> list[str]:
    """Return `--set` options for the parameters without a default."""
    options = []
    for name, value in account.network().items():
        options += ["--set", f"{name}={value}"]
    return options


def verified(result: CommandResult, code: int = 0) -> CommandResult:
    """Verify that the exit code is `code`, and that `result` has neither a traceback nor the key. Return `result`."""
    assert result.code == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert KEY not in result.stdout + result.stderr
    assert KEY not in json.dumps(result.commands)
    return result


def required_action(command: list[str]) -> str | None:
    """Return the IAM action that an AWS or docker command requires, or None if it requires none."""
    service, verb = command[:2]
    if service in {"docker", "sts"}:
        return None
    if verb == "wait":  # for example, `ecs wait services-stable` calls DescribeServices
        resource = command[2].partition("-")[0].removesuffix("s")
        verb = f"describe-{resource}s"
    elif verb == "get-login-password":
        verb = "get-authorization-token"
    action = "".join(part.capitalize() for part in verb.split("-"))
    return f"{service}:{action}"


def allowed_actions() -> set[str]:
    """Return the IAM actions that deploy/stack.yaml allows DeployRole."""
    template = (ROOT / "deploy" / "stack.yaml").read_text()
    role = template[template.index("  DeployRole:") : template.index("  Scaling:")]  # the next resource
    policies = role.split("Policies:")[1]
    return set(re.findall(r"\b(?:cloudformation|secretsmanager|ecr|ecs|iam):\w+", policies))


def revision_arns(account: Account, family: str) -> list[str]:
    """Return the ARNs of the revisions of a task definition."""
    arns: list[str] = account.client("ecs").list_task_definitions(familyPrefix=family)["taskDefinitionArns"]
    return arns


def printed_definition(result: CommandResult) -> dict[str, Any]:
    """Return the task definition that a dry run printed."""
    match = re.search(r"^\{\n.*?\n\}\n", result.stdout, re.DOTALL | re.MULTILINE)
    assert match, result.stdout
    return dict(json.loads(match[0]))


def test_a_service_is_deployed_updated_rolled_back_and_deleted(account: Account, versions: dict[str, Running]) -> None:
    """Each run makes only the changes that are still needed, and ends with a request to the right version."""
    up_1 = ["up", "--version", "1.0.0", "--url", versions["1.0.0"].url]
    up_2 = ["up", "--version", "2.0.0", "--url", versions["2.0.0"].url]
    options = ["--env", "staging", "--site", "datadoghq.eu", "--sample-rate", "0.1", *network_options(account)]
    ecs, secrets, ecr = account.client("ecs"), account.client("secretsmanager"), account.client("ecr")

    first_run = verified(account.deploy(*up_1, *options, DD_API_KEY=KEY))
    (secret,) = secrets.list_secrets()["SecretList"]
    assert first_run.changes == [
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
    (ecs_service,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert ecs_service["taskDefinition"].endswith("task-definition/hello-service:1")
    assert "/health: 200, version 1.0.0" in first_run.stdout

    # The second run doesn't need the right to read the secret.
    with account.stubbed(secretsmanager__get_secret_value=ACCESS_DENIED):
        second_run = verified(account.deploy(*up_1, DD_API_KEY=KEY))
    assert second_run.changes == []
    assert second_run.stdout.splitlines()[0].endswith("env staging, site datadoghq.eu, sample rate 0.1")
    assert second_run.stdout.count("unchanged") == 3  # the stack, the key, and the stack with the task definition
    assert len(revision_arns(account, "hello-service")) == 1

    update = verified(account.deploy(*up_2))
    assert update.changes == [
        "docker build",
        "docker login",
        "docker push",
        "ecs register-task-definition",
        "cloudformation update-stack",
        "ecs tag-resource",
    ]
    # .github/workflows/deploy.yml deploys with DeployRole, which allows each of these commands.
    required_actions = {action for command in update.commands if (action := required_action(command))}
    assert required_actions <= allowed_actions()
    images = ecr.list_images(repositoryName="hello-service")["imageIds"]
    assert {image["imageTag"] for image in images} == {"1.0.0", "2.0.0"}
    revision = ecs.describe_task_definition(taskDefinition="hello-service:2")["taskDefinition"]
    service_container, agent_container = revision["containerDefinitions"]
    assert {"name": "DD_TRACE_SAMPLE_RATE", "value": "0.1"} in service_container["environment"]
    assert {"name": "DD_SITE", "value": "datadoghq.eu"} in agent_container["environment"]
    assert service_container["image"].endswith("/hello-service:2.0.0")

    # A rollback skips ten revisions (3 to 12) that never ran, and one (13) that did not become stable.
    for _ in range(10):  # so that some numbers have two digits: they must not be compared as text
        ecs.register_task_definition(family="hello-service", containerDefinitions=revision["containerDefinitions"])
    up_3 = ["up", "--version", "3.0.0", "--url", versions["2.0.0"].url, "--patience", "0"]
    unstable_update = verified(account.deploy(*up_3), code=1)
    assert "version 2.0.0 responds, not 3.0.0" in unstable_update.stderr
    rollback = verified(account.deploy("rollback", "--url", versions["2.0.0"].url))
    assert rollback.changes == ["cloudformation update-stack"]
    assert "from hello-service:13 back to hello-service:2" in rollback.stdout
    verified(account.deploy("rollback", "--url", versions["1.0.0"].url))
    (ecs_service,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert ecs_service["taskDefinition"].endswith(":1")
    rollback_without_target = account.deploy("rollback")
    assert (rollback_without_target.code, rollback_without_target.changes) == (1, [])
    assert "No revision before hello-service:1 was stable" in rollback_without_target.stderr
    assert "There is no task definition hello-service:99." in account.deploy("rollback", "--to", "99").stderr

    # The error for a protected stack has the command that lifts the protection.
    rejected_destroy = account.deploy("destroy", "--yes")
    assert (rejected_destroy.code, rejected_destroy.changes) == (1, [])
    unprotect = "deploy/deploy unprotect --stack hello-service --region eu-west-1"
    assert rejected_destroy.stderr.splitlines()[1] == unprotect
    program, *arguments = unprotect.split()
    unprotect_run = verified(account.run([str(ROOT / program), *arguments]))
    assert unprotect_run.changes == ["cloudformation update-termination-protection", "cloudformation update-stack"]

    # Only the name of the stack confirms the deletion.
    for answer in ("no\n", ""):
        unconfirmed_destroy = account.deploy("destroy", stdin=answer)
        assert (unconfirmed_destroy.code, unconfirmed_destroy.changes) == (1, [])
        assert "Nothing is deleted" in unconfirmed_destroy.stderr
    destroy = verified(account.deploy("destroy", stdin="hello-service\n"))
    assert destroy.changes[0] == "cloudformation delete-stack"
    assert revision_arns(account, "hello-service") == []
    assert secrets.list_secrets()["SecretList"] == []
    second_destroy = verified(account.deploy("destroy", "--yes"))
    assert second_destroy.changes == []
    assert "There is no stack hello-service" in second_destroy.stdout


def test_a_dry_run_changes_nothing_and_shows_the_definition(account: Account) -> None:
    """A dry run also prints every command that it would run."""
    up = ["up", "--dry-run", "--stack", "dry", "--version", "3.0.0", *network_options(account)]
    result = verified(account.deploy(*up, DD_API_KEY=KEY))
    definition = printed_definition(result)

    assert result.changes == []
    assert definition["family"] == "dry"
    assert definition["containerDefinitions"][0]["image"].endswith(":3.0.0")
    assert result.stdout.count("would run: aws cloudformation create-stack --stack-name dry") == 1
    assert result.stdout.count("would run: aws cloudformation update-stack --stack-name dry") == 1
    assert "--secret-string file:///dev/stdin" in result.stdout


def test_missing_credentials_are_reported_before_any_change(account: Account) -> None:
    result = account.deploy("up", "--version", "1", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")

    assert (result.code, result.changes) == (1, [])
    assert result.stderr.startswith("deploy: No usable AWS credentials: ")


def test_a_missing_region_is_reported(account: Account) -> None:
    """Neither a variable nor the AWS CLI's configuration sets a region."""
    result = account.deploy("up", "--version", "1", AWS_DEFAULT_REGION="")

    assert (result.code, result.changes) == (1, [])
    assert result.stderr == "deploy: No region: set AWS_DEFAULT_REGION, or add --region eu-west-1.\n"


def test_a_region_that_does_not_respond_is_reported(account: Account) -> None:
    """The usual reason is a misspelled region: AWS has no endpoint for it."""
    result = account.deploy(
        "up", "--version", "1", "--region", "eu-wset-1", AWS_ENDPOINT_URL=NO_SERVER, AWS_MAX_ATTEMPTS="1"
    )

    assert result.code == 1
    assert result.stderr.startswith("deploy: The region eu-wset-1 does not respond")


def test_a_network_of_another_region_is_reported(account: Account) -> None:
    """The usual reason is a wrong region."""
    vpc = account.client("ec2", "us-east-1").describe_vpcs()["Vpcs"][0]["VpcId"]
    result = account.deploy(
        "up", "--stack", "far", "--version", "1", *network_options(account), "--set", f"VpcId={vpc}"
    )

    assert (result.code, result.changes) == (1, [])
    assert result.stderr == f"deploy: {vpc} is not in eu-west-1: is that the right region?\n"


def test_all_parameters_without_a_value_are_reported(account: Account) -> None:
    result = account.deploy("up", "--stack", "new", "--version", "1", "--set", "VpcId=vpc-1")

    assert (result.code, result.changes) == (1, [])
    missing_options = "--set LoadBalancerSubnets=..., --set TaskSubnets=..., --set AllowedCidr=..."
    assert result.stderr == f"deploy: The stack needs {missing_options}\n"


def test_a_placeholder_without_a_value_is_reported(account: Account, tmp_path: Path) -> None:
    """A user's own task definition may have further placeholders. `--fill` sets their values."""
    text = (ROOT / "deploy" / "task-definition.json").read_text()
    own_file = tmp_path / "task-definition.json"
    own_file.write_text(text.replace('"${SAMPLE_RATE}"', '"${MY_RATE}"'))
    up = ["up", "--dry-run", "--stack", "own", "--version", "1", *network_options(account)]
    up += ["--task-definition", str(own_file)]
    without_value = account.deploy(*up)
    with_value = verified(account.deploy(*up, "--fill", "MY_RATE=0.25"))

    assert without_value.code == 1
    assert without_value.stderr == (
        "deploy: The task definition has placeholders without a value: MY_RATE. Add --fill MY_RATE=....\n"
    )
    assert '"value": "0.25"' in with_value.stdout


def test_a_missing_key_is_reported_before_any_change(account: Account) -> None:
    """Neither the secret nor the environment has a key."""
    result = account.deploy("up", "--stack", "keyless", "--version", "1", *network_options(account))

    assert (result.code, result.changes) == (1, [])
    assert result.stderr == "deploy: The secret has no Datadog API key yet: set DD_API_KEY.\n"


def test_the_reason_for_a_rollback_is_shown(account: Account) -> None:
    """The reason comes from the first resource that failed. Resources canceled because of it are ignored.

    Both this run and the next one show the command that helps.
    """
    with aws.cloudformation_that_rolls_back() as url:
        up = ["up", "--version", "1", *network_options(account)]
        result = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url, DD_API_KEY=KEY)
        next_run = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url)

    reason = "LoadBalancer: At least two subnets in two different Availability Zones must be specified"
    advice = "run deploy/deploy destroy --stack hello-service --region eu-west-1"
    assert result.code == 1
    assert f"The stack hello-service is ROLLBACK_COMPLETE. {reason}. It could not be created." in result.stderr
    assert advice in result.stderr
    assert next_run.changes == []
    assert f"The stack hello-service is ROLLBACK_COMPLETE ({reason}). " in next_run.stderr
    assert advice in next_run.stderr


def test_a_missing_version_is_reported_outside_of_a_git_checkout(account: Account, tmp_path: Path) -> None:
    """The default version is the commit of the checkout."""
    copied_folder = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy", copied_folder, ignore=shutil.ignore_patterns("__pycache__"))
    result = account.run([str(copied_folder / "deploy"), "up"])

    assert result.code == 1
    assert "not a git checkout: add --version" in result.stderr


def test_a_deployment_fails_if_another_version_responds(account: Account, versions: dict[str, Running]) -> None:
    """The request at the end checks the version in the response."""
    up = ["up", "--stack", "other", "--version", "5.0.0", "--url", versions["1.0.0"].url, "--patience", "1"]
    result = account.deploy(*up, *network_options(account), DD_API_KEY=KEY)

    assert result.code == 1
    assert "version 1.0.0 responds, not 5.0.0." in result.stderr


def test_all_malformed_options_are_reported_by_name_and_value(account: Account) -> None:
    """The report comes before any command runs. It includes a misspelled parameter: `VpcID` should be `VpcId`."""
    options = ["--sample-rate", "10%", "--site", "https://app.datadoghq.eu", "--version", "my version/1"]
    options += ["--set", "VpcID=vpc-1"]
    result = verified(account.deploy("up", *options, *network_options(account), DD_API_KEY=KEY), code=1)
    reported_options = [line.strip().partition(": ")[0] for line in result.stderr.splitlines()[1:]]

    assert result.commands == []
    assert reported_options == [
        "--version my version/1",
        "--site https://app.datadoghq.eu",
        "--sample-rate 10%",
        "--set VpcID=vpc-1",
    ]


@pytest.mark.parametrize(("option", "value"), [("--stack", "Hello"), ("--stack", "hello-"), ("--region", "nowhere")])
def test_a_malformed_stack_or_region_is_rejected(account: Account, option: str, value: str) -> None:
    result = verified(account.deploy("up", "--version", "1", option, value, DD_API_KEY=KEY), code=1)

    assert result.changes == []
    assert value in result.stderr


def test_a_mistake_in_the_task_definition_stops_a_deployment(account: Account, tmp_path: Path) -> None:
    """check.py checks the filled-in file before the stack is created."""
    own_file = tmp_path / "own.json"
    text = (ROOT / "deploy" / "task-definition.json").read_text()
    own_file.write_text(text.replace('"stopTimeout": 60', '"stopTimeout": 600'))
    up = ["up", "--version", "1", "--task-definition", str(own_file), *network_options(account)]
    for command in (up, [*up, "--dry-run"]):
        result = account.deploy(*command, DD_API_KEY=KEY)

        assert (result.code, result.changes) == (1, [])
        assert "check.py found mistakes" in result.stderr
        assert "stopTimeout" in result.stderr


def test_plain_http_for_the_internet_needs_a_flag(account: Account) -> None:
    """With a certificate or an internal load balancer, the flag is not needed."""
    up = ["up", "--dry-run", "--stack", "open", "--version", "1", *network_options(account)]
    up += ["--set", "AllowedCidr=0.0.0.0/0"]
    certificate = "CertificateArn=arn:aws:acm:eu-west-1:123456789012:certificate/x"
    rejected = verified(account.deploy(*up, DD_API_KEY=KEY), code=1)

    assert "AllowedCidr=0.0.0.0/0 without CertificateArn" in rejected.stderr
    assert "--allow-open-http" in rejected.stderr
    for options in (["--allow-open-http"], ["--set", "Scheme=internal"], ["--set", certificate]):
        verified(account.deploy(*up, *options, DD_API_KEY=KEY))


@pytest.mark.parametrize(
    ("options", "trusted"),
    [
        ([], "false"),
        (["--set", "Scheme=internal"], "true"),
        (["--set", "TrustTraceHeaders=true"], "true"),
        (["--set", "Scheme=internal", "--set", "TrustTraceHeaders=false"], "false"),
    ],
)
def test_only_trace_headers_from_inside_the_network_are_trusted_by_default(
    account: Account, options: list[str], trusted: str
) -> None:
    """The parameter TrustTraceHeaders overrides this default."""
    up = ["up", "--dry-run", "--stack", "trust", "--version", "1", *network_options(account), *options]
    service_container = printed_definition(verified(account.deploy(*up)))["containerDefinitions"][0]

    assert {"name": "TRUST_TRACE_HEADERS", "value": trusted} in service_container["environment"]


def stack_response(status: str) -> dict[str, object]:
    """Return a response to DescribeStacks, with a stack in `status`."""
    stack = {
        "StackName": "hello-service",
        "StackStatus": status,
        "CreationTime": "2026-01-01T00:00:00Z",
        "Parameters": [{"ParameterKey": "TaskDefinition", "ParameterValue": ""}],
    }
    return {"Stacks": [stack]}


# A response to DescribeStackEvents. The account has no service-linked role for ECS.
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
def test_a_stack_that_cannot_be_changed_is_reported_with_advice(account: Account, status: str, advice: str) -> None:
    """The error shows the state, why the first resource failed, and the next command."""
    stacks = stack_response(status)
    with account.stubbed(cloudformation__describe_stacks=stacks, cloudformation__describe_stack_events=EVENTS):
        for command in (["up", "--version", "1"], ["rollback"]):
            result = verified(account.deploy(*command), code=1)

            assert result.changes == []
            assert status in result.stderr
            assert advice.lower() in result.stderr.lower()
            # An update that is still in progress has not failed, so its error has no reason and no fix.
            has_fix = "create-service-linked-role" in result.stderr
            assert has_fix == (status != "UPDATE_IN_PROGRESS")


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("An error occurred (ExpiredToken) when calling the DescribeStacks operation: expired", "sign in again"),
        # "Rights" is a section of deploy/README.md.
        ("An error occurred (AccessDenied) when calling DescribeStacks: not authorized", '"Rights"'),
        ("An error occurred (Throttling) when calling DescribeStacks: Rate exceeded", "wait a minute"),
        ("Something else", "Correct"),
    ],
)
def test_an_aws_error_comes_with_advice(account: Account, message: str, advice: str) -> None:
    with account.stubbed(cloudformation__describe_stacks=message):
        result = verified(account.deploy("up", "--version", "1"), code=1)

    assert result.stderr.startswith("deploy: aws cloudformation describe-stacks failed: ")
    assert message in result.stderr
    assert advice in result.stderr


def test_the_pushed_image_is_built_by_the_engine(engine: Engine, versions: dict[str, Running], tmp_path: Path) -> None:
    """Its platform is the default of the stack, and its DD_VERSION is the deployed version."""
    with aws.account(tmp_path, engine.environment) as account:
        up = ["up", "--version", "2.0.0", "--url", versions["2.0.0"].url, *network_options(account)]
        result = verified(account.deploy(*up, DD_API_KEY=KEY))
        (build,) = [command for command in result.commands if command[:2] == ["docker", "build"]]
        tag = build[build.index("--tag") + 1]
        built_image = engine.inspect(tag)
        engine.docker("rmi", tag)

    assert build[build.index("--platform") + 1] == "linux/amd64"
    assert "DD_VERSION=2.0.0" in built_image["Config"]["Env"]
    assert tag == "123456789012.dkr.ecr.eu-west-1.amazonaws.com/hello-service:2.0.0"
