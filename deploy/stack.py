"""The CloudFormation stack of stack.yaml: its parameters, states and changes."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

from aws_cli import Aws, AwsError, Failure, echo

TEMPLATE = Path(__file__).resolve().with_name("stack.yaml")
# ECR, whose repository has the same name, allows no capitals and no two hyphens in a row.
NAME = re.compile(r"(?=.{1,25}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Parameters that `--set` does not accept, and the reason.
RESERVED = {
    "TaskDefinition": "deploy/deploy sets it to the revision that it registers",
    "SecretVersion": "deploy/deploy sets it to the version of the API key",
    "Protect": "use --protect or --no-protect",
}
# Changing these would replace the load balancer while its target group is still in use, which AWS rejects.
FIXED = ("VpcId", "Scheme")
# The pattern of a value of each parameter type, and its description for error messages.
TYPE_PATTERNS = {
    "AWS::EC2::VPC::Id": (r"vpc-[0-9a-f]+", "an id such as vpc-0a1b2c3d"),
    "List<AWS::EC2::Subnet::Id>": (
        r"subnet-[0-9a-f]+(,subnet-[0-9a-f]+)*",
        "ids separated by commas, such as subnet-0a1b,subnet-2c3d",
    ),
    "Number": (r"\d{1,9}", "a whole number"),
}
# One organization has at most a /8, so a network with a shorter prefix contains other people's addresses.
MIN_PREFIX_BITS = 8
STABLE_STATES = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"}
# States that the user must resolve, and how.
STUCK_STATES = {
    "REVIEW_IN_PROGRESS": "It holds a change set and no resources. Run {destroy}, then run the same command again.",
    "ROLLBACK_COMPLETE": "It could not be created. Remove the cause, run {destroy}, then run the same command again.",
    "ROLLBACK_FAILED": "It could not be created. Remove the cause, run {destroy}, then run the same command again.",
    "CREATE_FAILED": "It could not be created. Remove the cause, run {destroy}, then run the same command again.",
    "DELETE_FAILED": "It could not be deleted. Remove the cause, then run {destroy} again.",
    "UPDATE_ROLLBACK_FAILED": "An update failed, and so did its rollback. Remove the cause, then run "
    "aws cloudformation continue-update-rollback --stack-name {name} --region {region}, and the same command again. "
    'deploy/README.md explains it under "UPDATE_ROLLBACK_FAILED".',
    "UPDATE_FAILED": "Run aws cloudformation rollback-stack --stack-name {name} --region {region}, "
    "then the same command again.",
}
CREATE_SERVICE_ROLE = "aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com"


def declared_parameters() -> dict[str, dict[str, Any]]:
    """Return stack.yaml's parameters, by name. Patterns find them, because the standard library has no YAML parser."""
    section = TEMPLATE.read_text().partition("\nParameters:\n")[2].partition("\nConditions:\n")[0]
    parameters: dict[str, dict[str, Any]] = {}
    # A parameter's name is indented by two spaces, and its attributes by four.
    for block in re.split(r"^  (?=\w+:$)", section, flags=re.MULTILINE)[1:]:
        name, _, lines = block.partition(":\n")
        attributes = dict(re.findall(r"^    (\w+): (.*)$", lines, re.MULTILINE))
        parameters[name] = {
            key: _scalars(value) if key == "AllowedValues" else _scalar(value) for key, value in attributes.items()
        }
    return parameters


def _scalar(text: str) -> str:
    return text.strip().strip('"')


def _scalars(text: str) -> list[str]:
    return [_scalar(item) for item in text.strip("[]").split(",")]


def parameter_problem(name: str, value: str) -> str | None:
    """Return the problem with `value` for the parameter `name`, None if it is valid."""
    parameters = declared_parameters()
    if name not in parameters:
        intended = next((parameter for parameter in parameters if parameter.lower() == name.lower()), None)
        advice = f"use {intended}" if intended else f"it has {', '.join(parameters)}"
        return f"stack.yaml has no such parameter; {advice}"
    if name in RESERVED:
        return RESERVED[name]
    if name == "AllowedCidr":
        return _network_problem(value)
    return _value_problem(value, parameters[name])


def _value_problem(value: str, parameter: dict[str, Any]) -> str | None:
    if "AllowedValues" in parameter and value not in parameter["AllowedValues"]:
        return f"it must be one of {', '.join(filter(None, parameter['AllowedValues']))}"
    own_pattern = parameter.get("AllowedPattern", "")
    pattern, form = TYPE_PATTERNS.get(parameter["Type"], (own_pattern, f"of the form {own_pattern}"))
    if pattern and not re.fullmatch(pattern, value):
        return f"it must be {form}"
    # Without MaxValue, the nine digits that TYPE_PATTERNS allows are the only limit.
    low, high = int(parameter.get("MinValue", 0)), int(parameter.get("MaxValue", 10**9))
    if parameter["Type"] == "Number" and not low <= int(value) <= high:
        return f"it must be from {low} to {high}"
    return None


def _network_problem(value: str) -> str | None:
    try:
        ipaddress.IPv4Network(value)
    except ValueError as error:
        return f"it must be an IPv4 network such as 203.0.113.7/32: {error}"
    return None if "/" in value else "it must be an IPv4 network such as 203.0.113.7/32"


def is_open_over_http(parameters: dict[str, str]) -> bool:
    """Return whether the internet can reach the load balancer over plain HTTP."""
    network = ipaddress.IPv4Network(parameters["AllowedCidr"])
    is_public = parameters["Scheme"] == "internet-facing" and network.prefixlen < MIN_PREFIX_BITS
    return is_public and not parameters["CertificateArn"]


class Stack:
    """A stack that is created from stack.yaml."""

    def __init__(self, aws: Aws, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Failure(
                f"--stack {name}: the name must be lower-case letters, digits and single hyphens, at most 25 characters."
            )
        self.aws = aws
        self.name = name
        # The parameters of the stack that a dry run would have created.
        self._dry_run_parameters: dict[str, str] | None = None

    def read(self) -> dict[str, Any] | None:
        """Return CloudFormation's description of the stack, None if the stack does not exist."""
        try:
            stacks = self.aws.run("cloudformation", "describe-stacks", "--stack-name", self.name)["Stacks"]
        except AwsError as error:
            if "does not exist" in str(error):
                return None
            raise
        return dict(stacks[0])

    def parameters(self) -> dict[str, str]:
        """Return the current parameters, an empty dictionary if the stack does not exist."""
        return values_by_name(self.read(), "Parameter")

    def outputs(self) -> dict[str, str]:
        """Return the outputs, an empty dictionary if the stack does not exist."""
        return values_by_name(self.read(), "Output")

    def check_ready(self, description: dict[str, Any] | None) -> None:
        """Check that the stack can be changed, or created if `description` is None.

        Raises:
            Failure: when the state of the stack does not allow a change.
        """
        if description is None:
            return
        status = description["StackStatus"]
        destroy = f"deploy/deploy destroy --stack {self.name} --region {self.aws.region}"
        if status in STUCK_STATES:
            advice = STUCK_STATES[status].format(name=self.name, region=self.aws.region, destroy=destroy)
            raise Failure(f"The stack {self.name} is {status} ({self.failure_reason()}). {advice}")
        if status not in STABLE_STATES:
            raise Failure(f"The stack {self.name} is {status}: wait until this change is complete.")

    def planned_parameters(
        self, description: dict[str, Any] | None, changes: dict[str, str], *, open_http: bool
    ) -> dict[str, str]:
        """Return all parameters: those in `changes` have new values, the others keep their current or default values.

        `open_http` allows parameters that open the service to the internet over plain HTTP.

        Raises:
            Failure: when a parameter is missing or invalid, can't be changed, or would open the service by accident.
        """
        parameters = declared_parameters()
        current = {
            name: value for name, value in values_by_name(description, "Parameter").items() if name in parameters
        }
        defaults = {name: attributes["Default"] for name, attributes in parameters.items() if "Default" in attributes}
        planned = {**defaults, **current, **changes}
        required = [name for name in parameters if name not in defaults]
        if missing := [name for name in required if not planned.get(name)]:
            raise Failure("The stack needs " + ", ".join(f"--set {name}=..." for name in missing))
        for name in FIXED:
            if current.get(name, planned[name]) != planned[name]:
                raise Failure(
                    f"--set {name}={planned[name]}: it is {current[name]} and can't be changed. "
                    "Deploy a second stack (--stack), then destroy this one."
                )
        if int(planned["MinTasks"]) > int(planned["MaxTasks"]):
            raise Failure(f"MinTasks={planned['MinTasks']} is more than MaxTasks={planned['MaxTasks']}.")
        was_open = bool(current.get("AllowedCidr")) and is_open_over_http({**defaults, **current})
        if is_open_over_http(planned) and not was_open and not open_http:
            raise Failure(
                f"AllowedCidr={planned['AllowedCidr']} without CertificateArn opens the service to the internet over "
                "plain HTTP. Set a smaller network or a certificate, or confirm it with --allow-open-http."
            )
        if not description or changes.keys() & {"VpcId", "LoadBalancerSubnets", "TaskSubnets"}:
            self._check_network(planned)
        return planned

    def create_or_update(self, planned: dict[str, str], tags: dict[str, str]) -> None:
        """Create or update the stack from stack.yaml with the parameters `planned` and the tags `tags`."""
        description = self.read()
        current = values_by_name(description, "Parameter") or self._dry_run_parameters or {}
        exists = description is not None or self._dry_run_parameters is not None
        current_tags = {tag["Key"]: tag["Value"] for tag in (description or {}).get("Tags", [])}
        all_tags = {**current_tags, **tags}
        is_same = all(current.get(name) == value for name, value in planned.items()) and all_tags == current_tags
        if description and is_same and self._deployed_template() == TEMPLATE.read_text().strip():
            echo(f"  {self.name}: unchanged")
            return
        verb = "update" if exists else "create"
        # An empty value need not be set, because it is the default of every parameter that may be empty.
        parameters: list[dict[str, Any]] = [
            {"ParameterKey": name, "UsePreviousValue": True}
            if current.get(name) == value
            else {"ParameterKey": name, "ParameterValue": value}
            for name, value in planned.items()
            if value or name in current
        ]
        self._change(verb, parameters, all_tags, "--template-body", f"file://{TEMPLATE}")
        if self.aws.dry_run:
            self._dry_run_parameters = planned
        echo(f"  {self.name}: would be {verb}d" if self.aws.dry_run else f"  {self.name}: {verb}d")

    def unprotect(self) -> None:
        """Turn off the protection against deletion; nothing else changes."""
        description = self.read()
        if description is None:
            raise Failure(f"There is no stack {self.name} in {self.aws.region}.")
        self.check_ready(description)
        self.set_termination_protection(enabled=False)
        current = values_by_name(description, "Parameter")
        if current.get("Protect") == "true":
            parameters: list[dict[str, Any]] = [{"ParameterKey": "Protect", "ParameterValue": "false"}]
            others = sorted(current.keys() - {"Protect"})
            parameters += [{"ParameterKey": name, "UsePreviousValue": True} for name in others]
            tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
            self._change("update", parameters, tags, "--use-previous-template")

    def set_termination_protection(self, *, enabled: bool) -> None:
        """Turn CloudFormation's termination protection of the stack on or off."""
        description = self.read()
        if description is not None and bool(description.get("EnableTerminationProtection")) != enabled:
            flag = "--enable-termination-protection" if enabled else "--no-enable-termination-protection"
            self.aws.change("cloudformation", "update-termination-protection", flag, "--stack-name", self.name)

    def delete(self) -> None:
        """Delete the stack."""
        self.aws.change("cloudformation", "delete-stack", "--stack-name", self.name)
        self._wait("delete")

    def failure_reason(self) -> str:
        """Return why the last change of the stack failed: the message of the first resource that failed."""
        events = self.aws.run("cloudformation", "describe-stack-events", "--stack-name", self.name)["StackEvents"]
        reason = "no resource gives a reason"
        for event in events:  # newest first, so the last failure that the loop reaches is the first that happened
            status, text = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if event["ResourceType"] == "AWS::CloudFormation::Stack" and text == "User Initiated":
                break  # the start of the last change
            # A resource whose change was "cancelled", in AWS's spelling, is a consequence of another failure.
            if status.endswith("_FAILED") and "cancelled" not in text:
                reason = f"{event['LogicalResourceId']}: {text}"
        if "service linked role" in reason.replace("-", " "):
            reason += f"; a new account needs this once: {CREATE_SERVICE_ROLE}"
        return reason

    def _change(self, verb: str, parameters: list[dict[str, Any]], tags: dict[str, str], *template: str) -> None:
        arguments = ["--stack-name", self.name, *template, "--parameters", json.dumps(parameters)]
        if tags:
            arguments += ["--tags", json.dumps([{"Key": key, "Value": value} for key, value in tags.items()])]
        try:
            self.aws.change("cloudformation", f"{verb}-stack", *arguments, "--capabilities", "CAPABILITY_IAM")
        except AwsError as error:
            if "No updates are to be performed" in str(error):
                return
            raise
        self._wait(verb)

    def _wait(self, verb: str) -> None:
        if self.aws.dry_run:
            return
        try:
            self.aws.run("cloudformation", "wait", f"stack-{verb}-complete", "--stack-name", self.name)
        except AwsError:
            description = self.read()
            status = description["StackStatus"] if description else "gone"
            advice = "Remove the cause, then run the same command again."
            if status == "UPDATE_ROLLBACK_COMPLETE":
                advice = "The previous version keeps running. " + advice
            elif status in STUCK_STATES:
                destroy = f"deploy/deploy destroy --stack {self.name} --region {self.aws.region}"
                advice = STUCK_STATES[status].format(name=self.name, region=self.aws.region, destroy=destroy)
            elif status.endswith("IN_PROGRESS"):
                advice = "AWS is still changing it: wait until this is complete, then run the same command again."
            raise Failure(f"The stack {self.name} is {status}. {self.failure_reason()}. {advice}") from None

    def _deployed_template(self) -> str:
        body = self.aws.run("cloudformation", "get-template", "--stack-name", self.name)["TemplateBody"]
        return str(body).strip()

    def _check_network(self, planned: dict[str, str]) -> None:
        """Check that AWS will accept the VPC and the subnets in `planned`.

        Raises:
            Failure: when the VPC or a subnet does not exist, a subnet is in another VPC, or the load balancer would be
                in one availability zone only.
        """
        vpc, balancer_subnets = planned["VpcId"], planned["LoadBalancerSubnets"].split(",")
        try:
            self.aws.run("ec2", "describe-vpcs", "--vpc-ids", vpc)
            ids = sorted({*balancer_subnets, *planned["TaskSubnets"].split(",")})
            subnets = self.aws.run("ec2", "describe-subnets", "--subnet-ids", *ids)["Subnets"]
        except AwsError as error:
            # AWS writes: The vpc ID 'vpc-0a1b' does not exist.
            match = re.search(r"'?((?:vpc|subnet)-[0-9a-f]+)\S*' does not exist", str(error))
            if not match and "NotFound" not in str(error):
                raise
            missing = match[1] if match else vpc
            raise Failure(f"{missing} is not in {self.aws.region}: is that the right region?") from None
        if foreign_subnets := sorted(subnet["SubnetId"] for subnet in subnets if subnet["VpcId"] != vpc):
            raise Failure(f"{vpc} does not contain {', '.join(foreign_subnets)}: use subnets of that VPC.")
        balancer_zones = {subnet["AvailabilityZone"] for subnet in subnets if subnet["SubnetId"] in balancer_subnets}
        if len(balancer_zones) < 2:
            raise Failure(
                f"LoadBalancerSubnets={planned['LoadBalancerSubnets']}: a load balancer needs subnets in two "
                "availability zones."
            )


def values_by_name(description: dict[str, Any] | None, kind: str) -> dict[str, str]:
    """Return the parameters (`kind` is "Parameter") or the outputs ("Output") of a stack, by name."""
    entries = (description or {}).get(f"{kind}s", [])
    return {entry[f"{kind}Key"]: entry[f"{kind}Value"] for entry in entries}
