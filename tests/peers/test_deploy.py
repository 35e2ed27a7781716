"""deploy/deploy, with the real AWS CLI against an AWS API on loopback: what it does, what it leaves alone, what it says."""

from __future__ import annotations

import json
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


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """An AWS account; images are built by nobody."""
    with aws.account(tmp_path_factory.mktemp("account")) as account:
        yield account


@pytest.fixture(scope="module")
def versions() -> Iterator[dict[str, Running]]:
    """The service in two versions: what answers at a load balancer's address, which the API has not."""
    with service(NOWHERE, {"DD_VERSION": "1.0.0"}) as one, service(NOWHERE, {"DD_VERSION": "2.0.0"}) as two:
        yield {"1.0.0": one, "2.0.0": two}


def sets(account: Account) -> list[str]:
    return [part for name, value in account.network().items() for part in ("--set", f"{name}={value}")]


def ok(ran: Ran) -> Ran:
    assert ran.code == 0, ran.said + ran.complained
    assert KEY not in ran.said + ran.complained
    assert KEY not in json.dumps(ran.commands)
    return ran


def revisions(account: Account, family: str) -> list[str]:
    found: list[str] = account.client("ecs").list_task_definitions(familyPrefix=family)["taskDefinitionArns"]
    return found


def test_a_service_is_deployed_renewed_taken_back_and_deleted(account: Account, versions: dict[str, Running]) -> None:
    """Each run does what is left to do and nothing else, and ends with a request that the right version answers."""
    first_up = ["up", "--version", "1.0.0", "--env", "staging", "--url", versions["1.0.0"].url]
    next_up = ["up", "--version", "2.0.0", "--env", "staging", "--url", versions["2.0.0"].url]
    ecs, secrets, ecr = account.client("ecs"), account.client("secretsmanager"), account.client("ecr")

    first = ok(account.deploy(*first_up, *sets(account), DD_API_KEY=KEY))
    (secret,) = secrets.list_secrets()["SecretList"]
    assert first.changes == [
        "cloudformation create-stack",
        "secretsmanager put-secret-value",
        "docker build",
        "docker login",
        "docker push",
        "ecs register-task-definition",
        "cloudformation update-stack",
    ]
    assert json.loads(secrets.get_secret_value(SecretId=secret["ARN"])["SecretString"]) == {"DD_API_KEY": KEY}
    (running,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert running["taskDefinition"].endswith("task-definition/hello-service:1")
    assert "/health: 200, version 1.0.0" in first.said

    second = ok(account.deploy(*first_up))
    assert second.changes == []
    assert second.said.count("unchanged") == 3
    assert len(revisions(account, "hello-service")) == 1

    renewed = ok(account.deploy(*next_up))
    assert renewed.changes == [
        "docker build",
        "docker login",
        "docker push",
        "ecs register-task-definition",
        "cloudformation update-stack",
    ]
    images = ecr.list_images(repositoryName="hello-service")["imageIds"]
    assert {each["imageTag"] for each in images} == {"1.0.0", "2.0.0"}
    described = ecs.describe_task_definition(taskDefinition="hello-service:2")["taskDefinition"]
    assert described["containerDefinitions"][0]["image"].endswith("/hello-service:2.0.0")

    back = ok(account.deploy("rollback", "--url", versions["1.0.0"].url))
    assert back.changes == ["cloudformation update-stack"]
    assert "from hello-service:2 back to hello-service:1" in back.said
    (running,) = ecs.describe_services(cluster="hello-service", services=["hello-service"])["services"]
    assert running["taskDefinition"].endswith(":1")
    no_further = account.deploy("rollback")
    assert (no_further.code, no_further.changes) == (1, [])
    assert "There is no revision before hello-service:1." in no_further.complained

    kept = account.deploy("destroy", given="no\n")
    assert (kept.code, kept.changes, "Nothing is deleted." in kept.complained) == (1, [], True)
    gone = ok(account.deploy("destroy", given="hello-service\n"))
    assert gone.changes[0] == "cloudformation delete-stack"
    assert revisions(account, "hello-service") == []
    assert secrets.list_secrets()["SecretList"] == []
    again = ok(account.deploy("destroy", "--yes"))
    assert (again.changes, "There is no stack hello-service" in again.said) == ([], True)


def test_a_dry_run_changes_nothing_and_shows_the_definition(account: Account) -> None:
    """Every command that would be run, and the filled-in JSON."""
    dry = ok(account.deploy("up", "--dry-run", "--stack", "dry", "--version", "3.0.0", *sets(account), DD_API_KEY=KEY))
    shown = json.loads(dry.said[dry.said.index("{\n") : dry.said.index("\n}\n") + 2])

    assert dry.changes == []
    assert shown["family"] == "dry"
    assert shown["containerDefinitions"][0]["image"].endswith(":3.0.0")
    assert "would run: aws cloudformation create-stack --stack-name dry" in dry.said
    assert "--secret-string file:///dev/stdin" in dry.said


def test_credentials_that_are_missing_are_said_to_be(account: Account) -> None:
    """Before anything is done."""
    without = {**account.environment, "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    ran = Account(account.url, account.place, without).deploy("up", "--version", "1")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.complained.startswith("deploy: No usable AWS credentials: ")


def test_a_region_is_needed(account: Account) -> None:
    """Neither a variable nor the CLI's configuration names one."""
    ran = account.deploy("up", "--version", "1", AWS_DEFAULT_REGION="")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.complained == "deploy: No region: set AWS_DEFAULT_REGION, or say --region eu-west-1.\n"


def test_a_region_that_does_not_answer_is_named(account: Account) -> None:
    """As one whose name is misspelled."""
    ran = account.deploy(
        "up", "--version", "1", "--region", "eu-wset-1", AWS_ENDPOINT_URL=NOWHERE, AWS_MAX_ATTEMPTS="1"
    )

    assert ran.code == 1
    assert ran.complained.startswith("deploy: eu-wset-1 does not answer: is it the name of a region?")


def test_a_network_of_another_region_is_seen(account: Account) -> None:
    """The wrong region is the usual reason."""
    elsewhere = account.client("ec2", "us-east-1").describe_vpcs()["Vpcs"][0]["VpcId"]
    ran = account.deploy("up", "--stack", "far", "--version", "1", *sets(account), "--set", f"VpcId={elsewhere}")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.complained == f"deploy: {elsewhere} is not in eu-west-1: is that the right region?\n"


def test_parameters_without_a_value_are_named(account: Account) -> None:
    """All of them."""
    ran = account.deploy("up", "--stack", "new", "--version", "1", "--set", "VpcId=vpc-1")

    assert (ran.code, ran.changes) == (1, [])
    assert ran.complained == "deploy: The stack needs --set LoadBalancerSubnets=..., --set TaskSubnets=...\n"


def test_a_placeholder_without_a_value_is_named(account: Account, tmp_path: Path) -> None:
    """One that a person has added to the file, before anything is registered; --fill gives it a value."""
    text = (ROOT / "deploy" / "task-definition.json").read_text()
    own = tmp_path / "task-definition.json"
    own.write_text(text.replace('"${SAMPLE_RATE}"', '"${MY_RATE}"'))
    up = ["up", "--dry-run", "--stack", "own", "--version", "1", "--task-definition", str(own), *sets(account)]
    ran = account.deploy(*up)
    helped = ok(account.deploy(*up, "--fill", "MY_RATE=0.25"))

    assert ran.code == 1
    assert ran.complained == "deploy: The task definition has placeholders without a value: MY_RATE\n"
    assert '"value": "0.25"' in helped.said


def test_a_key_is_needed_once(account: Account) -> None:
    """Without one in the secret and in the environment nothing is built or run."""
    ran = account.deploy("up", "--stack", "keyless", "--version", "1", *sets(account))

    assert (ran.code, ran.changes) == (1, ["cloudformation create-stack"])
    assert ran.complained == "deploy: The secret has no Datadog API key yet: set DD_API_KEY.\n"


def test_a_stack_that_is_rolled_back_says_why(account: Account) -> None:
    """The first resource that failed, not those that were cancelled for it; the next run says what to do."""
    with aws.cloudformation_that_rolls_back() as url:
        up = ["up", "--version", "1", *sets(account)]
        ran = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url)
        next_run = account.deploy(*up, AWS_ENDPOINT_URL_CLOUDFORMATION=url)

    reason = "LoadBalancer: At least two subnets in two different Availability Zones must be specified"
    assert ran.code == 1
    assert ran.complained == f"deploy: The stack hello-service is ROLLBACK_COMPLETE. {reason}\n"
    assert next_run.changes == []
    assert f"could not be created ({reason}): deploy/deploy destroy" in next_run.complained


def test_a_version_that_can_not_be_found_again_is_refused(account: Account, tmp_path: Path) -> None:
    """Where there is no commit to name the image by, a person has to."""
    copy = tmp_path / "deploy"
    copy.mkdir()
    for name in ("deploy", "stack.yaml", "task-definition.json"):
        (copy / name).write_bytes((ROOT / "deploy" / name).read_bytes())
    (copy / "deploy").chmod(0o755)
    ran = account.run([str(copy / "deploy"), "up"])

    assert (ran.code, ran.complained) == (1, "deploy: This is no git checkout: say --version.\n")


def test_a_service_of_another_version_is_not_what_was_deployed(account: Account, versions: dict[str, Running]) -> None:
    """The request at the end asks for the version, not for an answer alone."""
    up = ["up", "--stack", "other", "--version", "5.0.0", "--url", versions["1.0.0"].url, "--patience", "1"]
    ran = account.deploy(*up, *sets(account), DD_API_KEY=KEY)

    assert ran.code == 1
    assert "is not what was deployed: version 1.0.0 answers, not 5.0.0." in ran.complained


def test_the_image_that_is_pushed_is_built_by_the_engine(
    engine: Engine, versions: dict[str, Running], tmp_path: Path
) -> None:
    """The build that deploy/deploy asks for, with the platform of the stack, gives an image of that version."""
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
