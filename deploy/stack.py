"""The CloudFormation stack of stack.yaml: its parameters, states and changes."""

from __future__ import annotations

import ipaddress
import json
import re
from pathlib import Path
from typing import Any

from aws_cli import Aws, AwsError, Failure, echo

TEMPLATE = Path(__file__).resolve().with_name("stack.yaml")
NAME = re.compile(r"(?=.{1,25}$)[a-z][a-z0-9]*(-[a-z0-9]+)*")
# Parameters that `--set` does not accept, and the reason.
RESERVED = {
    "TaskDefinition": "deploy/deploy sets it to the revision that it registers",
    "SecretVersion": "deploy/deploy sets it to the version of the API key",
    "Protect": "use --protect or --no-protect",
}
# Changing these would replace the load balancer while its target group is still in use, which AWS rejects.
FIXED = ("VpcId", "Scheme")
# For each parameter type, the pattern of a value and the pattern's description for error messages.
TYPES = {
    "AWS::EC2::VPC::Id": (r"vpc-[0-9a-f]+", "an id such as vpc-0a1b2c3d"),
    "List<AWS::EC2::Subnet::Id>": (
        r"subnet-[0-9a-f]+(,subnet-[0-9a-f]+)*",
        "ids separated by commas, such as subnet-0a1b,subnet-2c3d",
    ),
    "Number": (r"\d{1,9}", "a whole number"),
}
OPEN_BITS = 8  # a network with a shorter prefix (larger than a /8) contains other people's public addresses
STABLE = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE"}
# States that the user must resolve, and how.
STUCK = {
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
SERVICE_ROLE = "aws iam create-service-linked-role --aws-service-name ecs.amazonaws.com"


def declared() -> dict[str, dict[str, Any]]:
    """Return the parameters that stack.yaml declares, by name, without a YAML library."""
    section = TEMPLATE.read_text().partition("\nParameters:\n")[2].partition("\nConditions:\n")[0]
    parameters: dict[str, dict[str, Any]] = {}
    for block in re.split(r"^  (?=\w+:$)", section, flags=re.MULTILINE)[1:]:
        name, _, rest = block.partition(":\n")
        pairs = dict(re.findall(r"^    (\w+): (.*)$", rest, re.MULTILINE))
        parameters[name] = {
            key: _scalars(value) if key == "AllowedValues" else _scalar(value) for key, value in pairs.items()
        }
    return parameters


def _scalar(text: str) -> str:
    return text.strip().strip('"')


def _scalars(text: str) -> list[str]:
    return [_scalar(each) for each in text.strip("[]").split(",")]


def parameter_problem(name: str, value: str) -> str | None:
    """Return the problem with `value` for the parameter `name`, None if it is valid."""
    parameters = declared()
    if name not in parameters:
        close = next((each for each in parameters if each.lower() == name.lower()), None)
        return f"stack.yaml has no such parameter; {f'use {close}' if close else 'it has ' + ', '.join(parameters)}"
    if name in RESERVED:
        return RESERVED[name]
    if name == "AllowedCidr":
        return _network_problem(value)
    return _value_problem(value, parameters[name])


def _value_problem(value: str, parameter: dict[str, Any]) -> str | None:
    if "AllowedValues" in parameter and value not in parameter["AllowedValues"]:
        return f"it must be one of {', '.join(filter(None, parameter['AllowedValues']))}"
    pattern, form = TYPES.get(parameter["Type"], (parameter.get("AllowedPattern", ""), ""))
    if pattern and not re.fullmatch(pattern, value):
        return f"it must be {form or f'of the form {pattern}'}"
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


def is_open(parameters: dict[str, str]) -> bool:
    """Return whether the internet can reach the load balancer over plain HTTP."""
    network = ipaddress.IPv4Network(parameters["AllowedCidr"])
    public = parameters["Scheme"] == "internet-facing" and network.prefixlen < OPEN_BITS
    return public and not parameters["CertificateArn"]


class Stack:
    """A stack that is created from stack.yaml."""

    def __init__(self, aws: Aws, name: str) -> None:
        if not NAME.fullmatch(name):
            raise Failure(
                f"--stack {name}: the name must be lower-case letters, digits and single hyphens, at most 25 characters."
            )
        self.aws = aws
        self.name = name
        self._dry_run_parameters: dict[str, str] | None = None  # those of the stack that a dry run would have created

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
        return values(self.read(), "Parameter")

    def outputs(self) -> dict[str, str]:
        """Return the outputs, an empty dictionary if the stack does not exist."""
        return values(self.read(), "Output")

    def check_ready(self, description: dict[str, Any] | None) -> None:
        """Check that the stack can be changed, or created if `description` is None.

        Raises:
            Failure: when the state of the stack does not allow a change.
        """
        if description is None:
            return
        status = description["StackStatus"]
        destroy = f"deploy/deploy destroy --stack {self.name} --region {self.aws.region}"
        if status in STUCK:
            advice = STUCK[status].format(name=self.name, region=self.aws.region, destroy=destroy)
            raise Failure(f"The stack {self.name} is {status} ({self.reason()}). {advice}")
        if status not in STABLE:
            raise Failure(f"The stack {self.name} is {status}: wait until this change is complete.")

    def planned_parameters(
        self, description: dict[str, Any] | None, changes: dict[str, str], *, open_http: bool
    ) -> dict[str, str]:
        """Return all parameters: those in `changes` have new values, the others keep their current or default values.

        Raises:
            Failure: when a parameter is missing, can't be changed, or would open the service by accident.
        """
        parameters = declared()
        current = {name: value for name, value in values(description, "Parameter").items() if name in parameters}
        defaults = {name: each["Default"] for name, each in parameters.items() if "Default" in each}
        planned = {**defaults, **current, **changes}
        if missing := [
            name for name in parameters if name not in planned or (not planned[name] and name not in defaults)
        ]:
            raise Failure("The stack needs " + ", ".join(f"--set {name}=..." for name in missing))
        for name in FIXED:
            if current.get(name, planned[name]) != planned[name]:
                raise Failure(
                    f"--set {name}={planned[name]}: it is {current[name]} and can't be changed. "
                    "Deploy a second stack (--stack), then destroy this one."
                )
        if int(planned["MinTasks"]) > int(planned["MaxTasks"]):
            raise Failure(f"MinTasks={planned['MinTasks']} is more than MaxTasks={planned['MaxTasks']}.")
        was_open = bool(current.get("AllowedCidr")) and is_open({**defaults, **current})
        if is_open(planned) and not was_open and not open_http:
            raise Failure(
                f"AllowedCidr={planned['AllowedCidr']} without CertificateArn opens the service to the internet over "
                "plain HTTP. Set a smaller network or a certificate, or confirm it with --allow-open-http."
            )
        if not description or changes.keys() & {"VpcId", "LoadBalancerSubnets", "TaskSubnets"}:
            self._check_network(planned)
        return planned

    def converge(self, planned: dict[str, str], tags: dict[str, str]) -> None:
        """Create or update the stack from stack.yaml with the parameters `planned` and the tags `tags`."""
        description = self.read()
        current = values(description, "Parameter") or self._dry_run_parameters or {}
        exists = description is not None or self._dry_run_parameters is not None
        current_tags = {each["Key"]: each["Value"] for each in (description or {}).get("Tags", [])}
        all_tags = {**current_tags, **tags}
        same = all(current.get(name) == value for name, value in planned.items()) and all_tags == current_tags
        if description and same and self._template() == TEMPLATE.read_text().strip():
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
        if self.aws.dry:
            self._dry_run_parameters = planned
        echo(f"  {self.name}: {verb}d" if not self.aws.dry else f"  {self.name}: would be {verb}d")

    def unprotect(self) -> None:
        """Turn off the protection against deletion; nothing else changes."""
        description = self.read()
        if description is None:
            raise Failure(f"There is no stack {self.name} in {self.aws.region}.")
        self.check_ready(description)
        self.set_termination_protection(enabled=False)
        current = values(description, "Parameter")
        if current.get("Protect") == "true":
            parameters: list[dict[str, Any]] = [{"ParameterKey": "Protect", "ParameterValue": "false"}]
            others = sorted(current.keys() - {"Protect"})
            parameters += [{"ParameterKey": name, "UsePreviousValue": True} for name in others]
            tags = {each["Key"]: each["Value"] for each in description.get("Tags", [])}
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

    def reason(self) -> str:
        """Return why the last change of the stack failed: the message of the first resource that failed."""
        events = self.aws.run("cloudformation", "describe-stack-events", "--stack-name", self.name)["StackEvents"]
        reason = "no resource gives a reason"
        for event in events:  # newest first, so the last failure that the loop reaches is the first that happened
            status, text = event["ResourceStatus"], event.get("ResourceStatusReason", "")
            if event["ResourceType"] == "AWS::CloudFormation::Stack" and text == "User Initiated":
                break  # the start of the last change
            if status.endswith("_FAILED") and "cancelled" not in text:
                reason = f"{event['LogicalResourceId']}: {text}"
        if "service linked role" in reason.replace("-", " "):
            reason += f"; a new account needs this once: {SERVICE_ROLE}"
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
        if self.aws.dry:
            return
        try:
            self.aws.run("cloudformation", "wait", f"stack-{verb}-complete", "--stack-name", self.name)
        except AwsError:
            description = self.read()
            status = description["StackStatus"] if description else "gone"
            advice = "Remove the cause, then run the same command again."
            if status == "UPDATE_ROLLBACK_COMPLETE":
                advice = "The previous version keeps running. " + advice
            elif status in STUCK:
                destroy = f"deploy/deploy destroy --stack {self.name} --region {self.aws.region}"
                advice = STUCK[status].format(name=self.name, region=self.aws.region, destroy=destroy)
            elif status.endswith("IN_PROGRESS"):
                advice = "AWS is still changing it: wait until this is complete, then run the same command again."
            raise Failure(f"The stack {self.name} is {status}. {self.reason()}. {advice}") from None

    def _template(self) -> str:
        body = self.aws.run("cloudformation", "get-template", "--stack-name", self.name)["TemplateBody"]
        return str(body).strip()

    def _check_network(self, planned: dict[str, str]) -> None:
        vpc, balancer_subnets = planned["VpcId"], planned["LoadBalancerSubnets"].split(",")
        try:
            self.aws.run("ec2", "describe-vpcs", "--vpc-ids", vpc)
            subnets = sorted({*balancer_subnets, *planned["TaskSubnets"].split(",")})
            found = self.aws.run("ec2", "describe-subnets", "--subnet-ids", *subnets)["Subnets"]
        except AwsError as error:
            match = re.search(r"'?((?:vpc|subnet)-[0-9a-f]+)\S*' does not exist", str(error))
            if not match and "NotFound" not in str(error):
                raise
            missing = match[1] if match else vpc
            raise Failure(f"{missing} is not in {self.aws.region}: is that the right region?") from None
        if elsewhere := sorted(each["SubnetId"] for each in found if each["VpcId"] != vpc):
            raise Failure(f"{vpc} does not contain {', '.join(elsewhere)}: use subnets of that VPC.")
        if len({each["AvailabilityZone"] for each in found if each["SubnetId"] in balancer_subnets}) < 2:
            raise Failure(
                f"LoadBalancerSubnets={planned['LoadBalancerSubnets']}: a load balancer needs subnets in two "
                "availability zones."
            )


def values(description: dict[str, Any] | None, kind: str) -> dict[str, str]:
    """Return the parameters (`kind` is "Parameter") or the outputs ("Output") of a stack, by name."""
    entries = (description or {}).get(f"{kind}s", [])
    return {each[f"{kind}Key"]: each[f"{kind}Value"] for each in entries}
